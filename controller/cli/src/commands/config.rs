//! `config get | set | unset`

use appbase_core::AppName;
use clap::{Args, Subcommand};
use controller_core::v1::state::Operation;
use serde_json::json;

use crate::api::operation;
use crate::error::{Exit, Failure};
use crate::follow::{WAIT_DEFAULT, follow};
use crate::render::list::{ConfigValue, values};
use crate::session::{ANSWER_LIMIT, Session};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Values and where each comes from
    Get { app: AppName, key: Option<String> },
    /// Set values; the live version is deployed with them
    Set {
        app: AppName,
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = pair)]
        values: Vec<(String, String)>,
        /// Only with the next deployment
        #[arg(long)]
        later: bool,
    },
    /// Take values back to those of the app file
    Unset {
        app: AppName,
        // Not `keys`: that is the cluster's, everywhere.
        #[arg(required = true, value_name = "KEY")]
        names: Vec<String>,
        /// Only with the next deployment
        #[arg(long)]
        later: bool,
    },
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.verb {
        Verb::Get { app, key } => get(session, &app, key.as_deref()).await,
        Verb::Set { app, values, later } => {
            let one = |(key, value): &(String, String)| {
                let params = json!({ "environment": session.environment, "app": app, "key": key, "value": value });
                operation("config", "set", params)
            };
            change(session, &app, values.iter().map(one).collect(), later).await
        }
        Verb::Unset { app, names, later } => {
            let one = |key: &String| {
                operation("config", "unset", json!({ "environment": session.environment, "app": app, "key": key }))
            };
            change(session, &app, names.iter().map(one).collect(), later).await
        }
    }
}

async fn get(session: &Session<'_>, app: &AppName, key: Option<&str>) -> Result<Exit, Failure> {
    let path = session.in_environment(&format!("/v1/apps/{app}/config"));
    let all: Vec<ConfigValue> = session.controller.get(&path, ANSWER_LIMIT).await?;
    let output = session.output;
    let Some(key) = key else {
        output.show(&all, || values(&all, output.width(), output.paint))?;
        return Ok(Exit::Done);
    };
    let Some(found) = all.iter().find(|value| value.key == key) else {
        return Err(Failure::new(Exit::NotFound, format!("{app} has no value {key}"))
            .hint("try", format!("platformctl config get {app}")));
    };
    output.show(found, || format!("{}\n", found.value.as_deref().unwrap_or("***")))?;
    Ok(Exit::Done)
}

/// One change set of an app, and the deployment that puts it in force.
pub(super) async fn change(
    session: &Session<'_>,
    app: &AppName,
    operations: Vec<Operation>,
    later: bool,
) -> Result<Exit, Failure> {
    let send = async || session.change(operations.clone(), !later).await;
    let answer = session.after_drain(app, WAIT_DEFAULT, send).await?;
    match answer.deployment.clone() {
        Some(deployment) => follow(session, deployment, WAIT_DEFAULT).await,
        None => {
            let when = if later { "in force with the next deployment" } else { "nothing to deploy" };
            session.output.show(&answer, || format!("{app}: change set {}, {when}\n", answer.number))?;
            Ok(Exit::Done)
        }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("\"{}\" is not KEY=VALUE", text.escape_debug()))?;
    Ok((key.to_owned(), value.to_owned()))
}
