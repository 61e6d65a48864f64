//! Pool: connections to instances, and those of them that wait for the next request. Each data thread has its own, so
//! nothing is shared and nothing locked.
//!
//! A connection belongs to a backend, by its serial: an address may come again with another instance. The last one that
//! was used is taken first, so that the others grow old and go.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Waker};
use std::time::Duration;

use lb_core::http1::ResponseHead;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::channels::Channels;
use crate::http1::Http1;
use crate::http2::upstream::Upstream;

/// Instances are near: what takes longer is gone.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Below the keep-alive of common app servers (5 s and more).
const IDLE_SAFE: Duration = Duration::from_secs(4);
/// Below those of all (2 s and more), for requests that cannot be sent twice.
const IDLE_UNSAFE: Duration = Duration::from_secs(1);
/// Idle connections, per thread.
const IDLE_MAX: usize = 1_024;
/// How often old ones are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A connection to an instance.
#[derive(Debug)]
pub(crate) struct Instance<I> {
    pub(crate) http: I,
    pub(crate) head: ResponseHead,
    serial: u64,
    /// It carried a request before.
    pub(crate) reused: bool,
    idle_since: Instant,
}

impl Instance<Http1<TcpStream>> {
    /// Nothing came since the last answer, not even the end. What the runtime knows of that costs nothing and is a
    /// moment old; the system is asked for a request that could not be sent again.
    fn is_quiet(&self, safe: bool) -> bool {
        let stream = self.http.wire.stream();
        if safe && stream.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_pending() {
            return true;
        }
        let peeked = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl<I> Instance<I> {
    fn new(http: I, backend: &Backend) -> Self {
        let (head, idle_since) = (ResponseHead::default(), Instant::now());
        Self { http, head, serial: backend.serial, reused: false, idle_since }
    }
}

async fn stream_to(backend: &Backend) -> io::Result<TcpStream> {
    let connected = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(backend.address)).await;
    let stream = connected.map_err(|_| io::ErrorKind::TimedOut)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[derive(Default)]
pub(crate) struct Pool {
    channels: Channels,
    /// By backend, the oldest first.
    idle: RefCell<BTreeMap<u64, Vec<Instance<Http1<TcpStream>>>>>,
    count: Cell<usize>,
}

impl Pool {
    /// A connection that waits, unless it waited for too long. `safe`: the request can be sent again.
    pub(crate) fn take(&self, backend: &Backend, safe: bool) -> Option<Instance<Http1<TcpStream>>> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(&backend.serial)?;
        let limit = if safe { IDLE_SAFE } else { IDLE_UNSAFE };
        let now = Instant::now();
        while let Some(instance) = waiting.pop_if(|instance| now - instance.idle_since < limit) {
            self.count.set(self.count.get() - 1);
            if instance.is_quiet(safe) {
                return Some(instance);
            }
        }
        None
    }

    pub(crate) async fn connect(&self, backend: &Backend) -> io::Result<Instance<Http1<TcpStream>>> {
        Ok(Instance::new(Http1::new(stream_to(backend).await?), backend))
    }

    /// A stream on a connection in HTTP/2: on one there is, where one has room.
    pub(crate) async fn open(&self, backend: &Backend) -> io::Result<Instance<Upstream>> {
        let stream = match self.channels.take(backend) {
            Some(stream) => stream,
            None => self.channels.add(backend, stream_to(backend).await?).await?,
        };
        Ok(Instance::new(stream, backend))
    }

    /// It can carry another request.
    pub(crate) fn give_back(&self, mut instance: Instance<Http1<TcpStream>>) {
        if self.count.get() >= IDLE_MAX {
            return;
        }
        instance.reused = true;
        instance.idle_since = Instant::now();
        instance.http.wire.release();
        instance.head.fields.release();
        self.count.set(self.count.get() + 1);
        self.idle.borrow_mut().entry(instance.serial).or_default().push(instance);
    }

    /// Closes what waited for too long.
    fn sweep(&self) {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|_, waiting| {
            waiting.retain(|instance| now - instance.idle_since < IDLE_SAFE);
            !waiting.is_empty()
        });
        self.count.set(idle.values().map(Vec::len).sum());
    }

    pub(crate) async fn sweep_forever(&self) {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            self.sweep();
            self.channels.sweep();
        }
    }
}
