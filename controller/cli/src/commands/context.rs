//! `context ls | add | use | rm`

use clap::{Args, Subcommand};

use crate::args::Global;
use crate::context::{self, Context};
use crate::error::{Exit, Failure};
use crate::output::Output;
use crate::render::list;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Known controllers
    #[command(alias = "list")]
    Ls,
    /// Keep the controller named by --url (and --token-file) under a name, and use it
    Add { name: String },
    /// Use a known controller from now on
    Use { name: String },
    /// Forget a controller and the token for it; with --url only if it is that one
    Rm { name: String },
}

pub(crate) fn run(arguments: Arguments, global: &Global, output: &Output) -> Result<Exit, Failure> {
    let home = context::home_or_failure()?;
    match arguments.verb {
        Verb::Ls => {
            let (all, current) = (context::all(&home)?, context::current(&home)?);
            // Tokens are shown to nobody.
            let shown: Vec<_> =
                all.iter().map(|context| serde_json::json!({ "name": context.name, "url": context.url })).collect();
            output.show(&shown, || list::contexts(&all, current.as_ref(), output.width(), output.paint))?;
        }
        Verb::Add { name } => {
            let Some(url) = global.url.clone() else {
                return Err(Failure::new(Exit::Usage, "which controller? give --url"));
            };
            let token = global.token_file.as_deref().map(context::token_of).transpose()?;
            context::add(&home, &name, Context { name: None, url, token })?;
            output.talk(&format!("using {name}"));
        }
        Verb::Use { name } => {
            let chosen = context::choose(&home, &name)?;
            output.talk(&format!("using {name} ({})", chosen.url));
        }
        Verb::Rm { name } => {
            let gone = context::remove(&home, &name, global.url.as_deref())?;
            output.talk(&format!("forgot {name} ({})", gone.url));
        }
    }
    Ok(Exit::Done)
}
