//! platformctl: the platform from a terminal. One verb is one file in `commands/`; what it prints is made by pure
//! functions in `render/`.
//!
//! Owns: arguments, exit codes, what people read. Refuses: decisions. What happens is the controller's business.

mod api;
mod args;
mod commands;
mod context;
mod error;
mod follow;
mod output;
mod pack;
mod push;
mod rates;
mod render;
mod safe;
mod session;
mod sse;
mod trust;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let output = output::Output::new(cli.global.color, cli.global.json);
    let exit = match commands::run(cli, &output).await {
        Ok(exit) => exit,
        Err(failure) => {
            output.failure(&failure);
            failure.exit
        }
    };
    exit.into()
}
