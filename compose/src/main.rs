//! `platformer`: the whole platform as one program.

use std::os::unix::fs::PermissionsExt;
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
    /// Make the cluster's identity, once: the file `cluster` in the data directory
    Init {
        #[arg(long = "data", default_value = "data")]
        directory: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    kit::telemetry::start(kit::telemetry::DEFAULT_FILTER);
    let outcome = match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(&arguments.config).await,
        Command::Healthcheck => kit::admin::healthcheck(arguments.config.api).await,
        Command::Init { directory } => init(&directory),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!(reason, "platformer ended");
            ExitCode::FAILURE
        }
    }
}

/// Harmless twice: an identity that is there stays.
fn init(directory: &Path) -> Result<(), String> {
    let path = directory.join("cluster");
    if path.exists() {
        tracing::info!(path = %path.display(), "the cluster has its identity already");
        return Ok(());
    }
    std::fs::create_dir_all(directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    let id = controller::new_cluster_id();
    kit::durable::replace(&path, format!("{id}\n").as_bytes()).map_err(|error| kit::problem::chain(&error))?;
    // The controller runs as another user of the same group.
    let readable = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(&path, readable).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    tracing::info!(%id, path = %path.display(), "a new cluster");
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
