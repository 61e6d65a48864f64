//! `logs APP`

use appbase_core::{AppName, InstanceId};
use clap::Args;
use futures_util::StreamExt;
use reqwest::Method;

use crate::error::{Exit, Failure};
use crate::render::event::log_line;
use crate::session::Session;

/// A line longer than this is cut into several.
const LINE_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    app: AppName,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines of each instance
    #[arg(short = 'n', long, default_value_t = 100)]
    tail: usize,
    /// Only this instance
    #[arg(long)]
    instance: Option<InstanceId>,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let only = arguments.instance.map_or_else(String::new, |instance| format!("&instance={instance}"));
    let path = session.in_environment(&format!("/v1/apps/{}/logs", arguments.app));
    let path = format!("{path}&tail={}&follow={}{only}", arguments.tail, arguments.follow);
    let response = session.controller.send(session.controller.request(Method::GET, &path)).await?;
    let mut body = response.bytes_stream();
    let mut rest = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| Failure::new(Exit::Unreachable, format!("the logs broke off: {error}")))?;
        for byte in chunk {
            if byte == b'\n' || rest.len() >= LINE_BYTES_MAX {
                print(session, &rest)?;
                rest.clear();
            }
            if byte != b'\n' {
                rest.push(byte);
            }
        }
    }
    if !rest.is_empty() {
        print(session, &rest)?;
    }
    Ok(Exit::Done)
}

fn print(session: &Session<'_>, line: &[u8]) -> Result<(), Failure> {
    let line = String::from_utf8_lossy(line);
    if session.output.json {
        let (instance, text) = line.split_once(" | ").unwrap_or(("", &line));
        return session.output.record(&serde_json::json!({ "instance": instance, "line": text }));
    }
    session.output.line(&log_line(&line, session.output.paint))
}
