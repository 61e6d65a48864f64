//! Configuration: what the load balancer is told at start.

use std::net::SocketAddr;
use std::path::PathBuf;

use appbase_core::MemberId;

/// How the load balancer runs.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where requests are taken.
    #[arg(long, env = "PLATFORMER_LB_HTTP", default_value = "0.0.0.0:8080")]
    pub http: SocketAddr,
    /// Where health, metrics and route explanations are answered.
    #[arg(long, env = "PLATFORMER_LB_ADMIN", default_value = "127.0.0.1:9180")]
    pub admin: SocketAddr,
    /// Under which name it follows tables.
    #[arg(long, env = "PLATFORMER_LB_MEMBER", default_value = "lb-1")]
    pub member: MemberId,
    /// Base URL of the controller to follow.
    #[arg(long, env = "PLATFORMER_CONTROLLER", conflicts_with = "table")]
    pub controller: Option<String>,
    /// File with the token for the controller.
    #[arg(long, env = "PLATFORMER_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Directory for the copy of the table in force.
    #[arg(long, env = "PLATFORMER_LB_DATA")]
    pub data: Option<PathBuf>,
    /// Serve this table (JSON) without a controller.
    #[arg(long)]
    pub table: Option<PathBuf>,
    /// Threads that carry requests; none: one per core.
    #[arg(long, env = "PLATFORMER_LB_THREADS")]
    pub threads: Option<usize>,
    /// Log each request.
    #[arg(long, env = "PLATFORMER_LB_ACCESS_LOG")]
    pub access_log: bool,
}
