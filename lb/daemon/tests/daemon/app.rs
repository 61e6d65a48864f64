//! Apps behind the load balancer: real HTTP servers on this machine that count what reaches them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::{SinkExt, StreamExt};
use kit::{Shutdown, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct App {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// What its probe answers.
    pub(crate) healthy: AtomicBool,
    pub(crate) probes: AtomicU64,
    /// Requests other than probes.
    pub(crate) hits: AtomicU64,
    /// Before `/` answers, in milliseconds.
    pub(crate) delay_ms: AtomicU64,
    /// What `/` answers instead of 200, and its `Retry-After`.
    pub(crate) fails_with: Mutex<Option<(u16, Option<String>)>>,
    /// How often each `x-test-id` was carried out.
    pub(crate) executed: Mutex<BTreeMap<String, u32>>,
}

impl App {
    pub(crate) async fn start(name: &'static str, tasks: &Tasks, shutdown: &Shutdown) -> Arc<Self> {
        Self::start_at("127.0.0.1:0", name, tasks, shutdown).await
    }

    pub(crate) async fn start_at(address: &str, name: &'static str, tasks: &Tasks, shutdown: &Shutdown) -> Arc<Self> {
        let listener = kit::serve::bind(address.parse().unwrap()).await.unwrap();
        let app = Arc::new(Self::new(name, listener.local_addr().unwrap()));
        let router = Router::new()
            .route("/health", get(health))
            .route("/", get(hello))
            .route("/echo", post(echo))
            .route("/slow", get(slow).post(slow))
            .route("/chunks", get(chunks))
            .route("/events", get(events))
            .route("/headers", get(headers))
            .fallback(hello)
            .with_state(Arc::clone(&app));
        kit::serve::http(tasks, "app", listener, router, shutdown).unwrap();
        app
    }

    fn new(name: &'static str, address: SocketAddr) -> Self {
        Self {
            name,
            address,
            healthy: AtomicBool::new(true),
            probes: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            delay_ms: AtomicU64::new(0),
            fails_with: Mutex::default(),
            executed: Mutex::default(),
        }
    }

    /// An app that speaks WebSocket on every path but `/health`: says back what it is told, after its name.
    pub(crate) async fn websocket(name: &'static str, tasks: &Tasks) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = Arc::new(Self::new(name, listener.local_addr().unwrap()));
        let (serving, inner) = (Arc::clone(&app), tasks.clone());
        tasks.spawn("websocket-app", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let app = Arc::clone(&serving);
                inner.spawn("websocket", async move { talk(&app, stream).await });
            }
        });
        app
    }

    /// A server that answers probes, and closes every other connection as soon as a request came.
    pub(crate) async fn broken(tasks: &Tasks) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = Arc::new(Self::new("broken", listener.local_addr().unwrap()));
        let serving = Arc::clone(&app);
        tasks.spawn("broken-app", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut start = [0; 16];
                while stream.peek(&mut start).await.is_ok_and(|read| read > 0 && read < 16) {
                    tokio::task::yield_now().await;
                }
                if start.starts_with(b"GET /health") {
                    answer_probe(&mut stream).await;
                } else {
                    serving.hits.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        app
    }

    /// A server that answers probes, and breaks every other answer off in its body.
    pub(crate) async fn breaking_off(tasks: &Tasks) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = Arc::new(Self::new("breaking", listener.local_addr().unwrap()));
        tasks.spawn("breaking-app", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = [0; 4096];
                let read = stream.read(&mut bytes).await.unwrap_or(0);
                let length = if bytes[..read].starts_with(b"GET /health") { 2 } else { 9 };
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\nok");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        app
    }

    /// A server that answers the first request of each connection, and closes instead of answering the second: what an
    /// app does whose keep-alive ended at that moment.
    pub(crate) async fn once(tasks: &Tasks) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = Arc::new(Self::new("once", listener.local_addr().unwrap()));
        let (serving, inner) = (Arc::clone(&app), tasks.clone());
        tasks.spawn("once-app", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let app = Arc::clone(&serving);
                inner.spawn("once", async move {
                    let mut bytes = [0; 4096];
                    let read = stream.read(&mut bytes).await.unwrap_or(0);
                    if !bytes[..read].starts_with(b"GET /health") {
                        app.hits.fetch_add(1, Ordering::SeqCst);
                    }
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nonce").await;
                    let _ = stream.read(&mut bytes).await;
                });
            }
        });
        app
    }

    /// A server that takes connections and answers each request of HTTP/2 as the health service of gRPC does: `status`
    /// (1 is serving), or nothing but `grpc-status` 5 when it is asked for another service than `shop`.
    pub(crate) async fn grpc(status: Arc<AtomicU64>, tasks: &Tasks) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = Arc::new(Self::new("grpc", listener.local_addr().unwrap()));
        let inner = tasks.clone();
        tasks.spawn("grpc-app", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let status = Arc::clone(&status);
                inner.spawn("grpc", async move {
                    let answer =
                        hyper::service::service_fn(move |request| health_of_grpc(request, Arc::clone(&status)));
                    let server = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
                    let _ = server.serve_connection(hyper_util::rt::TokioIo::new(stream), answer).await;
                });
            }
        });
        app
    }

    pub(crate) fn hits(&self) -> u64 {
        self.hits.load(Ordering::SeqCst)
    }

    fn hit(&self, headers: &HeaderMap) {
        self.hits.fetch_add(1, Ordering::SeqCst);
        if let Some(id) = headers.get("x-test-id").and_then(|id| id.to_str().ok()) {
            *self.executed.lock().unwrap().entry(id.to_owned()).or_default() += 1;
        }
    }
}

async fn health_of_grpc(
    request: axum::http::Request<hyper::body::Incoming>,
    status: Arc<AtomicU64>,
) -> Result<axum::http::Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    use http_body_util::{BodyExt, Full};
    let is_health = request.uri().path() == "/grpc.health.v1.Health/Check";
    assert!(
        is_health && request.headers()["content-type"] == "application/grpc" && request.headers()["te"] == "trailers"
    );
    let asked = request.into_body().collect().await.unwrap().to_bytes();
    let is_known = asked.is_empty() || asked.len() == 5 || asked.ends_with(b"\x0a\x04shop");
    let message = if is_known { vec![0, 0, 0, 0, 2, 8, status.load(Ordering::SeqCst) as u8] } else { Vec::new() };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", if is_known { "0" } else { "5" }.parse().unwrap());
    let body = Full::from(message).with_trailers(std::future::ready(Some(Ok(trailers)))).boxed_unsync();
    Ok(axum::http::Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

async fn answer_probe(stream: &mut TcpStream) {
    let mut head = [0; 1024];
    let _ = stream.try_read(&mut head);
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    let _ = stream.shutdown().await;
}

async fn talk(app: &App, mut stream: TcpStream) {
    let mut start = [0; 11];
    while stream.peek(&mut start).await.is_ok_and(|read| read > 0 && read < 11) {
        tokio::task::yield_now().await;
    }
    if &start == b"GET /health" {
        return answer_probe(&mut stream).await;
    }
    app.hits.fetch_add(1, Ordering::SeqCst);
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if let Ok(text) = message.to_text()
            && message.is_text()
            && socket.send(format!("{} {text}", app.name).into()).await.is_err()
        {
            return;
        }
    }
}

async fn health(State(app): State<Arc<App>>) -> Response {
    app.probes.fetch_add(1, Ordering::SeqCst);
    match app.healthy.load(Ordering::SeqCst) {
        true => "ok".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "database is away".repeat(100)).into_response(),
    }
}

async fn hello(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    app.hit(&headers);
    tokio::time::sleep(Duration::from_millis(app.delay_ms.load(Ordering::SeqCst))).await;
    let failure = app.fails_with.lock().unwrap().clone();
    match failure {
        None => app.name.into_response(),
        Some((status, None)) => (StatusCode::from_u16(status).unwrap(), app.name).into_response(),
        Some((status, Some(after))) => {
            (StatusCode::from_u16(status).unwrap(), [(header::RETRY_AFTER, after)], app.name).into_response()
        }
    }
}

async fn echo(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Bytes {
    app.hit(&headers);
    body
}

async fn slow(
    State(app): State<Arc<App>>,
    Query(query): Query<BTreeMap<String, u64>>,
    headers: HeaderMap,
) -> &'static str {
    app.hit(&headers);
    tokio::time::sleep(Duration::from_millis(query["ms"])).await;
    app.name
}

/// An answer of unknown length.
async fn chunks(State(app): State<Arc<App>>, headers: HeaderMap) -> Body {
    app.hit(&headers);
    Body::from_stream(futures_util::stream::iter((0..3).map(|part| Ok::<_, Infallible>(format!("part {part}\n")))))
}

/// Events for ever, one each 20 ms.
async fn events(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    app.hit(&headers);
    let events = futures_util::stream::unfold(0, |number| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok::<_, Infallible>(format!("data: {number}\n\n")), number + 1))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

/// Says which request head reached it.
async fn headers(State(app): State<Arc<App>>, request: Request) -> String {
    app.hit(request.headers());
    request.headers().iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect()
}
