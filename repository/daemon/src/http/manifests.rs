//! Manifests and tags over HTTP. Bytes go out exactly as they came in.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, body};
use repository_core::manifest::{MANIFEST_BYTES_MAX, ManifestError};
use repository_core::v1::TagList;
use repository_core::{Code, Manifest, Reference, Refusal, RepositoryName};

use super::blobs::CONTENT_DIGEST;
use super::respond::Failure;
use super::{App, Parameters};

/// Tags in one answer; who wants more follows the link.
const TAGS_MAX: usize = 1000;

pub(super) async fn read(
    app: &App,
    name: &RepositoryName,
    reference: &Reference,
    head_only: bool,
) -> Result<Response, Failure> {
    let found = app.store.manifest(name, reference).await?.ok_or_else(|| unknown(name, reference))?;
    let body = if head_only { Body::empty() } else { Body::from(app.store.read_small(found.digest).await?) };
    let headers = [
        (header::CONTENT_TYPE, found.media_type),
        (header::CONTENT_LENGTH, found.size.to_string()),
        (header::ETAG, format!("\"{}\"", found.digest)),
        (CONTENT_DIGEST, found.digest.to_string()),
    ];
    Ok((StatusCode::OK, headers, body).into_response())
}

pub(super) async fn store(
    app: &App,
    name: &RepositoryName,
    reference: Reference,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let declared = text(header::CONTENT_LENGTH).and_then(|text| text.parse::<usize>().ok());
    if declared.is_some_and(|bytes| bytes > MANIFEST_BYTES_MAX) {
        return Err(Refusal::from(ManifestError::TooLarge).into());
    }
    let bytes = body::to_bytes(body, MANIFEST_BYTES_MAX).await.map_err(|error| {
        let source = std::error::Error::source(&error);
        if source.is_some_and(|source| source.to_string().contains("length limit")) {
            return Refusal::from(ManifestError::TooLarge);
        }
        Refusal::new(Code::ManifestInvalid, "body-cut", format!("the body broke off: {error}"))
    })?;
    let manifest = Manifest::parse(text(header::CONTENT_TYPE), &bytes).map_err(Refusal::from)?;
    let location = format!("/v2/{name}/manifests/{reference}");
    let digest = app.store.put_manifest(name, reference, manifest, bytes.into()).await?;
    let headers = [(header::LOCATION, location), (CONTENT_DIGEST, digest.to_string())];
    Ok((StatusCode::CREATED, headers).into_response())
}

pub(super) async fn tags(app: &App, name: &RepositoryName, parameters: &Parameters) -> Result<Response, Failure> {
    let wanted = match &parameters.n {
        None => TAGS_MAX,
        Some(text) => text.parse::<usize>().map(|n| n.min(TAGS_MAX)).map_err(|_| {
            Refusal::new(Code::Unsupported, "query-invalid", "\"n\" is not a number of tags").status(400)
        })?,
    };
    let last = parameters.last.clone().unwrap_or_default();
    let page = app.store.tags(name, last, wanted).await?.ok_or_else(|| {
        Refusal::new(Code::NameUnknown, "repository-unknown", format!("nothing was ever pushed to \"{name}\""))
    })?;
    // Tags hold nothing that a URL would need escaped.
    let link = page.tags.last().filter(|_| page.more);
    let link =
        link.map(|last| [(header::LINK, format!("</v2/{name}/tags/list?n={wanted}&last={last}>; rel=\"next\""))]);
    let list = Json(TagList { name: name.to_string(), tags: page.tags });
    Ok(match link {
        Some(link) => (link, list).into_response(),
        None => list.into_response(),
    })
}

fn unknown(name: &RepositoryName, reference: &Reference) -> Refusal {
    Refusal::new(Code::ManifestUnknown, "manifest-unknown", format!("\"{name}\" has no manifest {reference}"))
}
