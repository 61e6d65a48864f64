//! `route ls | test`

use clap::{Args, Subcommand};
use controller_core::v1::api::RouteView;
use serde_json::Value;

use crate::api::encode;
use crate::error::{Exit, Failure};
use crate::render::list;
use crate::session::{ANSWER_LIMIT, Session};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// All routes and the apps they belong to
    Ls,
    /// Which rule and which instances a URL would get, without sending it
    Test {
        // Not `url`: that is the controller's, everywhere.
        #[arg(value_name = "URL")]
        tested: String,
    },
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let output = session.output;
    match arguments.verb {
        Verb::Ls => {
            let routes: Vec<RouteView> = session.controller.get("/v1/routes", ANSWER_LIMIT).await?;
            output.show(&routes, || list::routes(&routes, output.width(), output.paint))?;
        }
        Verb::Test { tested } => {
            let path = format!("/v1/routes/test?url={}", encode(&tested));
            let explained: Value = session.controller.get(&path, ANSWER_LIMIT).await?;
            output.show(&explained, || list::outline(&explained, output.paint))?;
        }
    }
    Ok(Exit::Done)
}
