//! `plan`

use clap::Args;
use controller_core::v1::api::PlanView;

use crate::error::{Exit, Failure};
use crate::render::list;
use crate::session::{ANSWER_LIMIT, Session};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Exit with 20 when there is something to do
    #[arg(long)]
    exit_code: bool,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let view: PlanView = session.controller.get("/v1/plan", ANSWER_LIMIT).await?;
    session.output.show(&view, || list::plan(&view, session.output.paint))?;
    Ok(if arguments.exit_code && !view.steps.is_empty() { Exit::PlanHasChanges } else { Exit::Done })
}
