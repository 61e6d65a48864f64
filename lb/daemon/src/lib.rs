//! The load balancer's daemon: accepts, forwards, probes, drains, and follows the route table. What to do is lb-core's.
//!
//! ```text
//! table ──► Balancer.put ──► snapshot (one pointer) ──► Entrance ─────► instance
//! probe ──► health ─────────►    ▲                         │
//! sweep ◄── draining backends ◄──┴── Backend (gate, who is inside) ◄─┘
//! ```
//! Start at [`run`]; one request is in `exchange`, a table swap in `balancer`.

mod access;
mod account;
mod admin;
mod admission;
mod attempt;
mod backend;
mod balancer;
mod bind;
mod certificates;
mod channels;
mod choice;
mod client;
mod compose;
mod config;
mod connection;
mod conversation;
mod counters;
mod door;
mod entrance;
mod exchange;
mod experience;
mod handover;
mod hold;
mod http;
mod http1;
mod http2;
mod inquiry;
mod kind;
mod listen;
mod marks;
mod member;
mod mirror;
mod multiplex;
mod pace;
mod page;
mod patience;
mod phase;
mod pool;
mod press;
mod probe;
mod proofs;
mod proxied;
mod rates;
mod refusal;
mod request;
mod snapshot;
mod spans;
mod sweep;
mod tunnel;
mod websocket;
mod wire;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use appbase_core::SectionKey;
pub use config::{AccessForm, AccessSettings, Config, Limits, TraceSettings, Upgrade};
pub use handover::HandoverError;
use kit::client::Client;
use kit::member::{Following, MemberError};
use kit::serve::BindError;
use kit::{Shutdown, Tasks};
use lb_core::v1::TableFile;
use lb_core::{Table, TableError};
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use crate::access::AccessLog;
use crate::account::Listeners;
use crate::balancer::Balancer;
use crate::handover::{Estate, Predecessor};
use crate::member::Member;
use crate::phase::Phase;
use crate::spans::Spans;

/// Name of the saved table within the data directory.
const SAVED_TABLE: &str = "route-table";

/// Where it serves.
#[derive(Debug, Clone, Copy)]
pub struct Handle {
    pub http: SocketAddr,
    /// None: there is no TLS.
    pub https: Option<SocketAddr>,
    pub admin: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot {doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is not a route table: {reason}")]
    TableFile { path: PathBuf, reason: String },
    #[error("{path} is not a sound route table")]
    Table {
        path: PathBuf,
        #[source]
        source: Box<TableError>,
    },
    #[error("\"{0}\" is no URL of a collector like http://127.0.0.1:4318 (https is not spoken to it)")]
    Collector(String),
    #[error("cannot follow the controller")]
    Member(#[from] MemberError),
    #[error("cannot take over")]
    Handover(#[from] HandoverError),
    #[error("cannot start a data thread")]
    Thread(#[source] std::io::Error),
}

/// Binds, or takes over the listeners of the lb that serves here; puts the table file or the saved table in force; then
/// serves until shutdown: no new connections then, what is in flight ends within 10 s. A newer lb may take over meanwhile:
/// then shutdown is asked for when nothing is under way any more.
pub async fn run(config: Config, tasks: &Tasks, shutdown: &Shutdown) -> Result<Handle, RunError> {
    let mut before = match &config.upgrade.socket {
        Some(path) => Predecessor::find(path).await?,
        None => None,
    };
    let bound = Bound::of(&config, &mut before).await?;
    let handle = bound.handle()?;
    let balancer = Balancer::new(tasks, shutdown);
    if let Some(path) = &config.table {
        let table = read_table(path)?;
        let certificates = balancer.certificates_of(&table);
        let certificates =
            certificates.map_err(|error| RunError::TableFile { path: path.clone(), reason: error.to_string() })?;
        balancer.put(table, certificates, false);
    }
    let mut table = restore(&config, &balancer)?;
    let socket = before.as_mut().and_then(Predecessor::take_socket);
    if let Some(before) = &mut before {
        let read_again = || table.as_mut().map_or(Ok(()), |table| table.read_again(true)).map_err(RunError::Member);
        before.stand_still(&balancer, read_again).await?;
    }

    let offered = bound.offered().map_err(|source| BindError { address: config.http, source })?;
    let (phase, admin) = (Arc::new(watch::Sender::new(Phase::Serves)), shutdown.child());
    let (told, written) = listeners(&config, tasks, shutdown)?;
    let router = admin::router(&balancer, &told);
    kit::serve::http(tasks, "lb-admin", bound.admin, router, &admin)
        .map_err(|source| BindError { address: config.admin, source })?;
    let https_port = handle.https.map(|https| config.https_public_port.unwrap_or(https.port()));
    let watching = phase.subscribe();
    let ends = listen::start(bound.threads, (bound.plain, bound.tls), &balancer, &watching, &config, &told, https_port);
    let log = told.log.zip(written);
    let mut ended = serve((ends.map_err(RunError::Thread)?, log), &balancer, (&phase, &offered), tasks, shutdown);

    if let Some(before) = before {
        match before.serve().await {
            Ok(Some(leaving)) => leaving.watch(&balancer, tasks, shutdown),
            Ok(None) => {}
            Err(error) => {
                // It serves on, so that what came in here meanwhile is all there is to end.
                shutdown.ask();
                let _ = ended.wait_for(|ended| *ended).await;
                return Err(error.into());
            }
        }
    }
    let followed = table.map(|table| table.follow(tasks, shutdown));
    let socket = socket.or_else(|| handover::listen(config.upgrade.socket.as_deref()?));
    if let Some(socket) = socket {
        let drain = Duration::from_secs(config.upgrade.drain_s);
        let (tasks, shutdown) = (tasks.clone(), shutdown.clone());
        let estate =
            Estate { balancer, listeners: offered, phase, admin, drain, ended, tasks: tasks.clone(), shutdown };
        tasks.spawn("handover", handover::await_successor(estate, socket, followed));
    }
    let Handle { http, https, admin } = handle;
    tracing::info!(%http, https = https.map(|https| https.to_string()), %admin, "load balancer serves");
    Ok(handle)
}

/// Who is told of requests, and when the last line of the access log is written.
fn listeners(
    config: &Config,
    tasks: &Tasks,
    shutdown: &Shutdown,
) -> Result<(Listeners, Option<oneshot::Receiver<()>>), RunError> {
    let log = AccessLog::start(&config.access).map_err(|source| RunError::File {
        doing: "open the access log",
        path: config.access.file.clone().unwrap_or_else(|| "-".into()),
        source,
    })?;
    let (log, written) = log.unzip();
    // Set to nothing is not set.
    let collector = config.trace.collector.as_deref().filter(|collector| !collector.is_empty());
    if let Some(collector) = collector.filter(|collector| !is_plain_url(collector)) {
        return Err(RunError::Collector(collector.to_owned()));
    }
    let (share, member) = (config.trace.share, config.member.as_str());
    let spans = collector.map(|collector| Spans::start(collector, share, member, tasks, shutdown));
    let listeners = Listeners { log, spans };
    Ok((listeners, written))
}

fn is_plain_url(text: &str) -> bool {
    text.parse::<::http::Uri>().is_ok_and(|url| url.scheme_str() == Some("http") && url.host().is_some())
}

/// An access log, and when its last line is written.
type WrittenLog = (Arc<AccessLog>, oneshot::Receiver<()>);

/// Watches over the data threads. The answer says whether all have ended.
fn serve(
    (ends, log): (Vec<oneshot::Receiver<()>>, Option<WrittenLog>),
    balancer: &Arc<Balancer>,
    (phase, listeners): (&Arc<watch::Sender<Phase>>, &handover::Listeners),
    tasks: &Tasks,
    shutdown: &Shutdown,
) -> watch::Receiver<bool> {
    let (sweeping, asked) = (sweep::sweep_forever(Arc::clone(balancer)), shutdown.asked());
    let (phase, listeners, ended) = (Arc::clone(phase), listeners.clone(), watch::Sender::new(false));
    let watching = ended.subscribe();
    tasks.spawn("lb-data", async move {
        let mut all = pin!(async {
            for end in ends {
                let _ = end.await;
            }
        });
        let have_ended = tokio::select! {
            () = all.as_mut() => true,
            () = asked => false,
            () = sweeping => false,
        };
        if !have_ended {
            listeners.close();
            phase.send_replace(Phase::Stops);
            all.await;
        }
        if let Some((log, written)) = log {
            log.close();
            let _ = written.await;
        }
        ended.send_replace(true);
    });
    watching
}

/// Every listener, before anything is served.
struct Bound {
    threads: usize,
    http: SocketAddr,
    plain: Vec<TcpListener>,
    https: Option<SocketAddr>,
    tls: Vec<TcpListener>,
    admin: tokio::net::TcpListener,
}

impl Bound {
    async fn of(config: &Config, before: &mut Option<Predecessor>) -> Result<Self, RunError> {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = config.threads.unwrap_or_else(cores).max(1);
        let mut inherited =
            |name, address| before.as_mut().map(|before| before.take(name, address)).unwrap_or_default();
        let (http, plain) = bind::listeners(config.http, threads, inherited(handover::HTTP, config.http))?;
        let (https, tls) = match config.https {
            Some(address) => {
                let (bound, listeners) = bind::listeners(address, threads, inherited(handover::HTTPS, address))?;
                (Some(bound), listeners)
            }
            None => (None, Vec::new()),
        };
        let admin = match inherited(handover::ADMIN, config.admin).pop() {
            Some(listener) => tokio::net::TcpListener::from_std(listener)
                .map_err(|source| BindError { address: config.admin, source })?,
            None => kit::serve::bind(config.admin).await?,
        };
        Ok(Self { threads, http, plain, https, tls, admin })
    }

    fn handle(&self) -> Result<Handle, BindError> {
        let admin = self.admin.local_addr().map_err(|source| BindError { address: self.http, source })?;
        Ok(Handle { http: self.http, https: self.https, admin })
    }

    /// The same once more, for a newer lb.
    fn offered(&self) -> std::io::Result<handover::Listeners> {
        let listeners = handover::Listeners::default();
        for listener in &self.plain {
            listeners.add(handover::HTTP, listener.local_addr()?, listener)?;
        }
        for listener in &self.tls {
            listeners.add(handover::HTTPS, listener.local_addr()?, listener)?;
        }
        listeners.add(handover::ADMIN, self.admin.local_addr()?, &self.admin)?;
        Ok(listeners)
    }
}

/// The table that was saved, in force, and ready to be followed. None: there is no controller.
fn restore(config: &Config, balancer: &Arc<Balancer>) -> Result<Option<kit::member::Table<Member>>, RunError> {
    let Some(controller) = &config.controller else { return Ok(None) };
    let failed = |doing, path: &Path| {
        let path = path.to_path_buf();
        move |source| RunError::File { doing, path, source }
    };
    let token = match &config.token_file {
        Some(path) => Some(std::fs::read_to_string(path).map_err(failed("read the token in", path))?.trim().to_owned()),
        None => None,
    };
    if let Some(data) = &config.data {
        std::fs::create_dir_all(data).map_err(failed("create", data))?;
    }
    let following = Following {
        member: config.member.clone(),
        controller: Client::new(controller, token),
        saved: config.data.as_ref().map(|data| data.join(SAVED_TABLE)),
    };
    let follower = Arc::new(Member(Arc::clone(balancer)));
    let table = kit::member::Table::restore(follower, following, Arc::clone(&balancer.in_force))?;
    Ok(Some(table))
}

/// Reads what a person wrote for `--table`.
fn read_table(path: &Path) -> Result<Table, RunError> {
    let unreadable = |reason: String| RunError::TableFile { path: path.into(), reason };
    let text = std::fs::read(path).map_err(|source| RunError::File { doing: "read", path: path.into(), source })?;
    let written: Value = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    let file: TableFile = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    let understood = serde_json::to_value(&file).map_err(|error| unreadable(error.to_string()))?;
    if let Some(place) = unknown_field(&written, &understood) {
        return Err(unreadable(format!("field {place} is not known: correct or remove it")));
    }
    let mut sections = BTreeMap::new();
    for section in file.sections {
        let key = SectionKey::app(&section.environment, &section.app);
        if sections.insert(key.clone(), section).is_some() {
            return Err(unreadable(format!("section {key} is in it twice")));
        }
    }
    Table::new(&sections).map_err(|error| RunError::Table { path: path.into(), source: Box::new(error) })
}

/// What a field that may be left out stands for when it is: then it is not written again.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// The first field of `written` that `understood`, the same document read and written again, does not have. On the wire
/// unknown fields are ignored; in a file that a person wrote they are mistakes.
fn unknown_field(written: &Value, understood: &Value) -> Option<String> {
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => {
            written.iter().find_map(|(key, value)| match understood.get(key) {
                None if says_nothing(value) => None,
                None => Some(key.clone()),
                Some(known) => unknown_field(value, known).map(|inner| format!("{key}.{inner}")),
            })
        }
        (Value::Array(written), Value::Array(understood)) => written
            .iter()
            .zip(understood)
            .enumerate()
            .find_map(|(at, (value, known))| unknown_field(value, known).map(|inner| format!("{at}.{inner}"))),
        _ => None,
    }
}
