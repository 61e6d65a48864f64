//! The name server: listens, asks its core, sends; forwards what is not ours.
//!
//! Owns: sockets, upstreams, limits and counters. Refuses: making up names; they come in a table from the controller
//! or a file, and the last good one serves when neither is there.
//!
//! Start at [`run`].

mod config;
mod counters;
mod file;
mod limits;
mod server;
mod tcp;
mod udp;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use appbase_core::MemberId;
use kit::client::Client;
use kit::member::{Following, InForce, MemberError, follow};
use kit::serve::BindError;
use kit::{Shutdown, Tasks, admin};
use tokio::net::TcpListener;

pub use config::{ADMIN, Config};
pub use file::FileError;

use crate::server::Server;
use crate::udp::PacketSocket;

/// The saved table within the data directory.
const SAVED_TABLE: &str = "names.table";
/// Sockets over which the kernel spreads the askers, at most.
const SOCKETS_MAX: usize = 4;
/// Tries to find a port that is free for both TCP and UDP, when any will do.
const PORT_TRIES: usize = 16;

/// A running name server.
#[derive(Debug, Clone, Copy)]
pub struct Handle {
    /// Where it answers, over UDP and TCP.
    pub dns: SocketAddr,
    /// `/livez`, `/readyz`, `/metrics`.
    pub admin: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot serve the admin endpoint")]
    Admin(#[source] std::io::Error),
    #[error("no table to serve: name a controller (--controller) or a table file (--table)")]
    NoTable,
    #[error("a table comes from a controller or from a file, not both: leave out --controller or --table")]
    TwoTables,
    #[error(transparent)]
    File(#[from] FileError),
    #[error("member \"{member}\" cannot be followed as")]
    Member {
        member: String,
        #[source]
        source: appbase_core::name::NameError,
    },
    #[error("cannot read the controller's token from {path}")]
    Token {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot make the data directory {path}")]
    Data {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Follow(#[from] MemberError),
}

/// Binds, takes the table there is, then serves until `shutdown`. Answers SERVFAIL before the first table.
pub async fn run(config: Config, tasks: &Tasks, shutdown: &Shutdown) -> Result<Handle, RunError> {
    match (&config.controller, &config.table) {
        (None, None) => return Err(RunError::NoTable),
        (Some(_), Some(_)) => return Err(RunError::TwoTables),
        _ => {}
    }
    let (listener, sockets) = bind(config.listen).await?;
    let dns = listener.local_addr().map_err(|source| BindError { address: config.listen, source })?;
    let admin_listener = kit::serve::bind(config.admin).await?;
    let upstreams = upstream::usable(&config.upstreams, dns);
    let server = Arc::new(Server::new(upstreams, tasks.clone()));

    if let Some(path) = &config.table {
        file::serve(Arc::clone(&server), path, tasks, shutdown)?;
    }
    if let Some(controller) = &config.controller {
        let following = following(&config, controller)?;
        follow(Arc::clone(&server), following, Arc::new(InForce::default()), tasks, shutdown)?;
    }
    for socket in sockets {
        tasks.spawn("dns-udp", udp::serve(Arc::clone(&server), Arc::new(socket), shutdown.clone()));
    }
    tasks.spawn("dns-tcp", tcp::serve(Arc::clone(&server), listener, shutdown.clone()));
    let admin = kit::serve::http(tasks, "dns-admin", admin_listener, admin::router(server), shutdown)
        .map_err(RunError::Admin)?;
    tracing::info!(%dns, %admin, "name server listens");
    Ok(Handle { dns, admin })
}

fn following(config: &Config, controller: &str) -> Result<Following, RunError> {
    let member =
        MemberId::parse(&config.member).map_err(|source| RunError::Member { member: config.member.clone(), source })?;
    let token = match &config.token_file {
        None => None,
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|source| RunError::Token { path: path.clone(), source })?;
            Some(text.trim().to_owned())
        }
    };
    if let Some(path) = &config.data {
        std::fs::create_dir_all(path).map_err(|source| RunError::Data { path: path.clone(), source })?;
    }
    let saved = config.data.as_ref().map(|data| data.join(SAVED_TABLE));
    Ok(Following { member, controller: Client::new(controller, token), saved })
}

/// TCP first: its bind says when another program has the port, which shared UDP sockets do not.
async fn bind(address: SocketAddr) -> Result<(TcpListener, Vec<PacketSocket>), BindError> {
    let count = std::thread::available_parallelism().map_or(1, |count| count.get().min(SOCKETS_MAX));
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let listener = kit::serve::bind(address).await?;
        let bound = listener.local_addr().map_err(|source| BindError { address, source })?;
        let sockets: Result<Vec<_>, _> = (0..count).map(|_| PacketSocket::bind(bound)).collect();
        match sockets {
            Ok(sockets) => return Ok((listener, sockets)),
            Err(_) if tries > 0 => {}
            Err(source) => return Err(BindError { address: bound, source }),
        }
    }
}
