//! `login --docker | --keys DIR`: who may use the Docker socket, or read the cluster's key, is the owner.

use std::process::Command;

use clap::Args;
use controller_core::v1::api::{ControllerInfo, TokenAnswer, TokenRequest};
use kit::client::{Client, ClientError};
use reqwest::Method;

use crate::args::Global;
use crate::context::{self, Context};
use crate::error::{Exit, Failure};
use crate::output::Output;
use crate::session::{ANSWER_LIMIT, URL_DEFAULT, check_url, owner_token};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Through the controller's container on this machine
    #[arg(long, conflicts_with = "keys")]
    docker: bool,
    /// The controller's container [default: the one labelled io.platformer.part=controller]
    #[arg(long, value_name = "NAME", requires = "docker")]
    container: Option<String>,
    /// Under which name to keep it
    #[arg(long, value_name = "CONTEXT", default_value = "local")]
    name: String,
}

pub(crate) async fn run(arguments: Arguments, global: &Global, output: &Output) -> Result<Exit, Failure> {
    let home = context::home_or_failure()?;
    let url = global.url.clone().unwrap_or_else(|| URL_DEFAULT.to_owned());
    check_url("--url", &url)?;
    if let Some(known) = context::find(&home, &arguments.name)?.filter(|known| known.url == url)
        && works(&known).await?
    {
        context::choose(&home, &arguments.name)?;
        output.talk(&format!("logged in already: using {} ({url})", arguments.name));
        return Ok(Exit::Done);
    }
    if let Some(other) = context::find(&home, &arguments.name)?.filter(|known| known.url != url) {
        let title = format!("context {} is that of {}", arguments.name, other.url);
        return Err(Failure::new(Exit::Conflict, title).hint("keep both", "platformctl login --name ANOTHER …"));
    }
    let owner = match &global.keys {
        Some(keys) => owner_token(keys)?,
        None if arguments.docker => through_docker(arguments.container)?,
        None => {
            return Err(Failure::new(Exit::Usage, "how? a login goes through the platform's own machine")
                .hint("try", "platformctl login --docker")
                .hint("or", "platformctl login --keys DIR")
                .hint("elsewhere", "platformctl --url URL --token-file FILE context add NAME"));
        }
    };
    let request = TokenRequest { name: who(), read_only: false, life_s: None };
    let controller = Client::new(&url, Some(owner));
    let made: TokenAnswer = controller.call(Method::POST, "/v1/tokens", &request, ANSWER_LIMIT).await?;
    context::add(&home, &arguments.name, Context { name: None, url: url.clone(), token: Some(made.token) })?;
    output.talk(&format!("logged in: using {} ({url})", arguments.name));
    Ok(Exit::Done)
}

/// Whether its token is taken. A controller that does not answer is a failure of its own.
async fn works(context: &Context) -> Result<bool, Failure> {
    if context.token.is_none() {
        return Ok(false);
    }
    let controller = Client::new(&context.url, context.token.clone());
    match controller.get::<ControllerInfo>("/v1", ANSWER_LIMIT).await {
        Ok(_) => Ok(true),
        Err(ClientError::Refused(problem)) if matches!(problem.status, 401 | 403) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The controller in the container holds the key and prints a token with it, good for some minutes.
fn through_docker(container: Option<String>) -> Result<String, Failure> {
    let container = match container {
        Some(container) => container,
        None => only_controller(&docker(&["ps", "-q", "--filter", "label=io.platformer.part=controller"])?)?,
    };
    let token = docker(&["exec", &container, "/controller", "owner-token"])?;
    Ok(token.trim().to_owned())
}

fn only_controller(listed: &str) -> Result<String, Failure> {
    match listed.split_whitespace().collect::<Vec<_>>()[..] {
        [one] => Ok(one.to_owned()),
        [] => Err(Failure::new(Exit::NotFound, "no controller runs in a container here").hint("try", "make up")),
        _ => Err(Failure::new(Exit::Conflict, "several controllers run here").hint("name one", "--container NAME")),
    }
}

fn docker(arguments: &[&str]) -> Result<String, Failure> {
    let run = Command::new("docker").args(arguments).output();
    let run = run.map_err(|error| Failure::new(Exit::NotFound, format!("cannot run docker: {error}")))?;
    if run.status.success() {
        return Ok(String::from_utf8_lossy(&run.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&run.stderr);
    let reason = said.lines().last().unwrap_or("it said nothing").trim();
    Err(Failure::new(Exit::Forbidden, format!("docker {}: {reason}", arguments[0])))
}

/// Under which name the token stands in `token ls`.
fn who() -> String {
    let named = ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    let user = named.into_iter().find(|user| !user.is_empty()).unwrap_or_else(|| match rustix::process::getuid() {
        root if root.is_root() => "root".to_owned(),
        uid => format!("uid-{}", uid.as_raw()),
    });
    let name = format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy());
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_found_when_it_is_the_only_one() {
        assert_eq!(only_controller("abc\n").expect("one"), "abc");
        assert_eq!(only_controller("").expect_err("none").exit, Exit::NotFound);
        assert_eq!(only_controller("a\nb\n").expect_err("two").exit, Exit::Conflict);
    }
}
