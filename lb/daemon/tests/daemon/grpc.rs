//! Apps that speak HTTP/2 alone: gRPC end to end, with its trailers, and what becomes of it when instances come and go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use appbase_core::ProcessName;
use appbase_core::v1::Protocol;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use kit::Tasks;
use lb::{Config, Limits};
use lb_core::v1::{InstanceState, RouteSection};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::client::{Client, request};
use crate::stage::{Active, Draining, Stage, config, section_of};

/// A server of HTTP/2 without TLS. `/echo` sends each piece back as it comes, then trailers; `/none` is an answer of
/// trailers alone; other paths say the name.
pub(crate) struct Server {
    name: &'static str,
    address: SocketAddr,
    connections: AtomicU64,
    hits: AtomicU64,
    /// Streams are refused, unprocessed.
    refuses: AtomicBool,
    /// Streams that a connection takes at once; 0: any number.
    streams_max: AtomicU64,
    /// Each raise has every connection told to go.
    goaways: watch::Sender<u64>,
    /// The last head.
    saw: std::sync::Mutex<HeaderMap>,
}

impl Server {
    pub(crate) async fn start(name: &'static str, tasks: &Tasks) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self {
            name,
            address: listener.local_addr().unwrap(),
            connections: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            refuses: AtomicBool::new(false),
            streams_max: AtomicU64::new(0),
            goaways: watch::Sender::new(0),
            saw: std::sync::Mutex::default(),
        });
        let (serving, inner) = (Arc::clone(&server), tasks.clone());
        tasks.spawn("server", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, streams) = (Arc::clone(&serving), inner.clone());
                inner.spawn("connection", async move { server.connection(stream, streams).await });
            }
        });
        server
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, tasks: Tasks) {
        let mut settings = h2::server::Builder::new();
        if let most @ 1.. = self.streams_max.load(Ordering::SeqCst) {
            settings.max_concurrent_streams(most as u32);
        }
        let Ok(mut connection) = settings.handshake(stream).await else { return };
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut goaways = self.goaways.subscribe();
        loop {
            tokio::select! {
                accepted = connection.accept() => {
                    let Some(Ok((request, respond))) = accepted else { return };
                    let server = Arc::clone(&self);
                    tasks.spawn("stream", async move { drop(server.answer(request, respond).await) });
                }
                _ = goaways.changed() => connection.graceful_shutdown(),
            }
        }
    }

    async fn answer(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
        if request.uri().path() == "/health" {
            return respond.send_response(Response::new(()), true).map(drop);
        }
        if self.refuses.load(Ordering::SeqCst) {
            respond.send_reset(Reason::REFUSED_STREAM);
            return Ok(());
        }
        self.hits.fetch_add(1, Ordering::SeqCst);
        *self.saw.lock().unwrap() = request.headers().clone();
        let grpc = || Response::builder().header("content-type", "application/grpc");
        match request.uri().path() {
            "/none" => respond.send_response(grpc().header("grpc-status", "5").body(()).unwrap(), true).map(drop),
            "/echo" => {
                let mut stream = respond.send_response(grpc().body(()).unwrap(), false)?;
                let mut body = request.into_body();
                while let Some(piece) = body.data().await {
                    let piece = piece?;
                    body.flow_control().release_capacity(piece.len())?;
                    // The client's last frame has nothing in it. Sent back each time, it would be one of the few such that a
                    // connection may carry in its life.
                    if !piece.is_empty() {
                        stream.send_data(piece, false)?;
                    }
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                trailers.insert("x-forwarded-for", "a lie".parse().unwrap());
                stream.send_trailers(trailers)
            }
            _ => {
                let mut stream = respond.send_response(Response::new(()), false)?;
                stream.send_data(Bytes::from(self.name), true)
            }
        }
    }
}

pub(crate) fn section(servers: &[(&Arc<Server>, InstanceState)]) -> RouteSection {
    let named: Vec<_> = servers.iter().map(|(server, state)| (server.name, server.address, *state)).collect();
    let mut section = section_of(&named);
    for pool in section.pools.values_mut() {
        pool.protocols.insert(ProcessName::default_name(), Protocol::H2c);
    }
    section
}

async fn with_servers<const N: usize>(names: [&'static str; N]) -> (Stage, [Arc<Server>; N]) {
    let stage = Stage::start().await;
    let mut servers = Vec::new();
    for name in names {
        servers.push(Server::start(name, &stage.tasks).await);
    }
    let Ok(servers) = <[Arc<Server>; N]>::try_from(servers) else { panic!("as many as names") };
    stage.controller.publish(&[section(&servers.each_ref().map(|server| (server, Active)))]).await;
    for server in &servers {
        stage.up(server.name).await;
    }
    (stage, servers)
}

pub(crate) async fn channel(address: SocketAddr, tasks: &Tasks) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tasks.spawn("client", async move { drop(connection.await) });
    send
}

/// Says `count` things one after the other, each when the last one came back. The trailers.
pub(crate) async fn talk(channel: &SendRequest<Bytes>, count: usize) -> Result<HeaderMap, h2::Error> {
    let request = Request::post("http://shop.example/echo").header("te", "trailers").body(()).unwrap();
    let (answer, mut stream) = channel.clone().ready().await?.send_request(request, false)?;
    stream.send_data(Bytes::from("0"), false)?;
    let mut body = answer.await?.into_body();
    for number in 0..count {
        assert_eq!(body.data().await.expect("an echo")?, number.to_string());
        body.flow_control().release_capacity(1)?;
        if number + 1 < count {
            stream.send_data(Bytes::from((number + 1).to_string()), false)?;
        }
    }
    stream.send_data(Bytes::new(), true)?;
    let more = body.data().await.transpose()?;
    assert_eq!(more, None);
    Ok(body.trailers().await?.unwrap_or_default())
}

#[tokio::test]
async fn streams_go_both_ways_and_end_with_trailers() {
    let (stage, [server]) = with_servers(["one"]).await;
    let channel = channel(stage.lb.http, &stage.tasks).await;
    let trailers = talk(&channel, 10).await.unwrap();
    assert_eq!(
        (&trailers["grpc-status"], trailers.len()),
        (&"0".parse().unwrap(), 1),
        "what lb says in heads is no trailer"
    );
    let saw = server.saw.lock().unwrap().clone();
    assert_eq!(
        (&saw["te"], &saw["x-forwarded-host"]),
        (&"trailers".parse().unwrap(), &"shop.example".parse().unwrap())
    );

    let none = Request::post("http://shop.example/none").body(()).unwrap();
    let answer = channel.clone().send_request(none, true).unwrap().0.await.unwrap();
    assert_eq!((&answer.headers()["grpc-status"], answer.body().is_end_stream()), (&"5".parse().unwrap(), true));
}

#[tokio::test]
async fn clients_of_http_1_reach_it_as_well() {
    let (stage, _servers) = with_servers(["one"]).await;
    let mut client = stage.client().await;
    assert_eq!(client.get("/").await.unwrap().body, "one");
    let mut post = request(Method::POST, "/echo", &"x".repeat(300_000));
    post.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let echo = client.send(post).await.unwrap();
    assert_eq!((echo.status, echo.body.len()), (StatusCode::OK, 300_000));
    assert!(!echo.headers.contains_key("grpc-status"));
}

#[tokio::test]
async fn more_requests_than_a_connection_carries_get_another_one() {
    let (stage, [server]) = with_servers(["one"]).await;
    let before = server.connections.load(Ordering::SeqCst);
    let mut open = Vec::new();
    for _ in 0..3 {
        // Of one data thread at least two, however the kernel spreads these.
        let mut channel = channel(stage.lb.http, &stage.tasks).await;
        for _ in 0..90 {
            channel = channel.ready().await.unwrap();
            let request = Request::post("http://shop.example/echo").body(()).unwrap();
            let (answer, mut stream) = channel.send_request(request, false).unwrap();
            stream.send_data(Bytes::from("x"), false).unwrap();
            open.push((answer.await.unwrap().into_body(), stream));
        }
    }
    for (body, stream) in &mut open {
        assert_eq!(body.data().await.unwrap().unwrap(), "x");
        stream.send_data(Bytes::new(), true).unwrap();
    }
    let probes = server.connections.load(Ordering::SeqCst) - before;
    assert!(probes >= 3, "{probes}");
}

#[tokio::test]
async fn what_an_instance_did_not_process_goes_to_another() {
    let (stage, [one, two]) = with_servers(["one", "two"]).await;
    one.refuses.store(true, Ordering::SeqCst);
    let mut client = Client::connect_http2(stage.lb.http, &stage.tasks).await.unwrap();
    for _ in 0..8 {
        let answer = client.send(request(Method::POST, "/", "x")).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "two"));
    }
    assert_eq!((one.hits.load(Ordering::SeqCst), two.hits.load(Ordering::SeqCst)), (0, 8));
}

#[tokio::test]
async fn an_instance_may_close_its_connections_in_good_order() {
    let (stage, [server]) = with_servers(["one"]).await;
    let channel = channel(stage.lb.http, &stage.tasks).await;
    for round in 0..30 {
        let talking = async { talk(&channel, 20).await.unwrap() };
        let going = async { server.goaways.send_modify(|count| *count += 1) };
        let (trailers, ()) = tokio::join!(talking, going);
        assert_eq!(trailers["grpc-status"], "0", "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_flips_lose_no_stream() {
    let (stage, [blue, green]) = with_servers(["blue", "green"]).await;
    let tables = [section(&[(&blue, Active), (&green, Draining)]), section(&[(&blue, Draining), (&green, Active)])];
    let (stop, said) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let talkers: Vec<_> = (0..8)
        .map(|_| {
            let (stop, said) = (Arc::clone(&stop), Arc::clone(&said));
            let (address, tasks) = (stage.lb.http, stage.tasks.clone());
            stage.tasks.spawn("talk", async move {
                let channel = channel(address, &tasks).await;
                while !stop.load(Ordering::SeqCst) {
                    let trailers = talk(&channel, 50).await.expect("no stream is lost");
                    assert_eq!(trailers["grpc-status"], "0");
                    said.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut flip = 0;
    while flip < 200 || (said.load(Ordering::SeqCst) < 100 && flip < 20_000) {
        flip += 1;
        stage.controller.publish(&[tables[flip % 2].clone()]).await;
    }
    stop.store(true, Ordering::SeqCst);
    for talker in talkers {
        talker.await.unwrap().expect("no panic");
    }
    assert!(said.load(Ordering::SeqCst) >= 100, "{flip} flips");
    assert!(blue.hits.load(Ordering::SeqCst) > 0 && green.hits.load(Ordering::SeqCst) > 0);
    stage.controller.publish(&[tables[0].clone()]).await;
    tokio::time::timeout(
        Duration::from_secs(5),
        stage.controller.until_instance("green", "drained", |one| one.drained),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn what_http_2_cannot_say_is_the_clients_mistake() {
    let (stage, [server]) = with_servers(["one"]).await;
    let mut client = stage.client().await;
    for _ in 0..8 {
        let asks = "GET /?a=\"b\" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answer = crate::client::raw(stage.lb.http, asks.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("bad-path"), "{answer}");
    }
    assert_eq!(client.get("/").await.unwrap().body, "one", "nobody is left out for it");
    assert_eq!(server.hits.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_instance_that_takes_few_at_once_gets_more_connections() {
    let (stage, [server]) = with_servers(["one"]).await;
    server.streams_max.store(3, Ordering::SeqCst);
    let channel = channel(stage.lb.http, &stage.tasks).await;
    // The first tells lb how many it takes.
    talk(&channel, 1).await.unwrap();
    let talks = (0..20).map(|_| talk(&channel, 5));
    for trailers in futures_util::future::join_all(talks).await {
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
    }
}

#[tokio::test]
async fn a_post_that_met_a_closing_connection_is_sent_again() {
    let (stage, [server]) = with_servers(["one"]).await;
    let mut client = Client::connect_http2(stage.lb.http, &stage.tasks).await.unwrap();
    for round in 0..40 {
        let asking = client.send(request(Method::POST, "/", "x"));
        let going = async { server.goaways.send_modify(|count| *count += 1) };
        let (answer, ()) = tokio::join!(asking, going);
        assert_eq!(answer.unwrap().body, "one", "round {round}");
    }
    assert_eq!(server.hits.load(Ordering::SeqCst), 40, "each once");
}

#[tokio::test]
async fn a_call_may_be_silent_for_long() {
    let limits =
        Limits { silence: Duration::from_millis(200), pace_window: Duration::from_millis(100), ..Limits::default() };
    let stage = Stage::start_as(Config { limits, ..config() }).await;
    let server = Server::start("one", &stage.tasks).await;
    stage.controller.publish(&[section(&[(&server, Active)])]).await;
    stage.up("one").await;
    let channel = channel(stage.lb.http, &stage.tasks).await;
    let request =
        Request::post("http://shop.example/echo").header("content-type", "application/grpc").body(()).unwrap();
    let (answer, mut stream) = channel.clone().ready().await.unwrap().send_request(request, false).unwrap();
    for word in ["a", "b", "c"] {
        stream.send_data(Bytes::from(word), false).unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    stream.send_data(Bytes::new(), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let mut said = Vec::new();
    while let Some(piece) = body.data().await {
        said.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(said, b"abc");
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_call_that_a_drain_ends_may_be_made_again() {
    let (stage, [old, new]) = with_servers(["old", "new"]).await;
    stage.controller.publish(&[section(&[(&old, Active), (&new, Draining)])]).await;
    let channel = channel(stage.lb.http, &stage.tasks).await;
    let request =
        Request::post("http://shop.example/echo").header("content-type", "application/grpc").body(()).unwrap();
    let (answer, mut stream) = channel.clone().ready().await.unwrap().send_request(request, false).unwrap();
    stream.send_data(Bytes::from("a"), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "a");
    let mut table = section(&[(&old, Draining), (&new, Active)]);
    (table.drain.requests_ms, table.drain.streams_ms) = (0, 150);
    stage.controller.publish(&[table]).await;
    assert!(body.data().await.is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "14", "unavailable: try again");
    let metrics = stage.admin("/metrics").await.1;
    assert!(
        !metrics.lines().any(|line| line.starts_with("platform_lb_failed_total") && !line.ends_with(" 0")),
        "{metrics}"
    );
}
