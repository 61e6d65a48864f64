//! `dns`: the name server as a program of its own.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use dns::Config;
use kit::{Shutdown, Tasks};

/// How long what is in flight may take after a signal: forwarded questions live 4 s.
const FINISH_LIMIT: Duration = Duration::from_secs(6);

/// Name server of the platform.
#[derive(Parser)]
#[command(name = "dns", version, args_conflicts_with_subcommands = true)]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: Config,
}

#[derive(Subcommand)]
enum Command {
    /// Answer questions (what happens without a command).
    Serve(Box<Config>),
    /// Exit with 0 when the server on this machine can answer, with 1 otherwise.
    Healthcheck {
        #[arg(long, env = "PLATFORMER_DNS_ADMIN", default_value_t = dns::ADMIN)]
        admin: SocketAddr,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let line = Line::parse();
    kit::telemetry::start(kit::telemetry::DEFAULT_FILTER);
    let config = match line.command {
        None => line.config,
        Some(Command::Serve(config)) => *config,
        Some(Command::Healthcheck { admin }) => {
            return match kit::admin::healthcheck(admin).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(reason) => {
                    tracing::error!(reason, "not healthy");
                    ExitCode::FAILURE
                }
            };
        }
    };
    match serve(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %kit::problem::chain(error.as_ref()), "cannot serve");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let tasks = Tasks::new();
    // The task that waits for signals never ends and is not waited for.
    let shutdown = Shutdown::on_signals()?;
    dns::run(config, &tasks, &shutdown).await?;
    shutdown.asked().await;
    let left = tasks.finish(FINISH_LIMIT).await;
    if !left.is_empty() {
        tracing::warn!(tasks = ?left, "ended with work in flight");
    }
    Ok(())
}
