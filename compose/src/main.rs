//! `platformer`: the whole platform as one program.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "platformer", version, about = "The whole platform in one process, instances as processes")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: platformer::Config,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (the default).
    Serve,
    /// Exit 0 when the platform is ready.
    Healthcheck,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    kit::telemetry::start(kit::telemetry::DEFAULT_FILTER);
    let outcome = match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(&arguments.config).await,
        Command::Healthcheck => kit::admin::healthcheck(arguments.config.api).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!(reason, "platformer ended");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: &platformer::Config) -> Result<(), String> {
    let tasks = kit::Tasks::new();
    let shutdown = kit::Shutdown::on_signals().map_err(|error| error.to_string())?;
    let handle = platformer::run(config, &tasks, &shutdown).await.map_err(|error| kit::problem::chain(&error))?;
    tracing::info!(http = %handle.http, dns = %handle.dns, api = %handle.api, repository = %handle.repository, "platform serves");
    shutdown.asked().await;
    let left = tasks.finish(Duration::from_secs(12)).await;
    if !left.is_empty() {
        tracing::warn!(?left, "ended although tasks still ran");
    }
    Ok(())
}
