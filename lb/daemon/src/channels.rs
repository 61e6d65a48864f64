//! Channels: connections to instances that speak HTTP/2. Each carries many requests at once; each data thread has its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::http2::upstream::Upstream;

/// Requests that one connection carries at once, when the instance does not say less; for more there is another one.
const STREAMS_MAX: usize = 100;
/// Nobody asked on it for so long: it is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(1);
/// What an instance may send before the client has taken it: of one answer, and of all.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// Room for all of them: whoever takes nothing is in nobody else's way.
const CONNECTION_WINDOW_BYTES: u32 = STREAMS_MAX as u32 * STREAM_WINDOW_BYTES;
/// Small pieces cost more than what is in them: so much of that may wait.
const OVERHEAD_BYTES_MAX: usize = 4 * CONNECTION_WINDOW_BYTES as usize;
/// What waits for an instance's window, of one request.
const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
const HEADERS_BYTES_MAX: u32 = 32 << 10;

/// Lives as long as one request on a connection.
pub(crate) struct Streams {
    is_retired: Arc<AtomicBool>,
}

impl Streams {
    /// Nothing else goes on this connection.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
    }
}

struct Channel {
    sender: SendRequest<Bytes>,
    is_retired: Arc<AtomicBool>,
    /// Those under way.
    streams: Vec<Weak<Streams>>,
    used: Instant,
}

impl Channel {
    fn under_way(&mut self) -> usize {
        self.streams.retain(|stream| stream.strong_count() > 0);
        self.streams.len()
    }

    fn is_open(&mut self) -> bool {
        !self.is_retired.load(Ordering::Relaxed)
            && !matches!(
                self.sender.poll_ready(&mut Context::from_waker(Waker::noop())),
                std::task::Poll::Ready(Err(_))
            )
    }

    fn has_room(&mut self) -> bool {
        self.under_way() < STREAMS_MAX.min(self.sender.current_max_send_streams())
    }

    fn open(&mut self) -> Upstream {
        let stream = Arc::new(Streams { is_retired: Arc::clone(&self.is_retired) });
        self.streams.push(Arc::downgrade(&stream));
        self.used = Instant::now();
        Upstream::new(self.sender.clone(), stream)
    }
}

#[derive(Default)]
pub(crate) struct Channels {
    /// By backend.
    open: RefCell<BTreeMap<u64, Vec<Channel>>>,
}

impl Channels {
    /// A place on a connection there is.
    pub(crate) fn take(&self, backend: &Backend) -> Option<Upstream> {
        let mut open = self.open.borrow_mut();
        let channels = open.get_mut(&backend.serial)?;
        channels.retain_mut(Channel::is_open);
        channels.iter_mut().find_map(|channel| channel.has_room().then(|| channel.open()))
    }

    /// Makes a connection of it, and gives a place on it.
    pub(crate) async fn add(&self, backend: &Backend, stream: TcpStream) -> io::Result<Upstream> {
        let mut settings = h2::client::Builder::new();
        settings
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .data_frame_budget(OVERHEAD_BYTES_MAX)
            // An answer that is none ends its own stream; the others are of other clients.
            .max_local_error_reset_streams(None);
        let shaken = tokio::time::timeout(HANDSHAKE_LIMIT, settings.handshake::<_, Bytes>(stream)).await;
        let shaken = shaken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        let (sender, connection) =
            shaken.map_err(|error| error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()))?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "connection to an instance broke off");
            }
        });
        let mut channel = Channel { sender, is_retired: Arc::default(), streams: Vec::new(), used: Instant::now() };
        let stream = channel.open();
        self.open.borrow_mut().entry(backend.serial).or_default().push(channel);
        Ok(stream)
    }

    /// Closes what nobody used for long.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.open.borrow_mut().retain(|_, channels| {
            channels.retain_mut(|channel| {
                channel.is_open() && (channel.under_way() > 0 || now - channel.used < IDLE_LIMIT)
            });
            !channels.is_empty()
        });
    }
}
