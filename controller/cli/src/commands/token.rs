//! `token create | ls | revoke`

use std::time::Duration;

use clap::{Args, Subcommand};
use controller_core::v1::api::{TokenAnswer, TokenRequest, TokenView};
use reqwest::Method;
use serde_json::Value;

use crate::args::duration;
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
    /// Make one, for a person or a pipeline; it is shown this once
    Create {
        /// Who will use it
        name: String,
        /// It may look and pull, not change or push
        #[arg(long)]
        read_only: bool,
        /// When it ends (`12h`, `30d`; 365d at most) [default: 30d]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        life: Option<Duration>,
    },
    /// Whose tokens there are
    Ls,
    /// Take one back at once
    Revoke { id: String },
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    let (output, controller) = (session.output, &session.controller);
    match arguments.verb {
        Verb::Create { name, read_only, life } => {
            let request = TokenRequest { name, read_only, life_s: life.map(|life| life.as_secs()) };
            let made: TokenAnswer = controller.call(Method::POST, "/v1/tokens", &request, ANSWER_LIMIT).await?;
            output.show(&made, || format!("{}\n", made.token))?;
            output.hint("keep it", "it is shown this once; a file for --token-file is a good place");
            output.hint("take it back", &format!("platformctl token revoke {}", made.view.id));
        }
        Verb::Ls => {
            let tokens: Vec<TokenView> = controller.get("/v1/tokens", ANSWER_LIMIT).await?;
            output.show(&tokens, || list::tokens(&tokens, session.clock.unix_ms(), output.width(), output.paint))?;
        }
        Verb::Revoke { id } => {
            let request = controller.request(Method::DELETE, &format!("/v1/tokens/{}", crate::api::encode(&id)));
            let response = controller.send(request.timeout(ANSWER_LIMIT)).await?;
            let answer: Value = controller.json(response).await?;
            output.show(&answer, || format!("token {id} is revoked\n"))?;
        }
    }
    Ok(Exit::Done)
}
