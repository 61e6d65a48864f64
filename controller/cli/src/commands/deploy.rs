//! `deploy APP VERSION`

use std::time::Duration;

use appbase_core::{AppName, Version};
use clap::Args;
use controller_core::v1::api::{DeployAnswer, DeployRequest};

use crate::error::{Exit, Failure};
use crate::follow::{WAIT_DEFAULT, follow};
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    app: AppName,
    version: Version,
    /// End a running deployment of another version first
    #[arg(long)]
    supersede: bool,
    #[command(flatten)]
    pub(super) waiting: Waiting,
}

/// How a command waits for what it started.
#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// Return once it is accepted
    #[arg(long)]
    detach: bool,
    /// Stop waiting after this time (`90s`, `10m`); the deployment goes on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let request = DeployRequest { version: arguments.version, supersede: arguments.supersede };
    let answer = session.start(&arguments.app, "deployments", &request).await?;
    started(session, answer, &arguments.waiting).await
}

/// What follows an accepted deployment, whichever verb asked for it.
pub(super) async fn started(session: &Session<'_>, answer: DeployAnswer, waiting: &Waiting) -> Result<Exit, Failure> {
    let Some(deployment) = answer.deployment.clone() else {
        let text = || format!("{} (release {}) is live already\n", answer.version, answer.release);
        session.output.show(&answer, text)?;
        return Ok(Exit::Done);
    };
    if answer.outcome == "joined" && !session.output.json {
        session.output.talk(&format!("{} is running already: following it", deployment.id));
    }
    if waiting.detach {
        let id = deployment.id.clone();
        session.output.show(&answer, || format!("{id}\n"))?;
        session.output.hint("follow", &format!("platformctl follow {id}"));
        return Ok(Exit::Done);
    }
    follow(session, deployment, waiting.wait.unwrap_or(WAIT_DEFAULT)).await
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{}\" is no time: use 30s, 10m or 1h", text.escape_debug());
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "" | "s" => number,
        "m" => number.saturating_mul(60),
        "h" => number.saturating_mul(3600),
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        for bad in ["", "m", "1d", "-1s", "1.5h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
