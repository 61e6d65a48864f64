//! One blob: asked for, sent in chunks, resumed where the repository's acknowledgement ends.

use std::time::Duration;

use appbase_core::AppName;
use kit::client::{Client, ClientError};
use reqwest::{Method, Response};

use super::progress::Progress;
use crate::error::Failure;
use crate::pack::Blob;
use crate::session::ANSWER_LIMIT;

/// What one lost connection costs at most.
const CHUNK_BYTES: u64 = 8 << 20;

/// A chunk on a slow line (30 kB/s) still gets through.
const CHUNK_LIMIT: Duration = Duration::from_secs(300);

/// Failures in a row, without a byte acknowledged between them.
const FAILURES_MAX: u32 = 6;

const PAUSE: Duration = Duration::from_millis(100);

/// Sends `blob` unless it is there; answers how many bytes that took.
pub(super) async fn send(
    repository: &Client,
    app: &AppName,
    blob: &mut Blob,
    progress: &Progress,
) -> Result<u64, Failure> {
    let mut session: Option<Upload> = None;
    let mut failures = 0;
    let mut farthest = 0;
    loop {
        let outcome = go_on(repository, app, blob, progress, &mut session).await;
        let error = match outcome {
            Ok(sent) => return Ok(sent),
            Err(error) => error,
        };
        let offset = session.as_ref().map_or(0, |upload| upload.offset);
        if offset > farthest {
            (farthest, failures) = (offset, 0);
        }
        failures += 1;
        if failures == FAILURES_MAX || !worth_another_try(&error, session.is_some()) {
            return Err(given_up(error, app, blob, farthest));
        }
        match &error {
            // The session is gone (the repository restarted), or it and we disagree about the offset: begin anew.
            ClientError::Refused(problem) if matches!(problem.status, 404 | 416) => session = None,
            _ => {}
        }
        tokio::time::sleep(PAUSE * 2_u32.pow(failures)).await;
    }
}

/// An upload that the repository knows.
struct Upload {
    /// Where the next chunk goes: path and query.
    path: String,
    offset: u64,
    /// Whether the offset is what the repository said last.
    sure: bool,
}

/// Goes as far as it can; what was reached stays in `session`.
async fn go_on(
    repository: &Client,
    app: &AppName,
    blob: &mut Blob,
    progress: &Progress,
    session: &mut Option<Upload>,
) -> Result<u64, ClientError> {
    if is_there(repository, app, blob).await? {
        // Also the end of a blob whose last answer was lost.
        return Ok(session.as_ref().map_or(0, |upload| upload.offset));
    }
    if session.is_none() {
        let request = repository.request(Method::POST, &format!("/v2/{app}/blobs/uploads/")).timeout(ANSWER_LIMIT);
        let response = repository.send(request.header("content-length", "0")).await?;
        *session = Some(Upload { path: location(repository, &response)?, offset: 0, sure: true });
    }
    let upload = session.as_mut().expect("set above");
    if !upload.sure {
        let response = repository.send(repository.request(Method::GET, &upload.path).timeout(ANSWER_LIMIT)).await?;
        upload.taken(repository, &response)?;
    }
    while upload.offset < blob.bytes {
        progress.at(upload.offset);
        let length = CHUNK_BYTES.min(blob.bytes - upload.offset);
        let chunk = usize::try_from(length).ok().and_then(|length| blob.read(upload.offset, length).ok());
        let Some(chunk) = chunk else {
            return Err(unreadable(repository, "the file that is being pushed became shorter meanwhile"));
        };
        upload.sure = false;
        let request = repository
            .request(Method::PATCH, &upload.path)
            .header("content-type", "application/octet-stream")
            .header("content-range", format!("{}-{}", upload.offset, upload.offset + length - 1))
            .body(chunk)
            .timeout(CHUNK_LIMIT);
        let response = repository.send(request).await?;
        let before = upload.offset;
        upload.taken(repository, &response)?;
        if (before, length) == (0, 1) {
            upload.offset = 1; // `0-0` cannot tell one byte from none.
        } else if upload.offset <= before {
            return Err(unreadable(repository, "it took a chunk and acknowledged none of it"));
        }
    }
    progress.at(upload.offset);
    let joint = if upload.path.contains('?') { '&' } else { '?' };
    let path = format!("{}{joint}digest={}", upload.path, blob.digest);
    let request = repository.request(Method::PUT, &path).header("content-length", "0").timeout(CHUNK_LIMIT);
    upload.sure = false;
    repository.send(request).await?;
    Ok(blob.bytes)
}

async fn is_there(repository: &Client, app: &AppName, blob: &Blob) -> Result<bool, ClientError> {
    let request = repository.request(Method::HEAD, &format!("/v2/{app}/blobs/{}", blob.digest)).timeout(ANSWER_LIMIT);
    match repository.send(request).await {
        Ok(_) => Ok(true),
        Err(ClientError::Refused(problem)) if problem.status == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

impl Upload {
    /// Takes over how far the repository says it is, and where to go on.
    fn taken(&mut self, repository: &Client, response: &Response) -> Result<(), ClientError> {
        let range = response.headers().get("range").and_then(|value| value.to_str().ok());
        self.offset =
            acknowledged(range).ok_or_else(|| unreadable(repository, "an upload's Range is missing or wrong"))?;
        if response.headers().contains_key("location") {
            self.path = location(repository, response)?;
        }
        self.sure = true;
        Ok(())
    }
}

/// `0-N`: N + 1 bytes are there. `0-0` is what registries say of an upload without any.
fn acknowledged(range: Option<&str>) -> Option<u64> {
    let last: u64 = range?.trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

/// Path and query of `Location`; its host is ignored: the token goes to the repository alone.
fn location(repository: &Client, response: &Response) -> Result<String, ClientError> {
    let text = response.headers().get("location").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let path = match text.split_once("://") {
        Some((_, rest)) => rest.find('/').map(|slash| &rest[slash..]),
        None => text.starts_with('/').then_some(text),
    };
    path.map(str::to_owned).ok_or_else(|| unreadable(repository, "an upload has no Location"))
}

fn unreadable(repository: &Client, reason: &str) -> ClientError {
    ClientError::Unreadable { url: repository.base().to_owned(), reason: reason.to_owned() }
}

fn worth_another_try(error: &ClientError, began: bool) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused(problem) => match problem.status {
            404 | 416 => began,
            status => matches!(status, 408 | 429 | 500 | 502..=504),
        },
        ClientError::Unreadable { .. } => false,
    }
}

fn given_up(error: ClientError, app: &AppName, blob: &Blob, offset: u64) -> Failure {
    let unreachable = matches!(error, ClientError::Unreachable { .. });
    let failure = Failure::from(error);
    if !unreachable {
        return failure;
    }
    let message = format!("the upload for {app} broke off at {offset} of {} bytes: {}", blob.bytes, failure.message);
    Failure { message, ..failure }.hint("try", "the same command again: what arrived whole is not sent twice")
}

#[cfg(test)]
mod tests {
    use super::acknowledged;

    #[test]
    fn how_far_the_repository_is() {
        for (range, offset) in [
            (Some("0-8388607"), Some(8_388_608)),
            (Some("bytes=0-9"), Some(10)),
            (Some("0-0"), Some(0)),
            (Some("5-9"), None),
            (Some(""), None),
            (None, None),
        ] {
            assert_eq!(acknowledged(range), offset, "{range:?}");
        }
    }
}
