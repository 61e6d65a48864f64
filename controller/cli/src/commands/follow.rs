//! `follow DEPLOYMENT|APP`

use clap::Args;

use super::cancel::which;
use crate::error::{Exit, Failure};
use crate::follow::{WAIT_DEFAULT, follow};
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A deployment's id, or the app whose running deployment is meant
    #[arg(value_name = "DEPLOYMENT|APP")]
    which: String,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let id = which(session, &arguments.which).await?;
    let deployment = session.deployment(&id).await?;
    follow(session, deployment, WAIT_DEFAULT).await
}
