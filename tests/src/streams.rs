//! Streams: clients that hold a WebSocket and a long answer open, and tell how each of them ended.
//!
//! A stream cannot outlive what serves it. What can be asked is that it is ended in a way the client understands: a
//! WebSocket with code 1001, and a new one right away. An answer of HTTP/1.1 has no such way; its end is counted apart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Between two messages of a WebSocket, and between two lines of the long answer.
const PAUSE: Duration = Duration::from_millis(50);
/// An echo, a line or a new stream comes within this time.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();

/// Open streams, each opened anew when it has ended.
pub struct Streams {
    runtime: tokio::runtime::Runtime,
    shared: Arc<Counted>,
    clients: Vec<tokio::task::JoinHandle<Option<()>>>,
}

#[derive(Default)]
struct Counted {
    stop: AtomicBool,
    opened: AtomicU64,
    refused: AtomicU64,
    asked: AtomicU64,
    cut: AtomicU64,
    answers_ended: AtomicU64,
}

/// What became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamTally {
    pub opened: u64,
    /// Attempts to open one that failed.
    pub refused: u64,
    /// WebSockets that were asked to go with 1001.
    pub asked: u64,
    /// WebSockets that ended without a word.
    pub cut: u64,
    /// Long answers that ended before their last line.
    pub answers_ended: u64,
}

impl Streams {
    pub fn start(lb: SocketAddr, app: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let shared = Arc::new(Counted::default());
        let tasks = kit::Tasks::new();
        let guard = runtime.enter();
        let client = |websocket: bool| {
            let (shared, host) = (Arc::clone(&shared), format!("{app}.test"));
            tasks.spawn("stream", async move {
                while !shared.stop.load(Ordering::Relaxed) {
                    let opened = tokio::time::timeout(ANSWER_MAX, open(lb, &host, websocket)).await;
                    match opened.ok().and_then(Result::ok) {
                        None => {
                            shared.refused.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(PAUSE).await;
                        }
                        Some(stream) => {
                            shared.opened.fetch_add(1, Ordering::Relaxed);
                            let ended =
                                if websocket { echo(stream, &shared).await } else { lines(stream, &shared).await };
                            if let Some(counter) = ended {
                                counter.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                }
            })
        };
        let clients = vec![client(true), client(false)];
        drop(guard);
        Self { runtime, shared, clients }
    }

    pub fn stop(self) -> StreamTally {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.runtime.block_on(async {
            for client in self.clients {
                client.await.expect("a client does not panic");
            }
        });
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StreamTally {
            opened: count(&self.shared.opened),
            refused: count(&self.shared.refused),
            asked: count(&self.shared.asked),
            cut: count(&self.shared.cut),
            answers_ended: count(&self.shared.answers_ended),
        }
    }
}

/// A stream whose head was answered as it should be.
async fn open(lb: SocketAddr, host: &str, websocket: bool) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(lb).await?;
    let request = if websocket {
        format!(
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    } else {
        format!(
            "GET /stream?n=1000000&ms={} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n",
            PAUSE.as_millis()
        )
    };
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let wanted: &[u8] = if websocket { b"HTTP/1.1 101" } else { b"HTTP/1.1 200" };
    if head.starts_with(wanted) { Ok(stream) } else { Err(std::io::Error::other("another answer")) }
}

/// Sends and awaits until the other side ends it; what it counts as, unless this client ended it.
async fn echo(mut stream: TcpStream, shared: &Counted) -> Option<&AtomicU64> {
    // FIN, text, masked with zeros, two bytes.
    let message = [0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];
    while !shared.stop.load(Ordering::Relaxed) {
        if stream.write_all(&message).await.is_err() {
            return Some(&shared.cut);
        }
        match tokio::time::timeout(ANSWER_MAX, frame(&mut stream)).await {
            Ok(Ok((0x81, payload))) if payload == b"hi" => tokio::time::sleep(PAUSE).await,
            Ok(Ok((0x88, payload))) if payload.starts_with(&GOING_AWAY) => return Some(&shared.asked),
            _ => return Some(&shared.cut),
        }
    }
    None
}

/// A short frame of a server: its first byte and what it carries.
async fn frame(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let mut payload = vec![0; usize::from(stream.read_u8().await? & 0x7f)];
    stream.read_exact(&mut payload).await?;
    Ok((first, payload))
}

async fn lines(mut stream: TcpStream, shared: &Counted) -> Option<&AtomicU64> {
    let mut buffer = [0; 4096];
    while !shared.stop.load(Ordering::Relaxed) {
        match tokio::time::timeout(ANSWER_MAX, stream.read(&mut buffer)).await {
            Ok(Ok(read)) if read > 0 => {}
            _ => return Some(&shared.answers_ended),
        }
    }
    None
}
