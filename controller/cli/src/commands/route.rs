//! `route ls | test | add | rm`

use std::str::FromStr;

use appbase_core::{AppName, ProcessName};
use clap::{Args, Subcommand};
use controller_core::v1::api::RouteView;
use controller_core::v1::state::Operation;
use serde_json::{Value, json};

use super::config::change;
use crate::api::{encode, operation};
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
    #[command(alias = "list")]
    Ls {
        /// Only those of one app
        app: Option<AppName>,
    },
    /// Send requests for a host and path to an app; its live version is deployed with it
    Add {
        app: AppName,
        /// `HOST`, `HOST/PATH` or `*/PATH`; `*` is every host, `*.example.org` every name below one
        #[arg(value_name = "HOST[/PATH]")]
        rule: Rule,
        /// The process that takes them
        #[arg(long, value_name = "NAME", default_value_t = ProcessName::default_name())]
        process: ProcessName,
        /// Only with the next deployment
        #[arg(long)]
        later: bool,
    },
    /// Take back what `add` gave
    Rm {
        app: AppName,
        #[arg(value_name = "HOST[/PATH]")]
        rule: Rule,
        #[arg(long, value_name = "NAME", default_value_t = ProcessName::default_name())]
        process: ProcessName,
        /// Only with the next deployment
        #[arg(long)]
        later: bool,
    },
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
        Verb::Ls { app } => {
            let mut routes: Vec<RouteView> = session.controller.get("/v1/routes", ANSWER_LIMIT).await?;
            routes.retain(|route| app.as_ref().is_none_or(|app| route.app == *app));
            output.show(&routes, || list::routes(&routes, output.width(), output.paint))?;
        }
        Verb::Add { app, rule, process, later } => {
            return change(session, &app, vec![operation_of(session, "add", &app, &rule, &process)], later).await;
        }
        Verb::Rm { app, rule, process, later } => {
            return change(session, &app, vec![operation_of(session, "remove", &app, &rule, &process)], later).await;
        }
        Verb::Test { tested } => {
            let path = format!("/v1/routes/test?url={}", encode(&tested));
            let explained: Value = session.controller.get(&path, ANSWER_LIMIT).await?;
            output.show(&explained, || list::outline(&explained, output.paint))?;
        }
    }
    Ok(Exit::Done)
}

/// What a person writes for a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// None: every host.
    host: Option<String>,
    path: String,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err("a rule has no scheme: write HOST/PATH".to_owned());
        }
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        if host.is_empty() {
            return Err("a rule begins with a host; * is every host".to_owned());
        }
        let host = (host != "*").then(|| host.to_ascii_lowercase());
        Ok(Self { host, path: if path.is_empty() { "/".to_owned() } else { path.to_owned() } })
    }
}

fn operation_of(session: &Session<'_>, command: &str, app: &AppName, rule: &Rule, process: &ProcessName) -> Operation {
    let Rule { host, path } = rule;
    let environment = &session.environment;
    let params = json!({ "environment": environment, "app": app, "host": host, "path": path, "process": process });
    operation("route", command, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        let rule = |host: Option<&str>, path: &str| Ok(Rule { host: host.map(str::to_owned), path: path.to_owned() });
        assert_eq!("Shop.example.org".parse::<Rule>(), rule(Some("shop.example.org"), "/"));
        assert_eq!("shop.example.org/api/v1".parse::<Rule>(), rule(Some("shop.example.org"), "/api/v1"));
        assert_eq!("*/api".parse::<Rule>(), rule(None, "/api"));
        assert_eq!("*.example.org".parse::<Rule>(), rule(Some("*.example.org"), "/"));
        for bad in ["", "/api", "http://shop.example.org/"] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
    }
}
