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
mod hold;
mod http;
mod http1;
mod http2;
mod kind;
mod listen;
mod marks;
mod member;
mod mirror;
mod multiplex;
mod pace;
mod page;
mod patience;
mod pool;
mod probe;
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
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use appbase_core::SectionKey;
pub use config::{AccessForm, AccessSettings, Config, Limits, TraceSettings};
use kit::client::Client;
use kit::member::{Following, MemberError, follow};
use kit::serve::BindError;
use kit::{Shutdown, Tasks};
use lb_core::v1::TableFile;
use lb_core::{Table, TableError};
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use crate::access::AccessLog;
use crate::account::Listeners;
use crate::balancer::Balancer;
use crate::member::Member;
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
    #[error("cannot start a data thread")]
    Thread(#[source] std::io::Error),
}

/// Binds, puts the table file or the saved table in force, then serves until shutdown: no new connections then, what
/// is in flight ends within 10 s.
pub async fn run(config: Config, tasks: &Tasks, shutdown: &Shutdown) -> Result<Handle, RunError> {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = config.threads.unwrap_or_else(cores).max(1);
    let (http, plain) = bind::listeners(config.http, count)?;
    let (https, tls) = match config.https {
        Some(address) => bind::listeners(address, count).map(|(bound, listeners)| (Some(bound), listeners))?,
        None => (None, Vec::new()),
    };
    let admin = kit::serve::bind(config.admin).await?;

    let balancer = Balancer::new(tasks, shutdown);
    if let Some(path) = &config.table {
        let table = read_table(path)?;
        let certificates = balancer.certificates_of(&table);
        let certificates =
            certificates.map_err(|error| RunError::TableFile { path: path.clone(), reason: error.to_string() })?;
        balancer.put(table, certificates, false);
    }
    follow_controller(&config, &balancer, tasks, shutdown)?;

    let (listeners, written) = listeners(&config, tasks, shutdown)?;
    let log = listeners.log.clone();
    let router = admin::router(&balancer, &listeners);
    let admin = kit::serve::http(tasks, "lb-admin", admin, router, shutdown)
        .map_err(|source| BindError { address: config.admin, source })?;
    let (sweeping, asked) = (sweep::sweep_forever(Arc::clone(&balancer)), shutdown.asked());
    let (stop, stopping) = watch::channel(false);
    let https_port = https.map(|https| config.https_public_port.unwrap_or(https.port()));
    let ends =
        listen::start((plain, tls), &balancer, &stopping, &config, &listeners, https_port).map_err(RunError::Thread)?;
    tasks.spawn("lb-data", async move {
        tokio::select! { () = asked => {}, () = sweeping => {} }
        let _ = stop.send(true);
        for end in ends {
            let _ = end.await;
        }
        if let (Some(log), Some(written)) = (log, written) {
            log.close();
            let _ = written.await;
        }
    });
    tracing::info!(%http, https = https.map(|https| https.to_string()), %admin, "load balancer serves");
    Ok(Handle { http, https, admin })
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

fn follow_controller(
    config: &Config,
    balancer: &Arc<Balancer>,
    tasks: &Tasks,
    shutdown: &Shutdown,
) -> Result<(), RunError> {
    let Some(controller) = &config.controller else { return Ok(()) };
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
    let in_force = Arc::clone(&balancer.in_force);
    follow(Arc::new(Member(Arc::clone(balancer))), following, in_force, tasks, shutdown)?;
    Ok(())
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
