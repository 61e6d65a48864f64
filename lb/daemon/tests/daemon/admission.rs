//! Admission: a route finds out who a request is from before its app gets it.

use std::sync::Arc;

use appbase_core::v1::{Basic, Guard};
use axum::body::Bytes;
use axum::http::{Method, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;

use crate::app::App;
use crate::client::{Answer, Client, raw, request};
use crate::stage::{Active, Stage, section};

fn users(password: &str) -> Guard {
    let hash = kit::password::hash_in(10_000, password.as_bytes());
    let basic = Basic { realm: "staff".to_owned(), users: [("ada".to_owned(), hash)].into() };
    Guard { basic: Some(basic), ..Guard::default() }
}

async fn guarded(guard: Guard) -> (Stage, Arc<App>) {
    let stage = Stage::start().await;
    let app = stage.app("one").await;
    publish(&stage, &app, guard).await;
    stage.up("one").await;
    (stage, app)
}

async fn publish(stage: &Stage, app: &Arc<App>, guard: Guard) {
    let mut table = section(&[(app, Active)]);
    table.routes[0].guard = guard;
    stage.controller.publish(&[table]).await;
}

fn authorization(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn signed(path: &str, user: &str, password: &str) -> Request<Full<Bytes>> {
    let mut request = request(Method::GET, path, "");
    request.headers_mut().insert("authorization", authorization(user, password).parse().unwrap());
    request
}

fn said(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.code())
}

#[tokio::test]
async fn only_who_knows_a_password_reaches_the_app() {
    let (stage, app) = guarded(users("open sesame")).await;
    for is_http2 in [false, true] {
        let mut client = match is_http2 {
            true => Client::connect_http2(stage.lb.http, &stage.tasks).await.unwrap(),
            false => stage.client().await,
        };
        let hits = app.hits();
        let refused = client.get("/").await.unwrap();
        assert_eq!(said(&refused), (401, "sign-in"));
        assert_eq!(refused.headers["www-authenticate"], "Basic realm=\"staff\", charset=\"UTF-8\"");
        for (user, password) in [("ada", "open"), ("eve", "open sesame")] {
            assert_eq!(said(&client.send(signed("/", user, password)).await.unwrap()), (401, "sign-in"));
        }
        assert_eq!(app.hits(), hits);
        for _ in 0..20 {
            let mut asks = signed("/headers", "ada", "open sesame");
            asks.headers_mut().insert("x-forwarded-user", "root".parse().unwrap());
            asks.headers_mut().insert("x_forwarded_user", "root".parse().unwrap());
            let seen = client.send(asks).await.unwrap().body;
            assert!(seen.contains("x-forwarded-user: ada\n") && !seen.contains("root"), "{seen}");
            assert!(!seen.contains("authorization"), "the app does not get the password: {seen}");
        }
    }
}

#[tokio::test]
async fn who_is_wrong_too_often_is_told_when_to_come_again() {
    let (stage, app) = guarded(users("right")).await;
    let mut client = stage.client().await;
    assert_eq!(said(&client.send(signed("/", "ada", "right")).await.unwrap()), (200, ""));
    let mut told = Vec::new();
    for _ in 0..11 {
        told.push(client.send(signed("/", "ada", "wrong")).await.unwrap().status.as_u16());
    }
    assert_eq!((told[..10].to_vec(), told[10]), (vec![401; 10], 429));
    let refused = client.send(signed("/", "ada", "wrong")).await.unwrap();
    assert_eq!(said(&refused), (429, "too-many-tries"));
    assert!(refused.headers.contains_key("retry-after"));
    // Whoever was known stays known, until the password is another one.
    assert_eq!(said(&client.send(signed("/", "ada", "right")).await.unwrap()), (200, ""));
    publish(&stage, &app, users("new")).await;
    assert_ne!(client.send(signed("/", "ada", "right")).await.unwrap().status, 200);
    assert_eq!(app.hits(), 2);
}

#[tokio::test]
async fn an_upgrade_is_no_way_around_the_password() {
    let stage = Stage::start().await;
    let app = App::websocket("echo", &stage.tasks).await;
    publish(&stage, &app, users("secret")).await;
    stage.up("echo").await;
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let refused = raw(stage.lb.http, format!("{upgrade}Connection: close\r\n\r\n").as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 401 ") && app.hits() == 0, "{refused}");
    let mut asks = tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(format!(
        "ws://{}/ws",
        stage.lb.http
    ))
    .unwrap();
    asks.headers_mut().insert("authorization", authorization("ada", "secret").parse().unwrap());
    let stream = tokio::net::TcpStream::connect(stage.lb.http).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(asks, stream).await.unwrap();
    socket.send("hello".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().to_text().unwrap(), "echo hello");
}

#[tokio::test]
async fn preflights_and_challenges_need_no_password() {
    let mut guard = users("secret");
    guard.cors =
        Some(appbase_core::v1::Cors { origins: ["https://a.example".to_owned()].into(), ..Default::default() });
    let (stage, app) = guarded(guard.clone()).await;
    let mut client = stage.client().await;
    let mut asks = request(Method::OPTIONS, "/", "");
    asks.headers_mut().insert("origin", "https://a.example".parse().unwrap());
    asks.headers_mut().insert("access-control-request-method", "GET".parse().unwrap());
    assert_eq!(client.send(asks).await.unwrap().status, 204);
    let mut other = request(Method::OPTIONS, "/", "");
    other.headers_mut().insert("origin", "https://b.example".parse().unwrap());
    other.headers_mut().insert("access-control-request-method", "GET".parse().unwrap());
    assert_eq!(client.send(other).await.unwrap().status, 401, "the app would have to answer");

    let mut table = section(&[(&app, Active)]);
    table.routes[0].guard = guard;
    table.tls.challenges.insert("token".to_owned(), "token.answer".to_owned());
    stage.controller.publish(&[table]).await;
    let answer = client.get("/.well-known/acme-challenge/token").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "token.answer"));
    assert_eq!(app.hits(), 0);
}
