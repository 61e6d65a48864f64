//! Uploads over HTTP: what the head of a request says, and where the upload is afterwards.

use appbase_core::Digest;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use repository_core::{Code, Refusal, RepositoryName, UploadId, route, upload};

use super::blobs::CONTENT_DIGEST;
use super::respond::Failure;
use super::{App, Parameters};
use crate::store::{Incoming, StoreError, is_out_of_order};

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// `POST`: a mount, a whole blob at once, or the beginning of an upload.
pub(super) async fn begin(
    app: &App,
    name: &RepositoryName,
    parameters: &Parameters,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    if let (Some(digest), Some(from)) = (&parameters.mount, &parameters.from) {
        let (digest, from) = (route::digest(digest)?, RepositoryName::parse(from).map_err(Refusal::from)?);
        if app.store.mount_blob(name, &from, digest).await? {
            return Ok(created(name, digest));
        }
    }
    let digest = parameters.digest.as_deref().map(route::digest).transpose()?;
    let id = app.store.begin_upload(name).await?;
    let Some(digest) = digest else { return Ok(accepted(name, &id, 0)) };
    let stored = app.store.receive_last(name, &id, incoming(headers, body), digest).await;
    if stored.is_err() {
        // Nobody knows its id, so nobody could resume it.
        let _ = app.store.cancel_upload(name, &id).await;
    }
    stored?;
    Ok(created(name, digest))
}

pub(super) fn status(app: &App, name: &RepositoryName, id: &UploadId) -> Result<Response, Failure> {
    let offset = app.store.upload_offset(name, id)?;
    Ok((StatusCode::NO_CONTENT, place(name, id, offset)).into_response())
}

pub(super) async fn chunk(
    app: &App,
    name: &RepositoryName,
    id: &UploadId,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let received = app.store.receive_chunk(name, id, incoming(headers, body)).await;
    let offset = received.map_err(|error| with_place(app, name, id, error))?;
    Ok(accepted(name, id, offset))
}

pub(super) async fn finish(
    app: &App,
    name: &RepositoryName,
    id: &UploadId,
    parameters: &Parameters,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let text = parameters.digest.as_deref().ok_or_else(|| {
        Refusal::new(Code::DigestInvalid, "digest-missing", "the last request of an upload needs \"?digest=…\"")
    })?;
    let digest = route::digest(text)?;
    let stored = app.store.receive_last(name, id, incoming(headers, body), digest).await;
    stored.map_err(|error| with_place(app, name, id, error))?;
    Ok(created(name, digest))
}

pub(super) async fn cancel(app: &App, name: &RepositoryName, id: &UploadId) -> Result<Response, Failure> {
    app.store.cancel_upload(name, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn incoming(headers: &HeaderMap, body: Body) -> Incoming {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    Incoming {
        content_range: text(header::CONTENT_RANGE).map(str::to_owned),
        content_length: text(header::CONTENT_LENGTH).and_then(|text| text.parse().ok()),
        body: body.into_data_stream(),
    }
}

/// A chunk at the wrong place is told the right one.
fn with_place(app: &App, name: &RepositoryName, id: &UploadId, error: StoreError) -> Failure {
    let offset = is_out_of_order(&error).then(|| app.store.upload_offset(name, id).ok()).flatten();
    let mut failure = Failure::from(error);
    for (header, value) in offset.into_iter().flat_map(|offset| place(name, id, offset)) {
        failure = failure.header(header, &value);
    }
    failure
}

fn accepted(name: &RepositoryName, id: &UploadId, offset: u64) -> Response {
    (StatusCode::ACCEPTED, place(name, id, offset)).into_response()
}

fn place(name: &RepositoryName, id: &UploadId, offset: u64) -> [(HeaderName, String); 3] {
    [
        (header::LOCATION, format!("/v2/{name}/blobs/uploads/{id}")),
        (header::RANGE, upload::range(offset)),
        (UPLOAD_ID, id.to_string()),
    ]
}

fn created(name: &RepositoryName, digest: Digest) -> Response {
    let headers = [(header::LOCATION, format!("/v2/{name}/blobs/{digest}")), (CONTENT_DIGEST, digest.to_string())];
    (StatusCode::CREATED, headers).into_response()
}
