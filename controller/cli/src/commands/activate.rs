//! `activate APP`

use appbase_core::AppName;
use clap::Args;

use super::deploy::{Waiting, started};
use crate::error::{Exit, Failure};
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    app: AppName,
    #[command(flatten)]
    waiting: Waiting,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let (app, limit) = (&arguments.app, arguments.waiting.for_a_drain());
    let answer = session.after_drain(app, limit, async || session.start(app, "activate", &()).await).await?;
    started(session, answer, &arguments.waiting).await
}
