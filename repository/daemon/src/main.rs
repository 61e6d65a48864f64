//! The repository as a program of its own.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use kit::problem::chain;
use kit::{Shutdown, Tasks};
use repository::Config;

/// How long uploads and downloads in flight may go on after the signal.
const FINISH_LIMIT: Duration = Duration::from_secs(30);

/// Keeps artifacts, images and releases
#[derive(Debug, Parser)]
#[command(name = "repository", version)]
struct Cli {
    #[command(flatten)]
    config: Config,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until asked to stop (the default)
    Serve,
    /// Ask the running repository whether it is ready: exit 0 or 1
    Healthcheck,
    /// Read every stored byte again and report what is not as it was pushed: exit 0 or 1
    Fsck,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    kit::telemetry::start(kit::telemetry::DEFAULT_FILTER);
    let outcome = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(cli.config).await,
        Command::Healthcheck => kit::admin::healthcheck(cli.config.admin).await,
        Command::Fsck => fsck(&cli.config),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!("{reason}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> Result<(), String> {
    let shutdown = Shutdown::on_signals().map_err(|error| chain(&error))?;
    let tasks = Tasks::new();
    let handle = repository::run(config, &tasks, &shutdown).await.map_err(|error| chain(&error))?;
    tracing::info!(address = %handle.address, admin = %handle.admin, "serving");
    shutdown.asked().await;
    handle.finished(FINISH_LIMIT).await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the report is the data of this command")]
fn fsck(config: &Config) -> Result<(), String> {
    let report = repository::fsck::check(&config.data).map_err(|error| chain(&error))?;
    print!("{report}");
    if report.is_sound() { Ok(()) } else { Err(format!("{} problems found", report.problems.len())) }
}
