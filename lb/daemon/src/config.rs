//! Configuration: what the load balancer is told at start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use appbase_core::{MemberId, Prefix};
use lb_core::trace::Share;

/// How the load balancer runs.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where requests are taken.
    #[arg(long, env = "PLATFORMER_LB_HTTP", default_value = "0.0.0.0:8080")]
    pub http: SocketAddr,
    /// Where requests are taken over TLS; none: nowhere.
    #[arg(long, env = "PLATFORMER_LB_HTTPS")]
    pub https: Option<SocketAddr>,
    /// Where clients find it, where that is another port: redirects lead there. 443 is left out of them.
    #[arg(long, env = "PLATFORMER_LB_HTTPS_PUBLIC_PORT", value_name = "PORT")]
    pub https_public_port: Option<u16>,
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
    /// Proxies in front of lb, as address ranges: their connections begin with a PROXY header (version 1 or 2), which says who
    /// the client is. Those of others never do.
    #[arg(long, env = "PLATFORMER_LB_PROXIES", value_name = "RANGE", value_delimiter = ',', value_parser = range)]
    pub proxies: Vec<Prefix>,
    #[command(flatten)]
    pub access: AccessSettings,
    #[command(flatten)]
    pub trace: TraceSettings,
    #[command(flatten)]
    pub upgrade: Upgrade,
    #[arg(skip)]
    pub limits: Limits,
}

/// How a newer lb takes over from this one.
#[derive(Debug, Clone, clap::Args)]
pub struct Upgrade {
    /// Socket at which a newer lb takes over [default: handover in the data directory; without one, none].
    #[arg(long = "handover", env = "PLATFORMER_LB_HANDOVER", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// How long what is under way may take once a newer lb has taken over, in seconds.
    #[arg(long = "drain", env = "PLATFORMER_LB_DRAIN", value_name = "SECONDS", default_value_t = Upgrade::default().drain_s)]
    pub drain_s: u64,
}

impl Default for Upgrade {
    fn default() -> Self {
        Self { socket: None, drain_s: 600 }
    }
}

/// What the access log is.
#[derive(Debug, Clone, clap::Args)]
pub struct AccessSettings {
    /// Log requests in this form.
    #[arg(
        id = "access_log",
        long = "access-log",
        env = "PLATFORMER_LB_ACCESS_LOG",
        value_enum,
        value_name = "FORM",
        default_value_t
    )]
    pub form: AccessForm,
    /// Into this file, which may be moved away at any time; none: standard output.
    #[arg(
        id = "access_log_file",
        long = "access-log-file",
        env = "PLATFORMER_LB_ACCESS_LOG_FILE",
        value_name = "FILE"
    )]
    pub file: Option<PathBuf>,
    /// Of the requests that went well, so many, from 0 to 1. Those that failed are always logged.
    #[arg(
        id = "access_log_share",
        long = "access-log-share",
        env = "PLATFORMER_LB_ACCESS_LOG_SHARE",
        value_name = "SHARE",
        default_value_t = Share::ALL
    )]
    pub share: Share,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self { form: AccessForm::Off, file: None, share: Share::ALL }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AccessForm {
    /// Nothing is logged.
    #[default]
    Off,
    /// An object a line.
    Json,
    /// As Apache writes it.
    Combined,
}

/// Where traces go.
#[derive(Debug, Clone, clap::Args)]
pub struct TraceSettings {
    /// Send spans of requests to this collector (OTLP over HTTP, as http://127.0.0.1:4318).
    #[arg(id = "otlp", long = "otlp", env = "PLATFORMER_LB_OTLP", value_name = "URL")]
    pub collector: Option<String>,
    /// Of so many traces, from 0 to 1.
    #[arg(
        id = "trace_share",
        long = "trace-share",
        env = "PLATFORMER_LB_TRACE_SHARE",
        value_name = "SHARE",
        default_value_t = TraceSettings::default().share
    )]
    pub share: Share,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self { collector: None, share: Share::new(0.05).expect("it is from 0 to 1") }
    }
}

fn range(text: &str) -> Result<Prefix, String> {
    Prefix::try_from(text.to_owned())
}

/// How long lb waits for whom.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the next request on a connection.
    pub idle: Duration,
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// While either side owes the other something within a request.
    pub silence: Duration,
    /// For an instance that is in a stream.
    pub stream_silence: Duration,
    /// For another app's word on whether a request may go on.
    pub inquiry: Duration,
    /// In each such window a client that is waited for must move 1 KiB.
    pub pace_window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            idle: seconds(60),
            head: seconds(10),
            silence: seconds(60),
            stream_silence: seconds(3600),
            inquiry: seconds(10),
            pace_window: seconds(30),
        }
    }
}
