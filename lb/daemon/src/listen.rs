//! Listen: the data plane. Each thread has listeners of its own on the same ports (`SO_REUSEPORT`), a runtime that nobody
//! else uses, and a pool of connections to instances.
//!
//! A connection never moves between threads, and what it uses is shared with nobody: no lock, no cache line that two
//! cores fight for.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use appbase_core::Prefix;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, LocalSet};

use lb_core::preview;

use crate::account;
use crate::balancer::Balancer;
use crate::bind;
use crate::certificates::Shaken;
use crate::client::Client;
use crate::config::{Config, Limits};
use crate::connection::Connection;
use crate::conversation::Ended;
use crate::door::{self, Door, HandshakeError, Socket};
use crate::entrance::Entrance;
use crate::http1::Http1;
use crate::multiplex;
use crate::phase::Phase;
use crate::pool::Pool;
use crate::proxied;

/// What is in flight at shutdown may take this long.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// Over all threads; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 20_000;
/// Streams of HTTP/2 under way, per thread: each may hold a connection to an instance.
pub(crate) const STREAMS_MAX: usize = 5_000;
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Starts `count` threads; each answers on its channel when it has ended. The listeners, without and with TLS, are dealt
/// out among them. `https_port`: where clients find TLS.
pub(crate) fn start(
    count: usize,
    (plain, tls): (Vec<TcpListener>, Vec<TcpListener>),
    balancer: &Arc<Balancer>,
    phase: &watch::Receiver<Phase>,
    config: &Config,
    listeners: &account::Listeners,
    https_port: Option<u16>,
) -> io::Result<Vec<oneshot::Receiver<()>>> {
    let mut dealt: Vec<Vec<(TcpListener, bool)>> = std::iter::repeat_with(Vec::new).take(count).collect();
    for (all, is_tls) in [(plain, false), (tls, true)] {
        for (number, listener) in all.into_iter().enumerate() {
            dealt[number % count].push((listener, is_tls));
        }
    }
    let start_one = |(number, mine): (usize, Vec<(TcpListener, bool)>)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let data = Data {
            entrance: Entrance::new(Arc::clone(balancer), https_port),
            balancer: Arc::clone(balancer),
            pool: Pool::default(),
            copies: Cell::new(0),
            streams: Cell::new(0),
            phase: phase.clone(),
            listeners: listeners.clone(),
            proxies: config.proxies.clone(),
            limits: config.limits,
            leaving: Duration::from_secs(config.upgrade.drain_s),
            connections_max: CONNECTIONS_MAX / count,
        };
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new().name(format!("lb-data-{number}")).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async {
                match Listeners::of(mine) {
                    Ok(mine) => data.serve(mine).await,
                    Err(error) => tracing::error!(error = %error, "listener cannot be used"),
                }
            });
            let _ = ended.send(());
        })?;
        Ok(end)
    };
    dealt.into_iter().enumerate().map(start_one).collect()
}

/// Where one thread takes connections.
struct Listeners {
    /// Whether its connections begin with TLS.
    all: Vec<(tokio::net::TcpListener, bool)>,
    /// Who is asked first.
    next: Cell<usize>,
}

/// A connection as it was accepted.
struct Accepted {
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
    is_tls: bool,
}

impl Listeners {
    fn of(listeners: Vec<(TcpListener, bool)>) -> io::Result<Self> {
        let used = |(listener, is_tls)| Ok((tokio::net::TcpListener::from_std(listener)?, is_tls));
        let all = listeners.into_iter().map(used).collect::<io::Result<_>>()?;
        Ok(Self { all, next: Cell::new(0) })
    }

    async fn accept(&self) -> io::Result<Accepted> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// In turn, so that a busy port keeps nobody of another waiting.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let (count, first) = (self.all.len(), self.next.get());
        for at in (first..first + count).map(|at| at % count) {
            let (listener, is_tls) = &self.all[at];
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                self.next.set(at + 1);
                return Poll::Ready(accepted.map(|(stream, peer)| Accepted { stream, peer, is_tls: *is_tls }));
            }
        }
        Poll::Pending
    }

    /// A connection that waits in a queue, or an error at once.
    async fn accept_now(&self) -> io::Result<Accepted> {
        tokio::select! {
            biased;
            accepted = self.accept() => accepted,
            () = std::future::ready(()) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// What one data thread works with.
pub(crate) struct Data {
    pub(crate) balancer: Arc<Balancer>,
    pub(crate) entrance: Entrance,
    pub(crate) pool: Pool,
    /// Copies of requests that are under way.
    pub(crate) copies: Cell<usize>,
    /// Streams of HTTP/2 that are.
    pub(crate) streams: Cell<usize>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) listeners: account::Listeners,
    proxies: Vec<Prefix>,
    pub(crate) limits: Limits,
    /// What is under way may take so long once a newer lb has taken over.
    leaving: Duration,
    connections_max: usize,
}

impl Data {
    async fn serve(self, listeners: Listeners) {
        let data = Rc::new(self);
        let pool = Rc::clone(&data);
        let sweeping = tokio::task::spawn_local(async move { pool.pool.sweep_forever().await });
        let mut phase = data.phase.clone();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = phase.wait_for(|phase| *phase != Phase::Serves) => break,
                Some(ended) = connections.join_next() => report_panic(&ended),
                accepted = listeners.accept(), if connections.len() < data.connections_max => match accepted {
                    Ok(accepted) => { connections.spawn_local(Rc::clone(&data).connection(accepted)); }
                    Err(error) => {
                        tracing::warn!(error = %error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // Who is already in the kernel's queue would be refused by closing it. Where a newer lb takes connections from the
        // same queue, it does not become empty: what it holds now is enough.
        for _ in 0..bind::BACKLOG {
            let Ok(accepted) = tokio::task::unconstrained(listeners.accept_now()).await else { break };
            connections.spawn_local(Rc::clone(&data).connection(accepted));
        }
        drop(listeners);
        tokio::select! {
            () = async { while connections.join_next().await.is_some() {} } => {}
            () = data.time_is_up() => {
                tracing::warn!(connections = connections.len(), "ending with connections in flight");
                connections.shutdown().await;
            }
        }
        sweeping.abort();
    }

    async fn time_is_up(&self) {
        let mut phase = self.phase.clone();
        let stops = async {
            let _ = phase.wait_for(|phase| *phase == Phase::Stops).await;
            tokio::time::sleep(SHUTDOWN_LIMIT).await;
        };
        tokio::select! {
            () = stops => {}
            () = tokio::time::sleep(self.leaving.max(SHUTDOWN_LIMIT)) => {}
        }
    }

    /// No answer promises that there will be another one on its connection.
    pub(crate) fn is_leaving(&self) -> bool {
        *self.phase.borrow() != Phase::Serves
    }

    async fn connection(self: Rc<Self>, accepted: Accepted) {
        let edge = &self.balancer.edge;
        edge.connections.fetch_add(1, Ordering::Relaxed);
        edge.connections_open.fetch_add(1, Ordering::Relaxed);
        let _open = OpenConnection(&self.balancer);
        let Accepted { stream, peer, is_tls } = accepted;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "connection without TCP_NODELAY");
        }
        let mut socket = Socket::new(stream);
        let Some(client) = self.client_behind(peer.ip().to_canonical(), &mut socket).await else { return };
        if !is_tls {
            return self.converse(Door::Plain(socket), client, None).await;
        }
        edge.handshakes.fetch_add(1, Ordering::Relaxed);
        let (name, shaken) = door::shake_hands(socket, &self.balancer, self.limits.head).await;
        match shaken {
            Ok((door, shaken, true)) => multiplex::serve(&self, door, client, Some(Arc::new(shaken))).await,
            Ok((door, shaken, false)) => self.converse(door, client, Some(Arc::new(shaken))).await,
            Err(HandshakeError::Challenge) => tracing::debug!(%client, name, "challenge answered"),
            Err(error) => {
                edge.fail_handshake(error.code());
                let name = name.as_deref().map(|name| preview::masked(name).into_owned());
                tracing::debug!(%client, name, error = %error, "handshake failed");
            }
        }
    }

    /// Who the client is: the peer, or whom a proxy names. None: the proxy names nobody that could be believed.
    async fn client_behind(&self, peer: IpAddr, socket: &mut Socket) -> Option<IpAddr> {
        if !self.proxies.iter().any(|proxies| proxies.contains(peer)) {
            return Some(peer);
        }
        match proxied::take(socket, self.limits.head).await {
            Ok(client) => Some(client.unwrap_or(peer)),
            Err(reason) => {
                tracing::debug!(%peer, reason, "connection refused: it does not begin with a PROXY header");
                self.balancer.edge.not_proxied.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Requests in HTTP/1, unless the first bytes are of HTTP/2.
    async fn converse(self: &Rc<Self>, door: Door, client: IpAddr, tls: Option<Arc<Shaken>>) {
        let connection = Connection::new(client, tls.clone());
        let mut client = Client::new(Http1::new(door), Arc::clone(&connection), self.limits);
        let mut phase = self.phase.clone();
        let idle_at_stop = async {
            let _ = phase.wait_for(|phase| *phase == Phase::Stops).await;
            // What has come already is not known before the system was asked: a connection that was accepted last may
            // carry a request.
            tokio::task::yield_now().await;
            if !connection.is_idle() {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! {
            biased;
            ended = client.converse(self) => ended,
            // Dropping what it does closes both its connections.
            () = connection.cut() => Ended::Here,
            () = idle_at_stop => Ended::Here,
        };
        if let Ended::IsHttp2 = ended {
            multiplex::serve(self, client.http.into_door(), connection.client, tls).await;
        }
    }
}

struct OpenConnection<'a>(&'a Balancer);

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.edge.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(crate) fn report_panic<T>(ended: &Result<T, tokio::task::JoinError>) {
    if ended.as_ref().is_err_and(tokio::task::JoinError::is_panic) {
        tracing::error!("serving a connection panicked");
    }
}
