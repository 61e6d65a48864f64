//! `rollback APP [--to N]`

use appbase_core::{AppName, ReleaseNumber};
use clap::Args;
use controller_core::v1::api::RollbackRequest;

use super::deploy::{Waiting, started};
use crate::error::{Exit, Failure};
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    app: AppName,
    /// The release to go to [default: the one that was live before]
    #[arg(long, value_name = "RELEASE")]
    to: Option<ReleaseNumber>,
    #[command(flatten)]
    waiting: Waiting,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let (app, request) = (&arguments.app, RollbackRequest { to: arguments.to });
    let limit = arguments.waiting.for_a_drain();
    let answer = session.after_drain(app, limit, async || session.start(app, "rollback", &request).await).await?;
    started(session, answer, &arguments.waiting).await
}
