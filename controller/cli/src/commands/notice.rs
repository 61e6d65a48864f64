//! `notice APP [TEXT]`

use appbase_core::AppName;
use clap::Args;
use serde_json::json;

use crate::api::operation;
use crate::error::{Exit, Failure};
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    app: AppName,
    /// One line, told to the app with each request and to clients with each answer; without it, none any more
    text: Option<String>,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    session.app(&arguments.app).await?;
    let params = json!({ "environment": session.environment, "app": arguments.app, "text": arguments.text });
    let answer = session.change_in_force(vec![operation("app", "notice", params)]).await?;
    let says = if arguments.text.is_some() { "the notice is told" } else { "no notice" };
    session.output.show(&answer, || format!("{}: {says}\n", arguments.app))?;
    Ok(Exit::Done)
}
