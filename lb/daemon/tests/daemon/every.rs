//! The promise, over everything that lb speaks at once: tables flip, and nothing is lost or done twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use appbase_core::v1::Route;
use appbase_core::{AppName, ProcessName};
use axum::http::{Method, StatusCode};
use futures_util::{SinkExt, StreamExt};
use kit::{Shutdown, Tasks};
use lb::Config;
use lb_core::v1::RouteSection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::app::App;
use crate::client::{Client, request};
use crate::grpc::{self, Server};
use crate::stage::{Active, Draining, Stage, config, section};
use crate::tls::{Authority, shake};

const HOSTS: [&str; 3] = ["web.example", "socket.example", "shop.example"];

/// What the clients share.
pub(crate) struct World {
    http: SocketAddr,
    https: SocketAddr,
    authority: Arc<Authority>,
    tasks: Tasks,
    stop: AtomicBool,
    /// Connections are told to go while nothing is wrong.
    is_renewed: bool,
    posted: AtomicU64,
    /// By kind, in the order of [`KINDS`].
    done: [AtomicU64; KINDS.len()],
}

const KINDS: [&str; 8] = [
    "keep-alive",
    "new connections over TLS",
    "posts",
    "HTTP/2 over TLS",
    "uploads",
    "downloads",
    "WebSockets",
    "gRPC",
];

impl World {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    async fn secure(&self, protocol: &str) -> Result<Client, String> {
        let stream = shake(self.authority.client(&[protocol], None), self.https, HOSTS[0]).await?;
        Client::over(stream, protocol == "h2", &self.tasks).await
    }

    /// The connection that a kind keeps. One that has none to keep holds one in HTTP/2, which is told when to go.
    async fn client(&self, kind: usize) -> Client {
        match kind {
            0 | 2 => Client::connect(self.http, &self.tasks).await.unwrap(),
            _ => self.secure("h2").await.unwrap(),
        }
    }

    fn post(&self) -> axum::http::Request<http_body_util::Full<axum::body::Bytes>> {
        let number = self.posted.fetch_add(1, Ordering::SeqCst);
        let mut post = request(Method::POST, "/echo", &"b".repeat(number as usize % 3000));
        post.headers_mut().insert("host", HOSTS[0].parse().unwrap());
        post.headers_mut().insert("x-test-id", number.into());
        post
    }

    /// One client of a kind, until told to stop.
    async fn load(self: Arc<Self>, kind: usize) {
        let ask = || {
            let mut ask = request(Method::GET, "/", "");
            ask.headers_mut().insert("host", HOSTS[0].parse().unwrap());
            ask
        };
        let mut client = self.client(kind).await;
        let mut channel = grpc::channel(self.http, &self.tasks).await;
        while self.goes_on() {
            if self.is_renewed && client.is_told_to_go() {
                client = self.client(kind).await;
            }
            let done = match kind {
                0 => answered(client.send(ask()).await),
                1 => match self.secure("http/1.1").await {
                    Ok(mut client) => answered(client.send(ask()).await),
                    Err(error) => Err(error),
                },
                2 => answered(client.send(self.post()).await),
                3 => answered(client.send(ask()).await).and(answered(client.send(self.post()).await)),
                4 => upload(self.http).await,
                5 => download(self.http).await,
                6 => talk(self.http).await,
                _ => grpc::talk(&channel, 30).await.map(drop).map_err(|error| error.to_string()),
            };
            // What was not begun when its connection was told to go is begun on another one.
            let is_http2 = [3, 7].contains(&kind);
            if self.is_renewed && is_http2 && done.as_ref().is_err_and(|error| was_not_begun(error)) {
                client = self.client(kind).await;
                channel = grpc::channel(self.http, &self.tasks).await;
                continue;
            }
            done.unwrap_or_else(|error| panic!("{}: {error}", KINDS[kind]));
            self.done[kind].fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// What a client of HTTP/2 says of a request that it did not send, since its connection was told to go, or gone by then.
fn was_not_begun(error: &str) -> bool {
    let unsent = ["not ready: channel closed", "operation was canceled: connection closed"];
    unsent.contains(&error) || error.contains("not a result of an error")
}

fn answered(answer: Result<crate::client::Answer, String>) -> Result<(), String> {
    match answer? {
        answer if answer.status == StatusCode::OK => Ok(()),
        answer => Err(format!("{answer:?}")),
    }
}

/// A body in pieces, each a while after the one before.
async fn upload(lb: SocketAddr) -> Result<(), String> {
    let said = async {
        let mut stream = TcpStream::connect(lb).await?;
        let head = format!(
            "POST /echo HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
            HOSTS[0]
        );
        stream.write_all(head.as_bytes()).await?;
        for _ in 0..5 {
            stream.write_all(format!("3e8\r\n{}\r\n", "x".repeat(1000)).as_bytes()).await?;
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        stream.write_all(b"0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    let answer = said.await.map_err(|error: std::io::Error| error.to_string())?;
    let is_whole = answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&"x".repeat(5_000));
    is_whole.then_some(()).ok_or(answer)
}

/// An answer that is read slowly.
async fn download(lb: SocketAddr) -> Result<(), String> {
    let said = async {
        let mut stream = TcpStream::connect(lb).await?;
        let head =
            format!("POST /echo HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 400000\r\n\r\n", HOSTS[0]);
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&vec![b'y'; 400_000]).await?;
        let (mut answer, mut piece) = (0, vec![0; 40_000]);
        loop {
            let read = stream.read(&mut piece).await?;
            if read == 0 {
                return Ok(answer);
            }
            answer += read;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let read = said.await.map_err(|error: std::io::Error| error.to_string())?;
    if read > 400_000 { Ok(()) } else { Err(format!("{read} bytes")) }
}

/// A conversation of some words. One that is asked to go elsewhere (1001) goes.
async fn talk(lb: SocketAddr) -> Result<(), String> {
    let stream = TcpStream::connect(lb).await.map_err(|error| error.to_string())?;
    let url = format!("ws://{}/", HOSTS[1]);
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.map_err(|error| error.to_string())?;
    for _ in 0..20 {
        socket.send("hello".into()).await.map_err(|error| error.to_string())?;
        match socket.next().await {
            Some(Ok(Message::Text(_))) => {}
            Some(Ok(Message::Close(Some(frame)))) if frame.code == CloseCode::Away => return Ok(()),
            other => return Err(format!("{other:?}")),
        }
    }
    socket.close(None).await.map_err(|error| error.to_string())
}

/// Blue and green of one app.
fn placed(number: usize, mut section: RouteSection, authority: &Authority) -> RouteSection {
    section.app = AppName::parse(HOSTS[number].split('.').next().unwrap()).unwrap();
    section.routes = vec![Route::new(Some(HOSTS[number].to_owned()), "/", ProcessName::default_name())];
    section.tls.certificates = vec![authority.certificate(&[HOSTS[number]])];
    // Nobody is to be cut here, however slow the machine is.
    (section.drain.requests_ms, section.drain.streams_ms) = (60_000, 60_000);
    section
}

/// Three apps, blue and green of each.
pub(crate) struct Apps {
    authority: Arc<Authority>,
    web: [Arc<App>; 2],
    /// With blue active, and with green.
    pub(crate) tables: [[RouteSection; 3]; 2],
}

impl Apps {
    pub(crate) const INSTANCES: [&str; 6] =
        ["web-blue", "web-green", "socket-blue", "socket-green", "shop-blue", "shop-green"];

    pub(crate) async fn start(tasks: &Tasks, shutdown: &Shutdown) -> Self {
        let authority = Arc::new(Authority::new());
        let web = [App::start("web-blue", tasks, shutdown).await, App::start("web-green", tasks, shutdown).await];
        let socket = [App::websocket("socket-blue", tasks).await, App::websocket("socket-green", tasks).await];
        let shop = [Server::start("shop-blue", tasks).await, Server::start("shop-green", tasks).await];
        let tables = [[Active, Draining], [Draining, Active]].map(|[blue, green]| {
            [
                placed(0, section(&[(&web[0], blue), (&web[1], green)]), &authority),
                placed(1, section(&[(&socket[0], blue), (&socket[1], green)]), &authority),
                placed(2, grpc::section(&[(&shop[0], blue), (&shop[1], green)]), &authority),
            ]
        });
        Self { authority, web, tables }
    }

    /// How often each POST was carried out.
    pub(crate) fn executed(&self) -> BTreeMap<String, u32> {
        let mut executed = self.web[0].executed.lock().unwrap().clone();
        for (id, times) in self.web[1].executed.lock().unwrap().iter() {
            *executed.entry(id.clone()).or_default() += times;
        }
        executed
    }
}

/// Clients of every kind, two of each.
pub(crate) struct Load {
    world: Arc<World>,
    clients: Vec<tokio::task::JoinHandle<Option<()>>>,
}

impl Load {
    pub(crate) fn start(apps: &Apps, at: (SocketAddr, SocketAddr), is_renewed: bool, tasks: &Tasks) -> Self {
        let (http, https) = at;
        let world = Arc::new(World {
            http,
            https,
            authority: Arc::clone(&apps.authority),
            tasks: tasks.clone(),
            stop: AtomicBool::new(false),
            is_renewed,
            posted: AtomicU64::new(0),
            done: Default::default(),
        });
        let clients = (0..2 * KINDS.len())
            .map(|client| tasks.spawn("load", Arc::clone(&world).load(client % KINDS.len())))
            .collect();
        Self { world, clients }
    }

    /// Of each kind.
    fn least_done(&self) -> u64 {
        self.world.done.iter().map(|done| done.load(Ordering::SeqCst)).min().unwrap_or(0)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.clients.iter().any(tokio::task::JoinHandle::is_finished)
    }

    /// Until every kind did so much more.
    pub(crate) async fn goes_on(&self, more: u64) {
        let before: Vec<_> = self.world.done.iter().map(|done| done.load(Ordering::SeqCst)).collect();
        let has_done = || {
            let now = self.world.done.iter().map(|done| done.load(Ordering::SeqCst));
            now.zip(&before).all(|(now, before)| now >= before + more)
        };
        let waiting = async {
            while !has_done() && !self.has_failed() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("more of every kind in time");
        assert!(!self.has_failed(), "a client failed: see above");
    }

    /// How many POSTs were made.
    pub(crate) async fn end(self) -> u64 {
        self.world.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap().expect("no client failed");
        }
        self.world.posted.load(Ordering::SeqCst)
    }
}

async fn flips(count: usize) {
    let stage = Stage::start_as(Config { https: Some("127.0.0.1:0".parse().unwrap()), ..config() }).await;
    let apps = Apps::start(&stage.tasks, &stage.shutdown).await;
    stage.controller.publish(&apps.tables[0]).await;
    for name in Apps::INSTANCES {
        stage.up(name).await;
    }
    let load = Load::start(&apps, (stage.lb.http, stage.lb.https.unwrap()), false, &stage.tasks);
    let mut flip = 0;
    while (flip < count || load.least_done() < 10) && !load.has_failed() {
        flip += 1;
        stage.controller.publish(&apps.tables[flip % 2]).await;
    }
    let posted = load.end().await;
    let executed = apps.executed();
    assert_eq!(executed.len() as u64, posted);
    assert!(executed.values().all(|times| *times == 1), "a POST was carried out twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_flips_under_everything_lose_nothing() {
    flips(200).await;
}

/// `make soak` runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes"]
async fn ten_thousand_flips_under_everything_lose_nothing() {
    flips(10_000).await;
}
