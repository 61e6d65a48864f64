//! HTTP/2 from clients: what is asked, answered, taken back and held up on one connection, and what floods it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode};
use h2::client::SendRequest;
use http_body_util::BodyExt;
use lb::{Config, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, request};
use crate::stage::{Active, Draining, Stage, config, eventually, section};
use crate::tls::Secured;

impl Stage {
    async fn http2(&self) -> Client {
        Client::connect_http2(self.lb.http, &self.tasks).await.unwrap()
    }

    /// A client that shows single frames' worth of a stream.
    async fn frames(&self) -> SendRequest<Bytes> {
        let stream = TcpStream::connect(self.lb.http).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        self.tasks.spawn("client", async move { drop(connection.await) });
        send
    }
}

fn ask(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://hello.example{path}")).body(()).unwrap()
}

#[tokio::test]
async fn requests_share_a_connection_and_none_waits_for_another() {
    let (stage, app) = Stage::with_app("one").await;
    let mut client = stage.frames().await;
    let (slow, _) = client.send_request(ask(Method::GET, "/slow?ms=2000"), true).unwrap();
    let mut quick = Vec::new();
    for _ in 0..50 {
        client = client.ready().await.unwrap();
        quick.push(client.send_request(ask(Method::GET, "/"), true).unwrap().0);
    }
    for answer in quick {
        assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    }
    let slow = tokio::time::timeout(Duration::from_millis(10), slow).await;
    assert!(slow.is_err(), "the slow one is still under way");
    assert_eq!(app.hits(), 51);
    let metrics = stage.admin("/metrics").await.1;
    assert!(metrics.contains("platform_lb_connections_open 1\n"), "{metrics}");
}

#[tokio::test]
async fn an_app_sees_a_request_as_it_is_in_http_1() {
    let (stage, _app) = Stage::with_app("one").await;
    let mut client = stage.frames().await;
    let mut asks = ask(Method::GET, "/headers");
    for (name, value) in
        [("cookie", "a=1"), ("cookie", "b=2"), ("x-forwarded-for", "1.2.3.4"), ("te", "trailers"), ("x-own", "1")]
    {
        asks.headers_mut().append(name, value.parse().unwrap());
    }
    let (answer, _) = client.send_request(asks, true).unwrap();
    let answer = answer.await.unwrap();
    assert!(answer.headers().contains_key("x-request-id") && !answer.headers().contains_key("connection"));
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(chunk) = body.data().await {
        text.extend_from_slice(&chunk.unwrap());
    }
    let text = String::from_utf8(text).unwrap();
    for line in ["host: hello.example", "cookie: a=1; b=2", "x-forwarded-for: 127.0.0.1", "x-own: 1"] {
        assert_eq!(text.lines().filter(|one| *one == line).count(), 1, "{line} in {text}");
    }
    assert!(!text.contains("te: ") && !text.contains("transfer-encoding"), "{text}");
}

#[tokio::test]
async fn bodies_of_any_length_pass_and_answers_without_one_have_none() {
    let (stage, _app) = Stage::with_app("one").await;
    let mut client = stage.http2().await;
    for length in [0, 1, 70_000, 1_500_000] {
        let body = "x".repeat(length);
        let answer = client.send(request(Method::POST, "/echo", &body)).await.unwrap();
        assert!(answer.status == StatusCode::OK && answer.body == body, "{length}");
    }
    assert_eq!(client.get("/chunks").await.unwrap().body, "part 0\npart 1\npart 2\n");
    let head = client.send(request(Method::HEAD, "/", "")).await.unwrap();
    assert_eq!((head.headers["content-length"].to_str().unwrap(), head.body.as_str()), ("3", ""));

    // Piece by piece, without a length.
    let mut frames = stage.frames().await;
    let (answer, mut body) = frames.send_request(ask(Method::POST, "/echo"), false).unwrap();
    for piece in ["one ", "two ", "three"] {
        body.send_data(Bytes::from(piece), piece == "three").unwrap();
    }
    let mut answer = answer.await.unwrap().into_body();
    assert_eq!(answer.data().await.unwrap().unwrap(), "one two three");
}

#[tokio::test]
async fn what_cannot_be_routed_is_refused_and_the_connection_goes_on() {
    let (stage, app) = Stage::with_app("one").await;
    let mut client = stage.http2().await;
    let large = request(Method::GET, &format!("/{}", "x".repeat(20_000)), "");
    assert_eq!(client.send(large).await.unwrap().status, StatusCode::OK);
    let mut frames = stage.frames().await;
    let mut asks = ask(Method::GET, "/a%2fb");
    let refused = async |frames: &mut SendRequest<Bytes>, asks: Request<()>| {
        let answer = frames.send_request(asks, true).unwrap().0.await.unwrap();
        let code = answer.headers().get("x-platform-error").map(|code| code.to_str().unwrap().to_owned());
        (answer.status().as_u16(), code.unwrap_or_default())
    };
    assert_eq!(refused(&mut frames, asks).await, (400, "bad-path".to_owned()));
    asks = ask(Method::GET, "/");
    asks.headers_mut().insert("host", "other.example".parse().unwrap());
    assert_eq!(refused(&mut frames, asks).await, (400, "bad-framing".to_owned()), "two hosts");
    asks = ask(Method::GET, "/");
    for number in 0..110 {
        asks.headers_mut().append("x-many", number.into());
    }
    assert_eq!(refused(&mut frames, asks).await, (431, "head-too-large".to_owned()));
    let connect = Request::builder().method(Method::CONNECT).uri("hello.example:443").body(()).unwrap();
    assert_eq!(refused(&mut frames, connect).await, (405, "bad-method".to_owned()));
    assert_eq!(refused(&mut frames, ask(Method::GET, "/")).await, (200, String::new()));
    assert_eq!(app.hits(), 2);
}

#[tokio::test]
async fn who_takes_a_request_back_ends_it_at_the_app() {
    let (stage, app) = Stage::with_app("one").await;
    let mut client = stage.frames().await;
    let (answer, mut stream) = client.send_request(ask(Method::GET, "/slow?ms=60000"), true).unwrap();
    eventually("it is there", async || app.hits() == 1).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);
    stage.controller.until_instance("one", "nobody inside", |report| report.in_flight == 0).await;
    assert_eq!(client.send_request(ask(Method::GET, "/"), true).unwrap().0.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_nobody_up_for_ever() {
    let limits = Limits { silence: Duration::from_millis(300), ..Limits::default() };
    let stage = Stage::start_as(Config { limits, ..config() }).await;
    let app = stage.app("one").await;
    stage.controller.publish(&[section(&[(&app, Active)])]).await;
    stage.up("one").await;
    let mut client = stage.frames().await;
    let (answer, mut body) = client.send_request(ask(Method::POST, "/echo"), false).unwrap();
    body.send_data(Bytes::from(vec![b'x'; 60_000]), false).unwrap();
    body.send_data(Bytes::from(vec![b'x'; 60_000]), false).unwrap();
    body.send_data(Bytes::from(vec![b'x'; 60_000]), true).unwrap();
    // Its window is full with the first 64 KiB, and it gives no more.
    let answer = answer.await.unwrap().into_body();
    stage.controller.until_instance("one", "nobody inside", |report| report.in_flight == 0).await;
    drop(answer);
}

#[tokio::test]
async fn a_drain_ends_a_stream_at_its_deadline_and_the_connection_goes_on() {
    let stage = Stage::start().await;
    let (old, new) = (stage.app("old").await, stage.app("new").await);
    stage.controller.publish(&[section(&[(&old, Active), (&new, Active)])]).await;
    stage.up("old").await;
    stage.up("new").await;
    stage.controller.publish(&[section(&[(&old, Active), (&new, Draining)])]).await;
    let mut client = stage.http2().await;
    let mut stream = client.begin(request(Method::GET, "/events", "")).await.unwrap().into_body();
    assert!(stream.frame().await.unwrap().is_ok());
    let mut table = section(&[(&old, Draining), (&new, Active)]);
    table.drain.streams_ms = 100;
    stage.controller.publish(&[table]).await;
    let ended = tokio::time::timeout(Duration::from_secs(5), async {
        while let Some(frame) = stream.frame().await {
            if let Err(error) = frame {
                return error.to_string();
            }
        }
        "as if it were whole".to_owned()
    });
    assert_ne!(ended.await.unwrap(), "as if it were whole");
    assert_eq!(client.get("/").await.unwrap().body, "new");
    stage.controller.until_instance("old", "drained", |report| report.drained).await;
}

#[tokio::test]
async fn at_the_end_what_is_in_flight_is_answered_and_the_client_told_to_go() {
    let (stage, app) = Stage::with_app("one").await;
    let mut client = stage.frames().await;
    let (answer, _) = client.send_request(ask(Method::GET, "/slow?ms=300"), true).unwrap();
    eventually("it is there", async || app.hits() == 1).await;
    stage.shutdown.ask();
    assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    let error = client.ready().await.map(drop).expect_err("nothing more is taken");
    assert!(error.is_go_away() || error.is_io(), "{error:?}");
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let (stage, _app) = Stage::with_app("one").await;
    let stream = TcpStream::connect(stage.lb.http).await.unwrap();
    let (mut client, connection) =
        h2::client::Builder::new().max_concurrent_reset_streams(10_000).handshake::<_, Bytes>(stream).await.unwrap();
    let ended = stage.tasks.spawn("client", connection);
    for _ in 0..2_000 {
        let Ok(ready) = client.ready().await else { break };
        client = ready;
        let Ok((_, mut stream)) = client.send_request(ask(Method::GET, "/"), true) else { break };
        stream.send_reset(h2::Reason::CANCEL);
    }
    let error =
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap().unwrap().unwrap().expect_err("an end");
    // What it has not read of the client's frames when it closes may take the word for it with it.
    assert!(error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) || error.is_io(), "{error:?}");
    eventually("it is counted", async || {
        stage.admin("/metrics").await.1.contains("platform_lb_http2_errors_total 1\n")
    })
    .await;
}

#[tokio::test]
async fn who_takes_back_most_of_what_it_asks_loses_the_connection() {
    let (stage, app) = Stage::with_app("one").await;
    let mut client = stage.frames().await;
    for asked in 1..200 {
        let Ok((answer, mut stream)) = client.send_request(ask(Method::GET, "/slow?ms=60000"), true) else { break };
        let is_gone = async || client.clone().ready().await.is_err();
        eventually("it is there, or the connection gone", async || app.hits() >= asked || is_gone().await).await;
        stream.send_reset(h2::Reason::CANCEL);
        drop(answer);
        if is_gone().await {
            break;
        }
    }
    assert!((100..150).contains(&app.hits()), "{} were taken back", app.hits());
    assert_eq!(stage.http2().await.get("/").await.unwrap().status, StatusCode::OK, "others go on");
}

#[tokio::test]
async fn a_refused_head_to_head_has_no_body() {
    let (stage, _app) = Stage::with_app("one").await;
    let mut many = ask(Method::HEAD, "/");
    for number in 0..110 {
        many.headers_mut().append("x-many", number.into());
    }
    let answer = stage.frames().await.send_request(many, true).unwrap().0.await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.body().is_end_stream()), (431, true));
}

#[tokio::test]
async fn a_silent_connection_is_let_go() {
    let limits = Limits { idle: Duration::from_millis(200), head: Duration::from_millis(200), ..Limits::default() };
    let stage = Stage::start_as(Config { limits, ..config() }).await;
    for start in [&b"PRI * HTTP/2.0\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut stream = TcpStream::connect(stage.lb.http).await.unwrap();
        stream.write_all(start).await.unwrap();
        let mut got = Vec::new();
        let limit = Duration::from_secs(15);
        tokio::time::timeout(limit, stream.read_to_end(&mut got)).await.expect("let go").ok();
    }
}

#[tokio::test]
async fn http_2_is_chosen_in_the_handshake() {
    let secured = Secured::start().await;
    let mut client = secured.client("one.example", &["h2", "http/1.1"]).await;
    let mut asks = request(Method::GET, "/", "");
    asks.headers_mut().insert("host", "one.example".parse().unwrap());
    assert_eq!(client.send(asks).await.unwrap().body, "one");
    assert_eq!(secured.apps[0].hits.load(Ordering::SeqCst), 1);
}
