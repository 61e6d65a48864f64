//! `maintenance on|off APP`

use appbase_core::AppName;
use clap::Args;
use serde_json::json;

use super::hold::Switch;
use crate::api::operation;
use crate::error::{Exit, Failure};
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    switch: Switch,
    app: AppName,
    /// What people read meanwhile
    #[arg(long, default_value = "This site is being worked on and will be back soon.")]
    message: String,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let on = arguments.switch == Switch::On;
    session.app(&arguments.app).await?;
    let message = on.then_some(&arguments.message);
    let params = json!({ "environment": session.environment, "app": arguments.app, "message": message });
    let answer = session.change_in_force(vec![operation("app", "maintenance", params)]).await?;
    let says = if on { "answers 503 with the message" } else { "answers again" };
    session.output.show(&answer, || format!("{} {says}\n", arguments.app))?;
    Ok(Exit::Done)
}
