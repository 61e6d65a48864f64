//! Reading blobs, whole or in part. What is sent is streamed, never held.

use std::io::{Seek, SeekFrom};
use std::sync::atomic::Ordering::Relaxed;

use appbase_core::Digest;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use repository_core::range::Part;
use repository_core::{Code, Refusal, RepositoryName};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::App;
use super::respond::Failure;
use crate::store::{OpenBlob, StoreError};

/// Read from disk at a time, per download.
const READ_BYTES: usize = 128 << 10;
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// A blob is what its digest says, for ever.
const FOR_EVER: &str = "private, max-age=31536000, immutable";

pub(super) async fn read(
    app: &App,
    name: &RepositoryName,
    digest: Digest,
    headers: &HeaderMap,
    head_only: bool,
) -> Result<Response, Failure> {
    let blob = match app.store.open_blob(name, digest).await {
        // Who asks whether it is there is about to send it, which mends it.
        Err(StoreError::Damaged { .. }) if head_only => None,
        other => other?,
    };
    let blob = blob.ok_or_else(|| unknown(name, digest))?;
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    send(app, blob, digest, "application/octet-stream", range, head_only)
}

/// The answer that holds a blob, or the part of it that was asked for.
pub(super) fn send(
    app: &App,
    blob: OpenBlob,
    digest: Digest,
    content_type: &'static str,
    range: Option<&str>,
    head_only: bool,
) -> Result<Response, Failure> {
    let OpenBlob { mut file, size } = blob;
    let (status, first, length) = match Part::of(range, size) {
        Part::Whole => (StatusCode::OK, 0, size),
        Part::Bytes { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Part::Outside => {
            let message = format!("the range is outside of the {size} bytes of {digest}");
            let refusal = Refusal::new(Code::SizeInvalid, "range-outside", message).status(416);
            return Err(Failure::from(refusal).header(header::CONTENT_RANGE, &format!("bytes */{size}")));
        }
    };
    let body = if head_only {
        Body::empty()
    } else {
        file.seek(SeekFrom::Start(first)).map_err(|source| StoreError::Io {
            doing: "read",
            path: digest.to_string().into(),
            source,
        })?;
        app.store.counters().sent_bytes.fetch_add(length, Relaxed);
        let part = tokio::fs::File::from_std(file).take(length);
        Body::from_stream(ReaderStream::with_capacity(part, READ_BYTES))
    };
    let mut response = (
        status,
        [
            (header::CONTENT_TYPE, content_type.to_owned()),
            (header::CONTENT_LENGTH, length.to_string()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::ETAG, format!("\"{digest}\"")),
            (CONTENT_DIGEST, digest.to_string()),
        ],
        body,
    )
        .into_response();
    let headers = response.headers_mut();
    if content_type == "application/octet-stream" {
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static(FOR_EVER));
    }
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {first}-{}/{size}", first + length - 1);
        headers.extend(header::HeaderValue::from_str(&text).map(|value| (header::CONTENT_RANGE, value)));
    }
    Ok(response)
}

pub(super) fn unknown(name: &RepositoryName, digest: Digest) -> Refusal {
    Refusal::new(Code::BlobUnknown, "blob-unknown", format!("\"{name}\" has no blob {digest}"))
}
