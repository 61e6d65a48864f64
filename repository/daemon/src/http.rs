//! HTTP: reads the request, asks [`authorize`] once, hands over to the part that answers.

mod authorize;
mod blobs;
mod linger;
mod manifests;
mod respond;
mod tutorial;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use repository_core::{Code, Refusal, Route};
use serde::Deserialize;

use crate::store::Store;
pub(crate) use authorize::Authority;
use authorize::authorize;
use respond::Failure;

/// What every handler has.
#[derive(Clone)]
pub(crate) struct App {
    store: Arc<Store>,
    authority: Arc<Authority>,
}

pub(crate) fn router(store: Arc<Store>, authority: Authority) -> Router {
    let app = App { store, authority: Arc::new(authority) };
    Router::new()
        .route("/config/{app}/{file}", get(tutorial::config))
        .route("/files/{app}/{file}", get(tutorial::files))
        .fallback(registry)
        .layer(middleware::from_fn_with_state(app.clone(), linger::answered))
        .with_state(app)
}

/// Everything that a query may say; each route looks at what is its own.
#[derive(Debug, Default, Deserialize)]
struct Parameters {
    digest: Option<String>,
    mount: Option<String>,
    from: Option<String>,
    n: Option<String>,
    last: Option<String>,
}

async fn registry(State(app): State<App>, request: Request) -> Response {
    answer(&app, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(app: &App, request: Request) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let route = Route::parse(head.uri.path())?;
    authorize(&app.authority, &app.store, &route, &head.method, &head.headers).await?;
    let Query(parameters) = Query::<Parameters>::try_from_uri(&head.uri).map_err(|error| {
        Refusal::new(Code::Unsupported, "query-invalid", format!("query is not readable: {error}")).status(400)
    })?;
    let (method, headers) = (&head.method, &head.headers);
    match (&route, method) {
        (Route::Base, &Method::GET | &Method::HEAD) => Ok(base()),
        (Route::Blob(name, digest), &Method::GET | &Method::HEAD) => {
            blobs::read(app, name, *digest, headers, method == Method::HEAD).await
        }
        (Route::Uploads(name), &Method::POST) => uploads::begin(app, name, &parameters, headers, body).await,
        (Route::Upload(name, id), &Method::GET | &Method::HEAD) => uploads::status(app, name, id),
        (Route::Upload(name, id), &Method::PATCH) => uploads::chunk(app, name, id, headers, body).await,
        (Route::Upload(name, id), &Method::PUT) => uploads::finish(app, name, id, &parameters, headers, body).await,
        (Route::Upload(name, id), &Method::DELETE) => uploads::cancel(app, name, id).await,
        (Route::Manifest(name, reference), &Method::GET | &Method::HEAD) => {
            manifests::read(app, name, reference, method == Method::HEAD).await
        }
        (Route::Manifest(name, reference), &Method::PUT) => {
            manifests::store(app, name, reference.clone(), headers, body).await
        }
        (Route::Tags(name), &Method::GET) => manifests::tags(app, name, &parameters).await,
        (Route::Referrers(..), &Method::GET) => {
            Err(Refusal::new(Code::Unsupported, "referrers-unsupported", "referrers are not kept here")
                .status(404)
                .into())
        }
        (Route::Blob(..) | Route::Manifest(..), &Method::DELETE) => {
            Err(Refusal::new(Code::Unsupported, "delete-unsupported", "nothing is deleted here by hand").into())
        }
        _ => {
            Err(Refusal::new(Code::Unsupported, "method-unsupported", format!("{method} is not possible here")).into())
        }
    }
}

fn base() -> Response {
    let headers =
        [(header::CONTENT_TYPE.as_str(), "application/json"), ("docker-distribution-api-version", "registry/2.0")];
    (StatusCode::OK, headers, Body::from("{}")).into_response()
}
