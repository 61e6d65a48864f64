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

use lb_core::http1::{HeadError, HeadScan, ResponseHead};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::http1::Http1;

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
pub(crate) struct Instance {
    pub(crate) http: Http1<TcpStream>,
    pub(crate) head: ResponseHead,
    pub(crate) scan: HeadScan,
    serial: u64,
    /// It carried a request before.
    pub(crate) reused: bool,
    idle_since: Instant,
}

impl Instance {
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

    /// Takes the next head from what came. False: more of it is to come.
    pub(crate) fn take_head(&mut self) -> Result<bool, HeadError> {
        let Some(place) = self.scan.find(self.http.wire.ahead())? else { return Ok(false) };
        let end = place.end;
        self.head.read(&self.http.wire.ahead()[place])?;
        self.http.wire.consume(end);
        self.scan = HeadScan::default();
        Ok(true)
    }
}

#[derive(Default)]
pub(crate) struct Pool {
    /// By backend, the oldest first.
    idle: RefCell<BTreeMap<u64, Vec<Instance>>>,
    count: Cell<usize>,
}

impl Pool {
    /// A connection that waits, unless it waited for too long. `safe`: the request can be sent again.
    pub(crate) fn take(&self, backend: &Backend, safe: bool) -> Option<Instance> {
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

    pub(crate) async fn connect(&self, backend: &Backend) -> io::Result<Instance> {
        let connected = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(backend.address)).await;
        let stream = connected.map_err(|_| io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        Ok(Instance {
            http: Http1::new(stream),
            head: ResponseHead::default(),
            scan: HeadScan::default(),
            serial: backend.serial,
            reused: false,
            idle_since: Instant::now(),
        })
    }

    /// It can carry another request.
    pub(crate) fn give_back(&self, mut instance: Instance) {
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
        }
    }
}
