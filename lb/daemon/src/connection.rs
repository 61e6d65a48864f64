//! Connection: one client connection as seen from outside the task that serves it. In HTTP/2 each stream counts as one.
//!
//! A connection can be asked two things: to end the request it carries *if it still carries that one*, and to say
//! goodbye to its WebSocket. Both are looked at by the connection's own task, so neither can hit the wrong request.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::certificates::Shaken;

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: IpAddr,
    /// None: it came without TLS.
    pub(crate) tls: Option<Arc<Shaken>>,
    /// The request being carried; 0 for none.
    current: AtomicU64,
    /// The request that is to be ended.
    cut: AtomicU64,
    /// Wakes the connection's task to look at `cut` and `goodbye`.
    wake: Notify,
    /// Nothing is under way on it.
    idle: AtomicBool,
    /// What follows is WebSocket frames, so that a close frame can be put between two of them.
    websocket: AtomicBool,
    goodbye: AtomicBool,
}

impl Connection {
    pub(crate) fn new(client: IpAddr, tls: Option<Arc<Shaken>>) -> Arc<Self> {
        Arc::new(Self {
            client,
            tls,
            current: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            wake: Notify::new(),
            idle: AtomicBool::new(true),
            websocket: AtomicBool::new(false),
            goodbye: AtomicBool::new(false),
        })
    }

    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Relaxed);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    pub(crate) fn begin_request(&self, request: u64) {
        self.current.store(request, Ordering::SeqCst);
    }

    pub(crate) fn end_request(&self) {
        self.current.store(0, Ordering::SeqCst);
    }

    /// Ends `request`, unless the connection has gone on to another one.
    pub(crate) fn cut_request(&self, request: u64) {
        self.cut.store(request, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Ends when the request being carried is to be ended. Polled by the connection's own task only.
    pub(crate) async fn cut(&self) {
        loop {
            self.wake.notified().await;
            let current = self.current.load(Ordering::SeqCst);
            if current != 0 && current == self.cut.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    pub(crate) fn set_websocket(&self) {
        self.websocket.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_websocket(&self) -> bool {
        self.websocket.load(Ordering::Relaxed)
    }

    /// Asks a WebSocket's client to go. Waking the task polls its stream, which sends the close frame.
    pub(crate) fn say_goodbye(&self) {
        if self.is_websocket() && !self.goodbye.swap(true, Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }

    pub(crate) fn has_goodbye(&self) -> bool {
        self.goodbye.load(Ordering::Relaxed)
    }
}
