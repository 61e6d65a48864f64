//! `hold on|off APP`

use appbase_core::AppName;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::api::operation;
use crate::error::{Exit, Failure};
use crate::session::Session;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    switch: Switch,
    app: AppName,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let on = arguments.switch == Switch::On;
    session.app(&arguments.app).await?;
    let params = json!({ "environment": session.environment, "app": arguments.app, "hold": on });
    let answer = session.change_in_force(vec![operation("app", "hold", params)]).await?;
    let says = if on { "requests wait" } else { "requests go on" };
    session.output.show(&answer, || format!("{}: {says}\n", arguments.app))?;
    Ok(Exit::Done)
}
