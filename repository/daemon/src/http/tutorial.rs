//! The two paths of the tutorial: what an app's live release starts, and its files.
//!
//! `GET /config/<app>/<app>.config` is text that a shell sources; `GET /files/<app>/<app>.tgz` is the artifact. A
//! release of several layers has no single file: it is answered 409, because tars in a row would lose all but the
//! first one when unpacked. Both take `?environment=<name>`, default `production`.

use appbase_core::v1::{Release, media, unmet_needs};
use appbase_core::{AppName, Digest, EnvironmentName};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use repository_core::config_text::{main_process, render_config};
use repository_core::{Manifest, Reference, RepositoryName, Route, Tag};
use serde::Deserialize;

use kit::problem::Problem;

use super::authorize::authorize;
use super::respond::{problem, refusal_of};
use super::{App, blobs};
use crate::store::StoreError;

#[derive(Debug, Deserialize)]
pub(super) struct Which {
    environment: Option<String>,
}

/// Largest release document that is read here; they are a few KiB.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

pub(super) async fn config(
    State(app): State<App>,
    Path((name, file)): Path<(String, String)>,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let live = live(&app, &name, &file, "config", &which, &headers).await?;
    let config = live.manifest.config().filter(|config| config.size <= DOCUMENT_BYTES_MAX);
    let config = config.ok_or_else(|| unreadable(&live, "it has no document"))?;
    let bytes = app.store.read_small(config.digest).await.map_err(failed)?;
    let release: Release = serde_json::from_slice(&bytes).map_err(|error| unreadable(&live, &error.to_string()))?;
    let missing = unmet_needs(&release.needs);
    if !missing.is_empty() {
        return Err(unreadable(&live, &format!("it needs {}: upgrade the repository", missing.join(", "))));
    }
    let (_, spec) = main_process(&release).ok_or_else(|| unreadable(&live, "it has no process"))?;
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::ETAG, format!("\"{}\"", config.digest)),
    ];
    Ok((StatusCode::OK, headers, render_config(spec)).into_response())
}

pub(super) async fn files(
    State(app): State<App>,
    Path((name, file)): Path<(String, String)>,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let live = live(&app, &name, &file, "tgz", &which, &headers).await?;
    let [layer] = live.manifest.layers() else {
        return Err(no_single_file(&live, format!("it has {} layers", live.manifest.layers().len())));
    };
    if layer.media_type != media::LAYER {
        return Err(no_single_file(&live, format!("it is a \"{}\"", layer.media_type.escape_debug())));
    }
    let missing = || failed(StoreError::Damaged { digest: layer.digest });
    let blob = app.store.open_blob(&live.name, layer.digest).await.map_err(failed)?.ok_or_else(missing)?;
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    blobs::send(&app, blob, layer.digest, "application/gzip", range, false)
        .or_else(|failure| Ok(failure.into_response()))
}

struct Live {
    name: RepositoryName,
    digest: Digest,
    manifest: Manifest,
}

/// The live release of the app that a path names.
async fn live(
    app: &App,
    name: &str,
    file: &str,
    ending: &str,
    which: &Which,
    headers: &HeaderMap,
) -> Result<Live, Problem> {
    let wrong = |error: appbase_core::name::NameError| Problem::new(400, "name-invalid", error.to_string());
    let app_name = AppName::parse(name).map_err(wrong)?;
    let environment = which.environment.as_deref().map(EnvironmentName::parse).transpose().map_err(wrong)?;
    let environment = environment.unwrap_or_else(EnvironmentName::default_name);
    if file.strip_suffix(ending).and_then(|start| start.strip_suffix('.')) != Some(name) {
        return Err(Problem::new(404, "unknown-path", "there is no such file")
            .hint(format!("the file of this app is \"{app_name}.{ending}\"")));
    }
    let name = RepositoryName::of_app(&app_name);
    let reference = Reference::Tag(Tag::of_live(&environment));
    let route = Route::Manifest(name.clone(), reference.clone());
    let allowed = authorize(&app.authority, &app.store, &route, &Method::GET, headers).await;
    allowed.map_err(|refusal| problem(&refusal))?;
    let found = app.store.manifest(&name, &reference).await.map_err(failed)?;
    let found = found.ok_or_else(|| {
        Problem::new(404, "nothing-live", format!("no release of \"{app_name}\" is live in {environment}"))
            .hint(format!("push a version, then say \"platformctl deploy {app_name} VERSION\""))
    })?;
    let bytes = app.store.read_small(found.digest).await.map_err(failed)?;
    let manifest = Manifest::parse(Some(&found.media_type), &bytes);
    let live = manifest.map(|manifest| Live { name, digest: found.digest, manifest });
    let live = live.map_err(|error| Problem::new(500, "release-unreadable", error.to_string()))?;
    if live.manifest.artifact_type.as_deref() != Some(media::RELEASE) {
        return Err(unreadable(&live, "it is not a release of the platform"));
    }
    Ok(live)
}

fn failed(error: StoreError) -> Problem {
    problem(&refusal_of(error))
}

fn unreadable(live: &Live, reason: &str) -> Problem {
    Problem::new(409, "release-unreadable", format!("the live release of \"{}\" cannot be read", live.name))
        .detail(format!("{}: {reason}", live.digest))
        .hint("deploy a version again")
}

fn no_single_file(live: &Live, reason: String) -> Problem {
    Problem::new(409, "no-single-file", format!("the live release of \"{}\" is not one archive", live.name))
        .detail(reason)
        .hint(format!("fetch its parts: GET /v2/{}/manifests/{}", live.name, live.digest))
}
