//! Listen: the data plane. Each thread has a listener of its own on the same port (`SO_REUSEPORT`), a runtime that
//! nobody else uses, and a pool of connections to instances.
//!
//! A connection never moves between threads, and what it uses is shared with nobody: no lock, no cache line that two
//! cores fight for.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use appbase_core::Prefix;
use kit::serve::BindError;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, LocalSet};

use crate::balancer::Balancer;
use crate::client::{Client, Next};
use crate::config::{Config, Limits};
use crate::connection::Connection;
use crate::entrance::Entrance;
use crate::exchange::{self, After};
use crate::pool::Pool;

/// What is in flight at shutdown may take this long.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// Over all threads; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 20_000;
const BACKLOG: i32 = 4_096;
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// One listener per thread, all bound before anything is served.
pub(crate) fn bind(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, BindError> {
    let failed = |source| BindError { address, source };
    // Another program with SO_REUSEPORT would silently share the port: a plain bind tells whether there is one.
    drop(socket(address, false).map_err(failed)?);
    let first = socket(address, true).map_err(failed)?;
    let bound = first.local_addr().map_err(failed)?;
    let rest = (1..count.max(1)).map(|_| socket(bound, true));
    std::iter::once(Ok(first)).chain(rest).collect::<io::Result<Vec<_>>>().map_err(failed)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if shared {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

/// Starts one thread per listener; each answers on its channel when it has ended.
pub(crate) fn start(
    listeners: Vec<TcpListener>,
    balancer: &Arc<Balancer>,
    stopping: &watch::Receiver<bool>,
    config: &Config,
) -> io::Result<Vec<oneshot::Receiver<()>>> {
    let connections_max = CONNECTIONS_MAX / listeners.len().max(1);
    let start_one = |(number, listener): (usize, TcpListener)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let data = Data {
            entrance: Entrance::new(Arc::clone(balancer)),
            balancer: Arc::clone(balancer),
            pool: Pool::default(),
            copies: Cell::new(0),
            stopping: stopping.clone(),
            access_log: config.access_log,
            proxies: config.proxies.clone(),
            limits: config.limits,
            connections_max,
        };
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new().name(format!("lb-data-{number}")).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => data.serve(listener).await,
                    Err(error) => tracing::error!(error = %error, "listener cannot be used"),
                }
            });
            let _ = ended.send(());
        })?;
        Ok(end)
    };
    listeners.into_iter().enumerate().map(start_one).collect()
}

/// What one data thread works with.
pub(crate) struct Data {
    pub(crate) balancer: Arc<Balancer>,
    pub(crate) entrance: Entrance,
    pub(crate) pool: Pool,
    /// Copies of requests that are under way.
    pub(crate) copies: Cell<usize>,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) access_log: bool,
    proxies: Vec<Prefix>,
    pub(crate) limits: Limits,
    connections_max: usize,
}

impl Data {
    async fn serve(self, listener: tokio::net::TcpListener) {
        let data = Rc::new(self);
        let pool = Rc::clone(&data);
        let sweeping = tokio::task::spawn_local(async move { pool.pool.sweep_forever().await });
        let mut stopping = data.stopping.clone();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => break,
                Some(ended) = connections.join_next() => report_panic(&ended),
                accepted = listener.accept(), if connections.len() < data.connections_max => match accepted {
                    Ok((stream, client)) => { connections.spawn_local(Rc::clone(&data).connection(stream, client)); }
                    Err(error) => {
                        tracing::warn!(error = %error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // Who is already in the kernel's queue would be refused by closing it.
        while let Ok((stream, client)) = tokio::task::unconstrained(accept_now(&listener)).await {
            connections.spawn_local(Rc::clone(&data).connection(stream, client));
        }
        drop(listener);
        let rest = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_LIMIT, rest).await.is_err() {
            tracing::warn!(connections = connections.len(), "ending with connections in flight");
            connections.shutdown().await;
        }
        sweeping.abort();
    }

    async fn connection(self: Rc<Self>, stream: tokio::net::TcpStream, client: SocketAddr) {
        let edge = &self.balancer.edge;
        edge.connections.fetch_add(1, Ordering::Relaxed);
        edge.connections_open.fetch_add(1, Ordering::Relaxed);
        let _open = OpenConnection(&self.balancer);
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "connection without TCP_NODELAY");
        }
        let address = client.ip().to_canonical();
        let mut client = Client::new(stream, Connection::new(address), self.limits);
        if self.proxies.iter().any(|proxies| proxies.contains(address)) && !client.take_proxied().await {
            edge.not_proxied.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let connection = Arc::clone(&client.connection);
        let mut stopping = self.stopping.clone();
        let idle_at_stop = async {
            let _ = stopping.wait_for(|stopping| *stopping).await;
            // What has come already is not known before the system was asked: a connection that was accepted last may
            // carry a request.
            tokio::task::yield_now().await;
            if !connection.is_idle() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = self.requests(&mut client) => {}
            // Dropping what it does closes both its connections.
            () = connection.cut() => {}
            () = idle_at_stop => {}
        }
    }

    /// One after the other, until the connection ends.
    async fn requests(self: &Rc<Self>, client: &mut Client) {
        loop {
            let after = match client.next().await {
                Next::Request => exchange::carry(self, client).await,
                Next::Refused(refusal) => {
                    if refusal.code == "client-timeout" {
                        self.balancer.edge.late_heads.fetch_add(1, Ordering::Relaxed);
                    }
                    exchange::refuse(self, client, refusal).await
                }
                Next::Nothing => After::Gone,
            };
            match after {
                After::GoesOn if !*self.stopping.borrow() => {}
                After::GoesOn | After::Closes => return client.linger().await,
                After::Gone => return,
            }
        }
    }
}

struct OpenConnection<'a>(&'a Balancer);

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.edge.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that waits in the queue, or an error at once.
async fn accept_now(listener: &tokio::net::TcpListener) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    tokio::select! {
        biased;
        accepted = listener.accept() => accepted,
        () = std::future::ready(()) => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn report_panic(ended: &Result<(), tokio::task::JoinError>) {
    if ended.as_ref().is_err_and(tokio::task::JoinError::is_panic) {
        tracing::error!("serving a connection panicked");
    }
}
