//! What the repository is told at start.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// A large image layer; more is a mistake more often than a need.
const BLOB_BYTES_MAX: u64 = 2 << 30;
/// Open uploads at one time, abandoned ones included: each holds a file and a row.
const UPLOADS_MAX: usize = 256;

#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Where clients reach the API
    #[arg(long, env = "PLATFORMER_REPOSITORY_LISTEN", default_value = "127.0.0.1:8082")]
    pub listen: SocketAddr,
    /// The data directory; made when it does not exist
    #[arg(long, env = "PLATFORMER_REPOSITORY_DATA", default_value = "data/repository")]
    pub data: PathBuf,
    /// Where /livez, /readyz and /metrics are
    #[arg(long, env = "PLATFORMER_REPOSITORY_ADMIN", default_value = "127.0.0.1:9182")]
    pub admin: SocketAddr,
    /// The cluster.json that `platformer init` made: whose tokens to believe. Without it everybody may do everything, on
    /// loopback only
    #[arg(long, env = "PLATFORMER_TRUST_FILE")]
    pub trust_file: Option<PathBuf>,
    /// Largest blob that is accepted
    #[arg(long, env = "PLATFORMER_REPOSITORY_BLOB_BYTES_MAX", default_value_t = BLOB_BYTES_MAX)]
    pub blob_bytes_max: u64,
    /// Most uploads that may be open at one time
    #[arg(long, env = "PLATFORMER_REPOSITORY_UPLOADS_MAX", default_value_t = UPLOADS_MAX)]
    pub uploads_max: usize,
}

impl Config {
    /// The defaults, on `data`, at ports that the system chooses.
    pub fn on_free_ports(data: PathBuf) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: any,
            data,
            admin: any,
            trust_file: None,
            blob_bytes_max: BLOB_BYTES_MAX,
            uploads_max: UPLOADS_MAX,
        }
    }
}
