//! `scale APP N` or `scale APP PROCESS=N…`

use std::time::Duration;

use appbase_core::v1::Health;
use appbase_core::{AppName, ProcessName};
use clap::Args;
use controller_core::v1::api::{AppStatus, InstanceView};
use serde_json::json;

use crate::api::operation;
use crate::error::{Exit, Failure};
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    app: AppName,
    /// A number (of process web), or PROCESS=NUMBER
    #[arg(required = true, value_parser = wanted)]
    wanted: Vec<(ProcessName, u32)>,
    /// Return once it is accepted
    #[arg(long)]
    detach: bool,
}

/// New instances are there in seconds, or something is wrong with them.
const WAIT: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let app = &arguments.app;
    session.app(app).await?;
    let one = |(process, count): &(ProcessName, u32)| {
        let params = json!({
            "environment": session.environment, "app": app, "process": process, "instances": count,
        });
        operation("app", "scale", params)
    };
    let answer = session.change(arguments.wanted.iter().map(one).collect(), false).await?;
    let words: Vec<String> = arguments.wanted.iter().map(|(process, count)| format!("{process} {count}")).collect();
    let words = words.join(", ");
    if arguments.detach {
        session.output.show(&answer, || format!("{app} is being scaled: {words}\n"))?;
        return Ok(Exit::Done);
    }
    let until = session.clock.elapsed() + WAIT;
    while !are_there(&session.app(app).await?, &arguments.wanted) {
        if session.clock.elapsed() > until {
            let message = format!("{app} is not scaled within {} s: {words}; it goes on", WAIT.as_secs());
            return Err(Failure::new(Exit::WaitTimedOut, message).hint("see", format!("platformctl status {app}")));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    session.output.show(&answer, || format!("{app} is scaled: {words}\n"))?;
    Ok(Exit::Done)
}

/// Whether exactly the wanted instances of the live release work; without one the next deployment brings them.
fn are_there(status: &AppStatus, wanted: &[(ProcessName, u32)]) -> bool {
    let Some(live) = &status.live else { return true };
    let works = |instance: &&InstanceView| match instance.health {
        Some(health) => health == Health::Up && instance.state == "active",
        None => instance.phase == "running",
    };
    wanted.iter().all(|(process, count)| {
        let of = status.instances.iter().filter(|i| i.process == *process && i.release == live.release);
        let all: Vec<_> = of.collect();
        all.len() == *count as usize && all.iter().copied().all(|instance| works(&instance))
    })
}

fn wanted(text: &str) -> Result<(ProcessName, u32), String> {
    let (process, count) = text.split_once('=').unwrap_or((ProcessName::DEFAULT, text));
    let process = ProcessName::parse(process).map_err(|error| error.to_string())?;
    let count = count.parse().map_err(|_| format!("\"{}\" is no number of instances", count.escape_debug()))?;
    Ok((process, count))
}
