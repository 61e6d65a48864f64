//! Listen: the data plane. Each thread has a listener of its own on the same port (`SO_REUSEPORT`), a runtime that
//! nobody else uses, and a pool of connections to instances.
//!
//! A connection never moves between threads. That costs nothing here and closes a race of pingora's upgrade handling
//! under work stealing (pingora issue 946).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kit::serve::BindError;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream as TcpStream;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::balancer::Balancer;
use crate::client::ClientStream;
use crate::connection::{CONNECTION, Connection};
use crate::proxy::Proxy;

/// From the first byte of a head to its last.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Between two requests, and before the first.
const IDLE_LIMIT: Duration = Duration::from_secs(75);
/// What is in flight at shutdown may take this long.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// Over all threads; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 20_000;
const BACKLOG: i32 = 4_096;
/// Idle connections to instances, per thread.
const POOL_CONNECTIONS_MAX: usize = 1_024;
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
    access_log: bool,
) -> io::Result<Vec<oneshot::Receiver<()>>> {
    let connections_max = CONNECTIONS_MAX / listeners.len().max(1);
    let start_one = |(number, listener): (usize, TcpListener)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let proxy = Proxy::new(Arc::clone(balancer), stopping.clone(), access_log);
        let data = Data {
            proxy: Arc::new(pingora(proxy)),
            balancer: Arc::clone(balancer),
            stopping: stopping.clone(),
            connections_max,
        };
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new().name(format!("lb-data-{number}")).spawn(move || {
            runtime.block_on(async {
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

fn pingora(proxy: Proxy) -> HttpProxy<Proxy> {
    let conf = ServerConf {
        threads: 1,
        // Retries are decided by lb-core; this is only above its limit.
        max_retries: lb_core::retry::RETRIES_MAX as usize + 2,
        upstream_keepalive_pool_size: POOL_CONNECTIONS_MAX,
        ..ServerConf::default()
    };
    let mut proxy = HttpProxy::new(proxy, Arc::new(conf));
    proxy.handle_init_modules();
    proxy
}

/// What one data thread works with.
struct Data {
    proxy: Arc<HttpProxy<Proxy>>,
    balancer: Arc<Balancer>,
    stopping: watch::Receiver<bool>,
    connections_max: usize,
}

impl Data {
    async fn serve(self, listener: tokio::net::TcpListener) {
        let data = Arc::new(self);
        let mut stopping = data.stopping.clone();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => break,
                Some(ended) = connections.join_next() => report_panic(&ended),
                accepted = listener.accept(), if connections.len() < data.connections_max => match accepted {
                    Ok((stream, client)) => { connections.spawn(Arc::clone(&data).connection(stream, client)); }
                    Err(error) => {
                        tracing::warn!(error = %error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // Who is already in the kernel's queue would be refused by closing it.
        while let Ok((stream, client)) = tokio::task::unconstrained(accept_now(&listener)).await {
            connections.spawn(Arc::clone(&data).connection(stream, client));
        }
        drop(listener);
        let rest = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_LIMIT, rest).await.is_err() {
            tracing::warn!(connections = connections.len(), "ending with connections in flight");
            connections.shutdown().await;
        }
    }

    async fn connection(self: Arc<Self>, stream: tokio::net::TcpStream, client: SocketAddr) {
        let edge = &self.balancer.edge;
        edge.connections.fetch_add(1, Ordering::Relaxed);
        edge.connections_open.fetch_add(1, Ordering::Relaxed);
        let _open = OpenConnection(&self.balancer);
        let mut tcp = TcpStream::from(stream);
        if let Err(error) = tcp.set_nodelay() {
            tracing::debug!(error = %error, "connection without TCP_NODELAY");
        }
        let connection = Connection::new(client.ip().to_canonical());
        let mut stream: Stream = Box::new(ClientStream::new(tcp, Arc::clone(&connection)));
        let mut settings: Option<pingora_core::apps::HttpPersistentSettings> = None;
        let mut stopping = self.stopping.clone();
        loop {
            if !self.first_byte(&mut stream, &mut stopping).await {
                return;
            }
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings.take() {
                settings.apply_to_session(&mut session);
            }
            session.set_keepalive(Some(HEAD_LIMIT.as_secs()));
            connection.begin_head();
            let process = self.proxy.process_new_http(session, &self.stopping);
            let served = tokio::select! {
                biased;
                served = CONNECTION.scope(Arc::clone(&connection), process) => served,
                () = late_head(&connection) => {
                    edge.late_heads.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                // Dropping what it does closes both its connections.
                () = connection.cut() => return,
            };
            let Some(reusable) = served else { return };
            (stream, settings) = reusable.consume();
        }
    }

    /// Waits for a request to begin. False: the client went away, nothing came in time, or lb stops.
    async fn first_byte(&self, stream: &mut Stream, stopping: &mut watch::Receiver<bool>) -> bool {
        let mut byte = [0];
        tokio::select! {
            biased;
            peeked = tokio::time::timeout(IDLE_LIMIT, stream.try_peek(&mut byte)) => matches!(peeked, Ok(Ok(true))),
            _ = stopping.wait_for(|stopping| *stopping) => false,
        }
    }
}

struct OpenConnection<'a>(&'a Balancer);

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.edge.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends when the head took too long. A head that is complete has no limit here; it mostly is at the first look.
async fn late_head(connection: &Connection) {
    if !connection.has_head() {
        tokio::time::sleep(HEAD_LIMIT).await;
    }
    if connection.has_head() {
        std::future::pending::<()>().await;
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
