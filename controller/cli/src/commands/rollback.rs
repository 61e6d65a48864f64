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
    let answer = session.start(&arguments.app, "rollback", &RollbackRequest { to: arguments.to }).await?;
    started(session, answer, &arguments.waiting).await
}
