//! Guards: what a route asks of a request before its app gets it.

use std::sync::Arc;

use appbase_core::Prefix;
use appbase_core::v1::{Cors, Guard, Rate, RateOf};
use axum::http::{Method, StatusCode};
use lb::Config;

use crate::app::App;
use crate::client::{Answer, Client, raw, request};
use crate::stage::{Active, Stage, config, section};

async fn guarded(guard: Guard, config: Config) -> (Stage, Arc<App>) {
    let stage = Stage::start_as(config).await;
    let app = stage.app("one").await;
    let mut table = section(&[(&app, Active)]);
    table.routes[0].guard = guard;
    stage.controller.publish(&[table]).await;
    stage.up("one").await;
    (stage, app)
}

fn said(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.code())
}

#[tokio::test]
async fn only_the_networks_of_a_route_reach_its_app() {
    let networks = [Prefix::parse("192.0.2.0/24").unwrap()].into();
    let proxies = vec![Prefix::parse("127.0.0.0/8").unwrap()];
    let (stage, app) = guarded(Guard { networks, ..Guard::default() }, Config { proxies, ..config() }).await;
    let asks = async |from: &str| {
        let head = format!("PROXY TCP4 {from} 10.0.0.1 5 80\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        raw(stage.lb.http, head.as_bytes()).await
    };
    assert!(asks("192.0.2.7").await.starts_with("HTTP/1.1 200 "));
    let refused = asks("198.51.100.1").await;
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("X-Platform-Error: not-allowed\r\n"), "{refused}");
    assert_eq!(app.hits(), 1);
}

#[tokio::test]
async fn bodies_have_their_largest_sizes() {
    let guard = Guard { request_bytes_max: Some(10_000), response_bytes_max: Some(5_000), ..Guard::default() };
    let (stage, app) = guarded(guard, config()).await;
    for is_http2 in [false, true] {
        let mut client = match is_http2 {
            true => Client::connect_http2(stage.lb.http, &stage.tasks).await.unwrap(),
            false => stage.client().await,
        };
        let post = |bytes: usize| request(Method::POST, "/echo", &"x".repeat(bytes));
        assert_eq!(client.send(post(5_000)).await.unwrap().body.len(), 5_000);
        assert_eq!(said(&client.send(post(10_001)).await.unwrap()), (413, "body-too-large"));
        assert_eq!(said(&client.send(post(5_001)).await.unwrap()), (502, "answer-too-large"));
        assert_eq!(said(&client.get("/").await.unwrap()), (200, ""), "it goes on");
    }
    // Without a length it shows when it comes.
    let chunk = format!("1770\r\n{}\r\n", "x".repeat(6_000));
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let refused = raw(stage.lb.http, format!("{head}{chunk}{chunk}0\r\n\r\n").as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    assert!(app.hits() >= 4);
}

#[tokio::test]
async fn more_than_a_route_takes_is_told_when_to_come_again() {
    let rate = Rate { requests: 1, seconds: 3_600, burst: Some(3), of: RateOf::Client };
    let (stage, app) = guarded(Guard { rate: Some(rate), ..Guard::default() }, config()).await;
    let mut got = Vec::new();
    for _ in 0..5 {
        // Each on a connection of its own: they are spread over the data threads.
        let answer = stage.client().await.get("/").await.unwrap();
        let after = answer.headers.get("retry-after").map(|after| after.to_str().unwrap().parse::<u32>().unwrap());
        got.push((answer.status, after.is_some_and(|after| (3_590..=3_600).contains(&after))));
    }
    let (ok, no) = ((StatusCode::OK, false), (StatusCode::TOO_MANY_REQUESTS, true));
    assert_eq!((got, app.hits()), (vec![ok, ok, ok, no, no], 3));
    // A swap forgets nobody.
    let mut table = section(&[(&app, Active)]);
    table.notice = Some("new".to_owned());
    table.routes[0].guard.rate = Some(Rate { requests: 1, seconds: 3_600, burst: Some(3), of: RateOf::Client });
    stage.controller.publish(&[table]).await;
    assert_eq!(said(&stage.client().await.get("/").await.unwrap()), (429, "rate-limited"));
}

#[tokio::test]
async fn pages_of_other_sites_ask_as_the_route_says() {
    let cors = Cors {
        origins: ["https://a.example".to_owned()].into(),
        methods: ["PUT".to_owned()].into(),
        seconds: 60,
        ..Cors::default()
    };
    let (stage, app) = guarded(Guard { cors: Some(cors), ..Guard::default() }, config()).await;
    let mut client = stage.client().await;
    let mut asks = request(Method::OPTIONS, "/", "");
    asks.headers_mut().insert("origin", "https://a.example".parse().unwrap());
    asks.headers_mut().insert("access-control-request-method", "PUT".parse().unwrap());
    let answer = client.send(asks).await.unwrap();
    assert_eq!((said(&answer), app.hits()), ((204, ""), 0));
    assert_eq!(answer.headers["access-control-allow-methods"], "GET, HEAD, POST, PUT");
    assert!(!answer.headers.contains_key("content-length") && !answer.headers.contains_key("content-type"));
    for (origin, granted) in [("https://a.example", Some("https://a.example")), ("https://b.example", None)] {
        let mut asks = request(Method::GET, "/", "");
        asks.headers_mut().insert("origin", origin.parse().unwrap());
        let answer = client.send(asks).await.unwrap();
        let allowed = answer.headers.get("access-control-allow-origin").map(|value| value.to_str().unwrap());
        assert_eq!((answer.body.as_str(), allowed), ("one", granted));
    }
    let answer = client.get("/").await.unwrap();
    assert_eq!(answer.headers["vary"], "Origin", "no cache gives this to a page of another site");
    let mut refused = request(Method::GET, "/a%2fb", "");
    refused.headers_mut().insert("origin", "https://a.example".parse().unwrap());
    assert_eq!(said(&client.send(refused).await.unwrap()), (400, "bad-path"));
    let metrics = stage.admin("/metrics").await.1;
    assert!(!metrics.contains("code=\"preflight\""), "nobody failed: {metrics}");
}
