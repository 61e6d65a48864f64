//! The controller as a program of its own.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "controller", version, about = "Keeps the platform the way its people want it")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: controller::Config,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (the default).
    Serve,
    /// Exit 0 when this controller is ready.
    Healthcheck,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    kit::telemetry::start(kit::telemetry::DEFAULT_FILTER);
    let outcome = match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(arguments.config).await,
        Command::Healthcheck => kit::admin::healthcheck(arguments.config.listen).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!(reason, "controller ended");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: controller::Config) -> Result<(), String> {
    let tasks = kit::Tasks::new();
    let shutdown = kit::Shutdown::on_signals().map_err(|error| error.to_string())?;
    let handle = controller::run(config, &tasks, &shutdown).await.map_err(|error| kit::problem::chain(&error))?;
    tracing::info!(address = %handle.api, "controller serves");
    shutdown.asked().await;
    let left = tasks.finish(Duration::from_secs(10)).await;
    if !left.is_empty() {
        tracing::warn!(?left, "ended although tasks still ran");
    }
    Ok(())
}
