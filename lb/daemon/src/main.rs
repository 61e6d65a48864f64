//! `lb`: serves, or asks itself whether it is ready.
//!
//! SIGUSR2 starts the program anew, which takes over: after the file was replaced, that is an upgrade.

mod service;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use kit::{Shutdown, Tasks};
use lb::Config;

/// The platform's load balancer.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: Config,
}

#[derive(Subcommand)]
enum Command {
    /// Take requests (the default).
    Serve(Box<Config>),
    /// Do nothing until stopped. A container of it owns the network and the published ports that lbs share which take over
    /// from one another.
    Edge,
    /// Exit 0 when ready, 1 otherwise.
    Healthcheck(Healthcheck),
}

#[derive(Args)]
struct Healthcheck {
    #[arg(long, env = "PLATFORMER_LB_ADMIN", default_value = "127.0.0.1:9180")]
    admin: std::net::SocketAddr,
}

/// Within the data directory.
const HANDOVER: &str = "handover";
/// Above what the data threads take for what is in flight.
const FINISH_LIMIT: Duration = Duration::from_secs(12);

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    kit::telemetry::start(kit::telemetry::DEFAULT_FILTER);
    let outcome = match cli.command {
        Some(Command::Healthcheck(check)) => kit::admin::healthcheck(check.admin).await,
        Some(Command::Edge) => edge().await,
        Some(Command::Serve(config)) => serve(*config).await,
        None => serve(cli.config).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!(reason, "lb ends");
            ExitCode::FAILURE
        }
    }
}

async fn edge() -> Result<(), String> {
    Shutdown::on_signals().map_err(|error| error.to_string())?.asked().await;
    Ok(())
}

async fn serve(mut config: Config) -> Result<(), String> {
    let tasks = Tasks::new();
    if let (None, Some(data)) = (&config.upgrade.socket, &config.data) {
        config.upgrade.socket = Some(data.join(HANDOVER));
    }
    // Tasks that wait for signals never end, so they are not among those that are waited for.
    service::renew_on_signal(&Tasks::new()).map_err(|error| error.to_string())?;
    let shutdown = Shutdown::on_signals().map_err(|error| error.to_string())?;
    lb::run(config, &tasks, &shutdown).await.map_err(|error| kit::problem::chain(&error))?;
    service::tell_ready();
    shutdown.asked().await;
    let running = tasks.finish(FINISH_LIMIT).await;
    tracing::info!(running = running.join(", "), "stopped");
    Ok(())
}
