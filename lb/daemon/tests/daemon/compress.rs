//! Compression: answers of a route that asks for it go out packed, and nothing is held back.

use std::convert::Infallible;
use std::io::Read;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full};
use tokio::sync::Notify;

use crate::client::{Client, request};
use crate::stage::{Active, Stage, section_of};

fn text() -> String {
    (0..4_000).map(|number| format!("line {number} of a long text\n")).collect()
}

async fn long() -> Response {
    ([(header::CONTENT_TYPE, "text/plain"), (header::ETAG, "\"v1\""), (header::ACCEPT_RANGES, "bytes")], text())
        .into_response()
}

/// Two lines; the second one when it is asked for.
fn lines(go_on: &Arc<Notify>, kind: &'static str) -> Response {
    let parts = futures_util::stream::unfold((0, Arc::clone(go_on)), |(number, go_on)| async move {
        match number {
            0 => {}
            1 => go_on.notified().await,
            _ => return None,
        }
        Some((Ok::<_, Infallible>(format!("{{\"number\":{number}}}\n")), (number + 1, go_on)))
    });
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(parts)).into_response()
}

async fn start(compress: bool) -> (Stage, Arc<Notify>) {
    let (stage, go_on) = (Stage::start().await, Arc::new(Notify::new()));
    let listener = kit::serve::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (slow, events) = (Arc::clone(&go_on), Arc::clone(&go_on));
    let router = Router::new()
        .route("/health", get(async || "ok"))
        .route("/long", get(long))
        .route("/lines", get(async move || lines(&slow, "application/x-ndjson")))
        .route("/events", get(async move || lines(&events, "text/event-stream")));
    kit::serve::http(&stage.tasks, "long-app", listener, router, &stage.shutdown).unwrap();
    let mut table = section_of(&[("long", address, Active)]);
    table.routes[0].compress = compress;
    stage.controller.publish(&[table]).await;
    stage.up("long").await;
    (stage, go_on)
}

fn asks(path: &str, accepts: Option<&str>) -> Request<Full<Bytes>> {
    let mut request = request(Method::GET, path, "");
    if let Some(accepts) = accepts {
        request.headers_mut().insert("accept-encoding", accepts.parse().unwrap());
    }
    request
}

async fn get_all(client: &mut Client, path: &str, accepts: Option<&str>) -> (HeaderMap, Vec<u8>) {
    let (head, body) = client.begin(asks(path, accepts)).await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    (head.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

fn unpacked(bytes: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn who_takes_it_gets_it_packed_and_others_as_it_was() {
    let (stage, _) = start(true).await;
    for is_http2 in [false, true] {
        let mut client = match is_http2 {
            true => Client::connect_http2(stage.lb.http, &stage.tasks).await.unwrap(),
            false => stage.client().await,
        };
        for _ in 0..2 {
            let (headers, body) = get_all(&mut client, "/long", Some("gzip, br")).await;
            assert!(headers["content-encoding"] == "gzip" && headers["vary"] == "Accept-Encoding");
            assert_eq!(headers["etag"], "W/\"v1\"");
            assert!(!headers.contains_key("content-length") && !headers.contains_key("accept-ranges"));
            assert!(body.len() < text().len() / 4 && unpacked(&body) == text());
            let (headers, body) = get_all(&mut client, "/long", Some("gzip;q=0")).await;
            assert!(headers["etag"] == "\"v1\"" && headers["vary"] == "Accept-Encoding");
            assert!(!headers.contains_key("content-encoding") && headers.contains_key("content-length"));
            assert!(body == text().as_bytes());
        }
    }
}

#[tokio::test]
async fn what_the_app_has_said_is_never_held_back() {
    let (stage, go_on) = start(true).await;
    let mut client = stage.client().await;
    let (head, mut body) = client.begin(asks("/lines", Some("gzip"))).await.unwrap().into_parts();
    assert_eq!(head.headers["content-encoding"], "gzip");
    let (mut came, first) = (Vec::new(), "{\"number\":0}\n");
    loop {
        came.extend(body.frame().await.unwrap().unwrap().into_data().unwrap());
        let mut text = vec![0; 64];
        let read = GzDecoder::new(&came[..]).read(&mut text).unwrap_or(0);
        if &text[..read] == first.as_bytes() {
            break;
        }
    }
    go_on.notify_one();
    came.extend(body.collect().await.unwrap().to_bytes());
    assert_eq!(unpacked(&came), format!("{first}{{\"number\":1}}\n"));
}

#[tokio::test]
async fn streams_of_events_and_routes_that_do_not_ask_stay_as_they_are() {
    let (stage, go_on) = start(true).await;
    let mut client = stage.client().await;
    go_on.notify_one();
    let (headers, body) = get_all(&mut client, "/events", Some("gzip")).await;
    assert!(!headers.contains_key("content-encoding") && body.starts_with(b"{\"number\":0}\n"));
    let (stage, _) = start(false).await;
    let (headers, body) = get_all(&mut stage.client().await, "/long", Some("gzip")).await;
    assert!(!headers.contains_key("content-encoding") && !headers.contains_key("vary"));
    assert_eq!((&headers["etag"], body == text().as_bytes()), (&"\"v1\"".parse().unwrap(), true));
}
