//! What people type.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

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
    /// The cluster's key directory, as its owner: instead of a token
    #[arg(
        long,
        global = true,
        env = "PLATFORM_KEYS",
        hide_env_values = true,
        value_name = "DIR",
        conflicts_with = "token_file"
    )]
    pub(crate) keys: Option<PathBuf>,
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

/// `30s`, `10m`, `1h`, `7d`; a number alone is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{}\" is no time: use 30s, 10m, 1h or 7d", text.escape_debug());
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "" | "s" => number,
        "m" => number.saturating_mul(60),
        "h" => number.saturating_mul(3600),
        "d" => number.saturating_mul(86_400),
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(seconds))
}

/// `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair(pub(crate) String, pub(crate) String);

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self(name.to_owned(), value.to_owned())),
            _ => Err("write it as NAME=VALUE".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    /// One argument that has the id of a global one is found by clap only when it is used.
    #[test]
    fn no_argument_is_called_like_one_that_is_everywhere() {
        fn check(command: &clap::Command, global: &[String], path: &str) {
            let path = format!("{path} {}", command.get_name());
            for argument in command.get_arguments() {
                assert!(!global.contains(&argument.get_id().to_string()), "{path}: {}", argument.get_id());
            }
            command.get_subcommands().for_each(|inner| check(inner, global, &path));
        }
        let command = Cli::command();
        let global = command.get_arguments().filter(|argument| argument.is_global_set());
        let global: Vec<String> = global.map(|argument| argument.get_id().to_string()).collect();
        assert!(global.contains(&"keys".to_owned()));
        command.get_subcommands().for_each(|inner| check(inner, &global, "platformctl"));
    }

    #[test]
    fn times_are_read() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for bad in ["", "m", "1w", "-1s", "1.5h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
