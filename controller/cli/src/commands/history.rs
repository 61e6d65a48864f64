//! `history APP`

use appbase_core::AppName;
use clap::Args;
use controller_core::v1::api::DeploymentView;

use crate::error::{Exit, Failure};
use crate::render::deployment;
use crate::session::{ANSWER_LIMIT, Session};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    app: AppName,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let path = session.in_environment(&format!("/v1/apps/{}/history", arguments.app));
    let history: Vec<DeploymentView> = session.controller.get(&path, ANSWER_LIMIT).await?;
    let output = session.output;
    output.show(&history, || deployment::history(&history, output.width(), output.paint))?;
    Ok(Exit::Done)
}
