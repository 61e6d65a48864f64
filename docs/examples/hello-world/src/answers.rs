//! Answers: one request in, one response out.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::ACCEPT;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::counts::{Counts, KEY_BYTES_MAX};
use crate::switches::Switches;
use crate::websocket;

pub(crate) type Body = BoxBody<Bytes, Infallible>;

const EVENT_STREAM: &str = "text/event-stream";
/// No request takes longer than this, whatever it asks for.
const PAUSE_MAX: Duration = Duration::from_secs(600);
const LINES_MAX: u64 = 1_000_000;

#[derive(Debug)]
pub(crate) struct App {
    pub(crate) switches: Switches,
    pub(crate) counts: Counts,
    /// Cancelled once asked to stop; WebSockets say goodbye then.
    pub(crate) stopping: CancellationToken,
    /// What the end waits for: connections, and what outlives its request.
    pub(crate) tasks: TaskTracker,
}

pub(crate) async fn answer(app: Arc<App>, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    // Who answers before the body has come ends with a connection that must be closed, and whoever sends sees only that.
    while let Some(Ok(_)) = request.body_mut().frame().await {}
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let number = |name: &str, default: u64| parameter(&query, name).unwrap_or(default);
    let pause = |default: u64| Duration::from_millis(number("ms", default)).min(PAUSE_MAX);
    let switches = &app.switches;
    Ok(match (request.method(), path.as_str()) {
        (&Method::GET, "/" | "/greeting") if switches.status_500 => {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("hello-world {} fails on purpose\n", switches.version))
        }
        (&Method::GET, "/" | "/greeting") => text(StatusCode::OK, greeting(&app)),
        (&Method::GET, "/health") if switches.never_healthy => {
            text(StatusCode::SERVICE_UNAVAILABLE, "unhealthy on purpose\n".to_owned())
        }
        (&Method::GET, "/health") => text(StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET, "/instance") => document(
            StatusCode::OK,
            &json!({"version": switches.version, "instance": switches.instance, "pid": std::process::id()}),
        ),
        (&Method::GET, "/slow") => {
            tokio::time::sleep(pause(1000)).await;
            text(StatusCode::OK, greeting(&app))
        }
        (&Method::GET, "/stream") => {
            let events = request.headers().get(ACCEPT).is_some_and(|kind| kind == EVENT_STREAM);
            stream(number("n", 10).min(LINES_MAX), pause(100), switches.version.clone(), events)
        }
        (&Method::GET, "/ws") => websocket::accept(&app, &mut request),
        (&Method::GET, "/counts") => document(StatusCode::OK, &json!(app.counts.all())),
        (method, path) => match path.strip_prefix("/count/") {
            Some(key) => count(&app, method, key),
            None => text(StatusCode::NOT_FOUND, format!("nothing at {path}\n")),
        },
    })
}

fn greeting(app: &App) -> String {
    format!("{} from hello-world {}\n", app.switches.greeting, app.switches.version)
}

fn count(app: &App, method: &Method, key: &str) -> Response<Body> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return text(StatusCode::BAD_REQUEST, format!("a key has 1 to {KEY_BYTES_MAX} bytes\n"));
    }
    let count = match *method {
        Method::GET => Some(app.counts.get(key)),
        Method::POST => app.counts.increment(key),
        _ => return text(StatusCode::METHOD_NOT_ALLOWED, "GET or POST\n".to_owned()),
    };
    match count {
        Some(count) => document(StatusCode::OK, &json!({"key": key, "count": count})),
        None => text(StatusCode::INSUFFICIENT_STORAGE, "no room for another key\n".to_owned()),
    }
}

/// Chunked: each line leaves when it is made, so that a break in the middle shows. As events for who asks for such.
fn stream(lines: u64, pause: Duration, version: String, events: bool) -> Response<Body> {
    let (before, after) = if events { ("data: ", "\n\n") } else { ("", "\n") };
    let lines = futures_util::stream::iter(1..=lines).then(move |line| {
        let text = format!("{before}{line} hello from hello-world {version}{after}");
        async move {
            tokio::time::sleep(pause).await;
            Ok(Frame::data(Bytes::from(text)))
        }
    });
    let kind = if events { EVENT_STREAM } else { "text/plain; charset=utf-8" };
    with_type(StatusCode::OK, kind, BodyExt::boxed(StreamBody::new(lines)))
}

pub(crate) fn text(status: StatusCode, text: String) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", Full::from(text).boxed())
}

fn document(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    with_type(status, "application/json", Full::from(format!("{value}\n")).boxed())
}

fn with_type(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

fn parameter(query: &str, name: &str) -> Option<u64> {
    let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    pair.parse().ok()
}
