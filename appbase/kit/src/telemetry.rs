//! Telemetry: what a daemon says while it runs, on stderr.

use tracing_subscriber::EnvFilter;

/// Log lines on stderr: text on a terminal, JSON otherwise; `filter` as in `RUST_LOG`, which wins when set.
/// Harmless when called twice.
pub fn start(filter: &str) {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _ = if terminal {
        builder.with_ansi(std::env::var_os("NO_COLOR").is_none()).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    };
}

/// What daemons log unless told otherwise: their own words, and of their libraries only warnings.
pub const DEFAULT_FILTER: &str = "info,hyper=warn,hickory_proto=warn";
