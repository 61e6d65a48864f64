//! Clients that hide nothing: one connection, no retries, each failure an error.

use std::net::SocketAddr;

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kit::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Client {
    sender: Sender,
    /// The last answer said that it was the last.
    was_last: bool,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.headers.get("x-platform-error").map_or("", |code| code.to_str().unwrap())
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, tasks: &Tasks) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
        Self::over(stream, false, tasks).await
    }

    /// In HTTP/2, without asking whether that is understood.
    pub(crate) async fn connect_http2(address: SocketAddr, tasks: &Tasks) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
        Self::over(stream, true, tasks).await
    }

    pub(crate) async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        is_http2: bool,
        tasks: &Tasks,
    ) -> Result<Self, String> {
        let failed = |error| format!("handshake: {error}");
        let io = TokioIo::new(stream);
        let sender = if is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
            tasks.spawn("client", async move { drop(connection.await) });
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(failed)?;
            tasks.spawn("client", async move { drop(connection.await) });
            Sender::Http1(sender)
        };
        Ok(Self { sender, was_last: false })
    }

    /// It was told to go: by the last answer, or as HTTP/2 does.
    pub(crate) fn is_told_to_go(&self) -> bool {
        self.was_last || matches!(&self.sender, Sender::Http2(sender) if sender.is_closed())
    }

    /// Sends and answers as soon as the head is there.
    pub(crate) async fn begin(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<axum::http::Response<Incoming>, String> {
        let says = |error: hyper::Error| kit::problem::chain(&error);
        let unready = |error| format!("not ready: {}", says(error));
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.map_err(unready)?;
                sender.send_request(request).await.map_err(says)
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(unready)?;
                sender.send_request(in_http2(request)).await.map_err(says)
            }
        }
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let (head, body) = self.begin(request).await?.into_parts();
        let body = body.collect().await.map_err(|error| format!("body: {}", kit::problem::chain(&error)))?;
        let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
        self.was_last = head.headers.get("connection").is_some_and(|connection| connection == "close");
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer, String> {
        self.send(request(Method::GET, path, "")).await
    }
}

pub(crate) fn request(method: Method, path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "hello.example")
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}

/// The host is a part of the target there.
fn in_http2(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    if let Some(host) = request.headers_mut().remove("host") {
        let target = format!("http://{}{}", host.to_str().unwrap(), request.uri());
        *request.uri_mut() = target.parse().unwrap();
    }
    request
}

/// Sends bytes as they are and reads until the other side closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}
