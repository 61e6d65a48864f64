//! `deploy APP VERSION`

use std::path::PathBuf;
use std::time::Duration;

use appbase_core::{AppName, Version};
use clap::Args;
use controller_core::v1::api::{DeployAnswer, DeployRequest};

use crate::args::duration;
use crate::error::{Exit, Failure};
use crate::follow::{WAIT_DEFAULT, follow};
use crate::pack::pack;
use crate::push::push;
use crate::render::artifact;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    app: AppName,
    version: Version,
    /// End a running deployment of another version first
    #[arg(long)]
    supersede: bool,
    /// Start it beside what is live and leave the traffic where it is, until `activate`
    #[arg(long)]
    stage: bool,
    /// Store this directory, program, .tar.gz or docker-archive as the version first
    #[arg(long, value_name = "PATH")]
    push: Option<PathBuf>,
    /// Only when the app is not known yet: do nothing otherwise
    #[arg(long)]
    first: bool,
    #[command(flatten)]
    pub(super) waiting: Waiting,
}

/// How a command waits for what it started.
#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// Return once it is accepted
    #[arg(long)]
    detach: bool,
    /// Stop waiting after this time (`90s`, `10m`); the deployment goes on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
}

impl Waiting {
    /// How long another deployment may drain before this one is accepted.
    pub(super) fn for_a_drain(&self) -> Duration {
        if self.detach { Duration::ZERO } else { self.wait.unwrap_or(WAIT_DEFAULT) }
    }
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    if arguments.first && is_known(session, &arguments.app).await? {
        session.output.talk(&format!("{} is there already: left as it is", arguments.app));
        return Ok(Exit::Done);
    }
    if let Some(path) = &arguments.push {
        let pushed = push(session, &arguments.app, &arguments.version, pack(path, None)?).await?;
        session.output.talk(&artifact::pushed(&pushed));
    }
    let (supersede, stage) = (arguments.supersede, arguments.stage);
    let request = DeployRequest { version: arguments.version, supersede, stage };
    let (app, limit) = (&arguments.app, arguments.waiting.for_a_drain());
    let answer = session.after_drain(app, limit, async || session.start(app, "deployments", &request).await).await?;
    started(session, answer, &arguments.waiting).await
}

async fn is_known(session: &Session<'_>, app: &AppName) -> Result<bool, Failure> {
    match session.app(app).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.exit == Exit::NotFound => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// What follows an accepted deployment, whichever verb asked for it.
pub(super) async fn started(session: &Session<'_>, answer: DeployAnswer, waiting: &Waiting) -> Result<Exit, Failure> {
    let Some(deployment) = answer.deployment.clone() else {
        let what = if answer.outcome == "already-staged" { "staged" } else { "live" };
        let text = || format!("{} (release {}) is {what} already\n", answer.version, answer.release);
        session.output.show(&answer, text)?;
        return Ok(Exit::Done);
    };
    if answer.outcome == "joined" && !session.output.json {
        session.output.talk(&format!("{} is running already: following it", deployment.id));
    }
    if waiting.detach {
        let id = deployment.id.clone();
        session.output.show(&answer, || format!("{id}\n"))?;
        session.output.hint("follow", &format!("platformctl follow {id}"));
        return Ok(Exit::Done);
    }
    follow(session, deployment, waiting.wait.unwrap_or(WAIT_DEFAULT)).await
}
