//! `scale APP N` or `scale APP PROCESS=N…`

use appbase_core::{AppName, ProcessName};
use clap::Args;
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
}

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
    session.output.show(&answer, || format!("{app} is being scaled: {}\n", words.join(", ")))?;
    Ok(Exit::Done)
}

fn wanted(text: &str) -> Result<(ProcessName, u32), String> {
    let (process, count) = text.split_once('=').unwrap_or((ProcessName::DEFAULT, text));
    let process = ProcessName::parse(process).map_err(|error| error.to_string())?;
    let count = count.parse().map_err(|_| format!("\"{}\" is no number of instances", count.escape_debug()))?;
    Ok((process, count))
}
