//! Configuration: flag > environment variable > default.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use appbase_core::ServerName;
use clap::{Args, ValueEnum};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Instances are processes of this machine; artifacts only.
    Process,
    /// Instances are containers of the Docker Engine.
    Docker,
}

#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Address of the API.
    #[arg(long = "controller-listen", env = "PLATFORMER_CONTROLLER_LISTEN", default_value = "127.0.0.1:8081")]
    pub listen: SocketAddr,
    /// Directory of the controller's state.
    #[arg(long = "controller-data", env = "PLATFORMER_CONTROLLER_DATA", default_value = "data/controller")]
    pub data: PathBuf,
    #[arg(long, env = "PLATFORMER_CONTROLLER_ENGINE", default_value = "process")]
    pub engine: Engine,
    /// The key directory that `platformer init` made. Without it nobody is asked who they are, on loopback only.
    #[arg(long, env = "PLATFORMER_KEYS")]
    pub keys: Option<PathBuf>,
    /// Where the controller and the instances reach the repository.
    #[arg(
        long = "controller-repository",
        env = "PLATFORMER_CONTROLLER_REPOSITORY",
        default_value = "http://127.0.0.1:8082"
    )]
    pub repository: String,
    /// Where instances reach the repository, when that is another address.
    #[arg(long, env = "PLATFORMER_CONTROLLER_INSTANCE_REPOSITORY")]
    pub instance_repository: Option<String>,
    /// Where people reach the repository, when that is another address.
    #[arg(long, env = "PLATFORMER_CONTROLLER_PUBLIC_REPOSITORY")]
    pub public_repository: Option<String>,
    /// Where people reach dns and lb, for display and for `platformctl dns dig`.
    #[arg(long, env = "PLATFORMER_CONTROLLER_PUBLIC_DNS", default_value = "127.0.0.1:1053")]
    pub public_dns: String,
    #[arg(long, env = "PLATFORMER_CONTROLLER_PUBLIC_LB", default_value = "http://127.0.0.1:8080")]
    pub public_lb: String,
    /// lb's admin address, asked by `platformctl route test`.
    #[arg(long, env = "PLATFORMER_CONTROLLER_LB_ADMIN", default_value = "http://127.0.0.1:9180")]
    pub lb_admin: String,
    /// The platform's domain.
    #[arg(long, env = "PLATFORMER_DOMAIN", default_value = "platform", value_parser = domain)]
    pub domain: String,
    /// How long a name may be remembered by those who asked, in milliseconds.
    #[arg(long, env = "PLATFORMER_NAME_TTL_MS", default_value_t = 5_000)]
    pub name_ttl_ms: u64,
    /// How long new instances must be up before traffic moves, unless the app says otherwise, in milliseconds.
    #[arg(long, env = "PLATFORMER_SETTLE_MS", default_value_t = 2_000)]
    pub settle_ms: u64,
    /// Between two probes of one instance, unless the app says otherwise, in milliseconds.
    #[arg(long, env = "PLATFORMER_PROBE_INTERVAL_MS", default_value_t = 1_000)]
    pub probe_interval_ms: u64,
    /// Name of this server.
    #[arg(long, env = "PLATFORMER_SERVER", default_value = "server-1", value_parser = parse_server)]
    pub server: ServerName,
    /// The boot program, for the process engine; beside this program unless given.
    #[arg(long, env = "PLATFORMER_BOOT")]
    pub boot: Option<PathBuf>,
    /// The Docker Engine's socket.
    #[arg(long, env = "PLATFORMER_DOCKER_SOCKET", default_value = "/var/run/docker.sock")]
    pub docker_socket: PathBuf,
    /// The platform's name on the Docker Engine: first word of all that it makes there. Its compose project unless given.
    #[arg(long, env = "PLATFORMER_PROJECT")]
    pub project: Option<String>,
    /// The image that artifacts run in on Docker; the one of this release unless given.
    #[arg(long, env = "PLATFORMER_BASE_IMAGE")]
    pub base_image: Option<String>,
    /// The cluster's address range (a /16) on Docker.
    #[arg(long, env = "PLATFORMER_RANGE", default_value = "10.210.0.0/16")]
    pub range: String,
    /// Address under which every asker on this machine reaches lb by name (process engine).
    #[arg(long, env = "PLATFORMER_PUBLIC_ADDRESS", default_value = "127.0.0.1")]
    pub public_address: IpAddr,
    /// The ACME authority that is asked for certificates: its directory's URL. To set it is to agree to its terms of
    /// service. None: nobody is asked.
    #[arg(long, env = "PLATFORMER_ACME_DIRECTORY")]
    pub acme_directory: Option<String>,
    /// Whom the authority may write to.
    #[arg(long, env = "PLATFORMER_ACME_EMAIL")]
    pub acme_email: Option<String>,
    /// How it is shown to the authority that a host is ours: it asks at port 80 (http-01) or at port 443 (tls-alpn-01).
    #[arg(long, env = "PLATFORMER_ACME_CHALLENGE", default_value = "http-01", value_parser = ["http-01", "tls-alpn-01"])]
    pub acme_challenge: String,
    /// Domains in which the platform's dns answers the world for `_acme-challenge`, with commas between them: hosts in
    /// them are shown to be ours by records (dns-01), wildcards as well.
    #[arg(long, env = "PLATFORMER_ACME_DNS", value_delimiter = ',')]
    pub acme_dns: Vec<String>,
    /// Roots (PEM) that the authority's own server is trusted by, beside those of the world.
    #[arg(long, env = "PLATFORMER_ACME_CA_FILE")]
    pub acme_ca_file: Option<PathBuf>,
}

impl Config {
    /// First address of the range; the engine refuses a range that is none.
    pub fn range_base(&self) -> Ipv4Addr {
        let base = self.range.split('/').next().and_then(|base| base.parse().ok());
        base.unwrap_or(Ipv4Addr::new(10, 210, 0, 0))
    }

    pub fn name_ttl(&self) -> Duration {
        Duration::from_millis(self.name_ttl_ms)
    }
}

fn parse_server(text: &str) -> Result<ServerName, String> {
    ServerName::parse(text).map_err(|error| error.to_string())
}

/// Names hang below it, and the local authority signs for it: exactly one name, in small letters.
fn domain(text: &str) -> Result<String, String> {
    let domain = text.to_ascii_lowercase();
    if domain.starts_with('*') {
        return Err("a domain has no wildcard".to_owned());
    }
    controller_core::app_file::check_host(&domain).map(|()| domain)
}
