//! All parts in one process: the platform where there is no Docker, and the one that tests start.
//!
//! Owns: the order of the start and the wiring of addresses. The parts still talk HTTP to each other; they die together,
//! instances live on and are adopted at the next start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use appbase_core::claims::ClusterKey;
use clap::Args;
use kit::keys::{KeyDirectory, KeyError};
use kit::{Shutdown, Tasks};

/// Where everything is.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Directory of all data.
    #[arg(long, env = "PLATFORMER_DATA", default_value = "data")]
    pub data: PathBuf,
    /// Where lb takes requests.
    #[arg(long, env = "PLATFORMER_LB_HTTP", default_value = "0.0.0.0:8080")]
    pub http: SocketAddr,
    /// Where lb takes requests over TLS.
    #[arg(long, env = "PLATFORMER_LB_HTTPS", default_value = "0.0.0.0:8443")]
    pub https: SocketAddr,
    /// Where dns answers (UDP and TCP).
    #[arg(long, env = "PLATFORMER_DNS_LISTEN", default_value = "0.0.0.0:1053")]
    pub dns: SocketAddr,
    /// The controller's API.
    #[arg(long, env = "PLATFORMER_CONTROLLER_LISTEN", default_value = "127.0.0.1:8081")]
    pub api: SocketAddr,
    #[arg(long, env = "PLATFORMER_REPOSITORY_LISTEN", default_value = "127.0.0.1:8082")]
    pub repository: SocketAddr,
    /// Port 0 everywhere for what only the platform itself asks (admin endpoints).
    #[arg(long, hide = true)]
    pub free_ports: bool,
}

/// Where everything turned out to be.
#[derive(Debug, Clone)]
pub struct Handle {
    pub http: SocketAddr,
    pub dns: SocketAddr,
    pub api: SocketAddr,
    pub repository: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("settings of {part}")]
    Settings {
        part: &'static str,
        #[source]
        source: clap::Error,
    },
    #[error("there are no keys")]
    Keys(#[from] KeyError),
    #[error("repository does not start")]
    Repository(#[from] repository::RunError),
    #[error("controller does not start")]
    Controller(#[from] controller::RunError),
    #[error("lb does not start")]
    Lb(#[from] lb::RunError),
    #[error("dns does not start")]
    Dns(#[from] dns::RunError),
}

/// Repository, controller, lb, dns: in the order in which each finds what it asks.
pub async fn run(config: &Config, tasks: &Tasks, shutdown: &Shutdown) -> Result<Handle, RunError> {
    let keys = config.data.join("keys");
    make_keys(&keys)?;
    let mut part: repository::Config = settings("repository")?;
    part.trust_file = Some(keys.join("cluster.json"));
    (part.listen, part.data) = (config.repository, config.data.join("repository"));
    if config.free_ports {
        part.admin = free_port();
    }
    let repository = repository::run(part, tasks, shutdown).await?.address;

    let lb_admin = if config.free_ports { reserved_port() } else { settings::<lb::Config>("lb")?.admin };
    let mut part: controller::Config = settings("controller")?;
    (part.listen, part.data) = (config.api, config.data.join("controller"));
    part.keys = Some(keys.clone());
    part.engine = controller::config::Engine::Process;
    part.repository = format!("http://{repository}");
    part.public_dns = reachable(config.dns).to_string();
    part.public_lb = format!("http://{}", reachable(config.http));
    part.lb_admin = format!("http://{lb_admin}");
    let api = controller::run(part, tasks, shutdown).await?.api;

    let mut part: lb::Config = settings("lb")?;
    // A newer one would be a whole platform.
    part.upgrade.socket = None;
    (part.http, part.admin, part.data) = (config.http, lb_admin, Some(config.data.join("lb")));
    (part.controller, part.token_file) = (Some(format!("http://{api}")), Some(keys.join("lb.token")));
    part.https = Some(if config.free_ports { free_port() } else { config.https });
    let http = lb::run(part, tasks, shutdown).await?.http;

    let mut part: dns::Config = settings("dns")?;
    (part.listen, part.data) = (config.dns, Some(config.data.join("dns")));
    (part.controller, part.token_file) = (Some(format!("http://{api}")), Some(keys.join("dns.token")));
    if config.free_ports {
        part.admin = free_port();
    }
    let dns = dns::run(part, tasks, shutdown).await?.dns;
    Ok(Handle { http, dns, api, repository })
}

/// A new cluster's keys; false when they are there already.
pub fn make_keys(directory: &Path) -> Result<bool, KeyError> {
    let key = ClusterKey::from_seed(kit::random::bytes());
    KeyDirectory::new(directory).make(controller::new_cluster_id(), &key)
}

/// A part's own settings: environment variables and defaults, without arguments.
fn settings<C: Args>(part: &'static str) -> Result<C, RunError> {
    let command = C::augment_args(clap::Command::new(part));
    let failed = |source| RunError::Settings { part, source };
    let matches = command.try_get_matches_from([part]).map_err(failed)?;
    C::from_arg_matches(&matches).map_err(failed)
}

fn free_port() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// A port that was free a moment ago: for the one address that must be known before its owner starts.
fn reserved_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind(free_port());
    listener.and_then(|listener| listener.local_addr()).unwrap_or_else(|_| free_port())
}

/// The address under which this machine reaches a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
}
