//! Long-lived streams: WebSocket and server-sent events.

use axum::http::Method;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use tokio_tungstenite::tungstenite::Message;

use crate::app::App;
use crate::client::request;
use crate::stage::{Active, Draining, Stage, section};

type Socket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

async fn open(stage: &Stage) -> Result<Socket, String> {
    let stream = tokio::net::TcpStream::connect(stage.lb.http).await.map_err(|error| error.to_string())?;
    let url = format!("ws://{}/socket", stage.lb.http);
    let (socket, _) = tokio_tungstenite::client_async(url, stream).await.map_err(|error| error.to_string())?;
    Ok(socket)
}

async fn say(socket: &mut Socket, text: &str) -> String {
    socket.send(text.into()).await.unwrap();
    socket.next().await.unwrap().unwrap().into_text().unwrap().to_string()
}

async fn stage() -> (Stage, std::sync::Arc<App>) {
    let stage = Stage::start().await;
    let app = App::websocket("socket", &stage.tasks).await;
    stage.controller.publish(&[section(&[(&app, Active)])]).await;
    stage.up("socket").await;
    (stage, app)
}

#[tokio::test]
async fn websockets_work_and_count_as_streams() {
    let (stage, _app) = stage().await;
    let mut socket = open(&stage).await.unwrap();
    assert_eq!(say(&mut socket, "hello").await, "socket hello");
    let large = "x".repeat(100_000);
    assert_eq!(say(&mut socket, &large).await, format!("socket {large}"));
    stage.controller.until_instance("socket", "a stream", |report| (report.streams, report.in_flight) == (1, 0)).await;
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    stage.controller.until_instance("socket", "no stream", |report| report.streams == 0).await;
}

#[tokio::test]
async fn no_upgrade_is_lost() {
    let (stage, _app) = stage().await;
    for round in 0..50 {
        let opened = (0..8).map(|_| async {
            let mut socket = open(&stage).await.unwrap();
            assert_eq!(say(&mut socket, "hello").await, "socket hello", "round {round}");
        });
        futures_util::future::join_all(opened).await;
    }
}

#[tokio::test]
async fn draining_says_goodbye_between_two_frames() {
    let (stage, app) = stage().await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        let mut socket = open(&stage).await.unwrap();
        assert_eq!(say(&mut socket, "hello").await, "socket hello");
        sockets.push(socket);
    }
    stage.controller.publish(&[section(&[(&app, Draining)])]).await;
    for mut socket in sockets {
        let goodbye = socket.next().await.unwrap().unwrap();
        let Message::Close(Some(frame)) = goodbye else { panic!("{goodbye:?}") };
        assert_eq!(u16::from(frame.code), 1001);
        while let Some(Ok(_)) = socket.next().await {}
    }
    let done = stage.controller.until_instance("socket", "drained", |report| report.drained).await;
    assert_eq!(done.cut, 0, "all went by themselves");
}

#[tokio::test]
async fn events_flow_and_are_cut_at_the_deadline_of_streams() {
    let (stage, app) = Stage::with_app("one").await;
    let mut client = stage.client().await;
    let answer = client.begin(request(Method::GET, "/events", "")).await.unwrap();
    let mut body = answer.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(&first[..], b"data: 0\n\n");
    stage.controller.until_instance("one", "a stream", |report| (report.streams, report.in_flight) == (1, 0)).await;
    let mut draining = section(&[(&app, Draining)]);
    (draining.drain.requests_ms, draining.drain.streams_ms) = (1, 200);
    stage.controller.publish(&[draining]).await;
    let mut frames = 0;
    while let Some(Ok(_)) = body.frame().await {
        frames += 1;
    }
    assert!(frames >= 3, "the limit of requests is not that of streams: {frames}");
    let done = stage.controller.until_instance("one", "drained", |report| report.drained).await;
    assert_eq!((done.streams, done.cut), (0, 1));
}
