//! `platformer`: the whole platform as one program.

use std::path::{Path, PathBuf};
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
    /// Exit 0 when the platform is alive.
    Healthcheck,
    /// Make an older state that was put back the one that lbs and dns follow. The platform must not run.
    RaiseEpoch,
    /// Make the cluster's keys, once: cluster.json, controller.key, and a token for each kind of member
    Init {
        /// The directory for them [default: keys below the data directory]
        #[arg(long, value_name = "DIR")]
        keys: Option<PathBuf>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    kit::telemetry::start(kit::telemetry::DEFAULT_FILTER);
    let outcome = match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(&arguments.config).await,
        Command::Healthcheck => kit::admin::healthcheck(arguments.config.api).await,
        Command::RaiseEpoch => raise_epoch(&arguments.config.data.join("controller")).await,
        Command::Init { keys } => init(&keys.unwrap_or_else(|| arguments.config.data.join("keys"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!(reason, "platformer ended");
            ExitCode::FAILURE
        }
    }
}

/// Harmless twice: keys that are there stay.
fn init(directory: &Path) -> Result<(), String> {
    match platformer::make_keys(directory).map_err(|error| kit::problem::chain(&error))? {
        true => tracing::info!(directory = %directory.display(), "a new cluster has its keys"),
        false => tracing::info!(directory = %directory.display(), "the cluster has its keys already"),
    }
    Ok(())
}

async fn raise_epoch(data: &Path) -> Result<(), String> {
    let epoch = controller::raise_epoch(data).await.map_err(|error| kit::problem::chain(&error))?;
    tracing::info!(epoch, "members follow this state once the platform runs again");
    Ok(())
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
