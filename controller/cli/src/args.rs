//! What people type.

use std::path::PathBuf;

use appbase_core::EnvironmentName;
use clap::{Args, Parser, ValueEnum};

use crate::commands::Command;

/// Push a version, deploy it without losing a request, watch it, roll back.
///
/// Examples:
///   platformctl artifact push hello-world 2 ./build
///   platformctl deploy hello-world 2
///   platformctl status hello-world
///   platformctl rollback hello-world
#[derive(Debug, Parser)]
#[command(name = "platformctl", version, verbatim_doc_comment, disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// The controller [default: the current context, else http://127.0.0.1:8081]
    #[arg(long, global = true, env = "PLATFORM_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The repository [default: what the controller names]
    #[arg(long, global = true, env = "PLATFORM_REPOSITORY", hide_env_values = true, value_name = "URL")]
    pub(crate) repository: Option<String>,
    /// A file that holds the token [default: the token of the current context]
    #[arg(long, global = true, env = "PLATFORM_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The environment [default: production]
    #[arg(short, long, global = true, env = "PLATFORM_ENVIRONMENT", hide_env_values = true, value_name = "NAME")]
    pub(crate) environment: Option<EnvironmentName>,
    /// Print JSON; streams print one document a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Colour; NO_COLOR is honoured
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_default_value = true)]
    pub(crate) color: Color,
}

impl Global {
    pub(crate) fn environment(&self) -> EnvironmentName {
        self.environment.clone().unwrap_or_else(EnvironmentName::default_name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
