//! The controller as a program of its own.

use std::path::PathBuf;
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
    /// Print a token of the owner, good for five minutes: who can run this is the owner
    OwnerToken,
    /// Make an older state that was put back the one that lbs and dns follow. The controller must not run.
    RaiseEpoch,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    kit::telemetry::start(kit::telemetry::DEFAULT_FILTER);
    let outcome = match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(arguments.config).await,
        Command::OwnerToken => owner_token(arguments.config.keys),
        Command::RaiseEpoch => raise_epoch(&arguments.config.data).await,
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

/// Long enough to log in with it.
const OWNER_TOKEN_LIFE_S: u64 = 300;

#[expect(clippy::print_stdout, reason = "the token is the data of this command")]
fn owner_token(keys: Option<PathBuf>) -> Result<(), String> {
    let keys = keys.ok_or("where are the keys? give --keys DIR")?;
    let signer = kit::keys::KeyDirectory::new(keys).signer().map_err(|error| kit::problem::chain(&error))?;
    println!("{}", signer.owner_token(&kit::Clock::start(), OWNER_TOKEN_LIFE_S));
    Ok(())
}

async fn raise_epoch(data: &std::path::Path) -> Result<(), String> {
    let epoch = controller::raise_epoch(data).await.map_err(|error| kit::problem::chain(&error))?;
    tracing::info!(epoch, "members follow this state once the controller runs again");
    Ok(())
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
