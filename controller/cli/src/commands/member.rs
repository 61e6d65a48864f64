//! `member ls | forget`

use appbase_core::MemberId;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use crate::error::{Exit, Failure};
use crate::render::status::member_table;
use crate::session::{ANSWER_LIMIT, Session};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Members and which table each has in force
    Ls,
    /// Stop counting on a member that will not come back
    Forget { member: MemberId },
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let output = session.output;
    match arguments.verb {
        Verb::Ls => {
            let status = session.platform().await?;
            output.show(&status.members, || member_table(&status, output.width(), output.paint))?;
        }
        Verb::Forget { member } => {
            let request = session.controller.request(Method::DELETE, &format!("/v1/members/{member}"));
            let response = session.controller.send(request.timeout(ANSWER_LIMIT)).await?;
            let answer: Value = session.controller.json(response).await?;
            output.show(&answer, || format!("{member} is forgotten\n"))?;
        }
    }
    Ok(Exit::Done)
}
