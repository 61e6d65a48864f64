//! `cancel DEPLOYMENT|APP`

use appbase_core::{AppName, DeploymentId};
use clap::Args;
use controller_core::v1::api::DeploymentView;
use reqwest::Method;

use crate::error::{Exit, Failure};
use crate::session::{ANSWER_LIMIT, Session};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A deployment's id, or the app whose running deployment is meant
    #[arg(value_name = "DEPLOYMENT|APP")]
    which: String,
}

pub(crate) async fn run(session: &Session<'_>, arguments: Arguments) -> Result<Exit, Failure> {
    if let Ok(app) = AppName::parse(&arguments.which)
        && !arguments.which.starts_with("d-")
        && let Some(staged) =
            session.app(&app).await.ok().filter(|app| app.deployment.is_none()).and_then(|app| app.staged)
    {
        let path = format!("/v1/apps/{app}/staged?environment={}", session.environment);
        let () = session.controller.call(Method::DELETE, &path, &(), ANSWER_LIMIT).await?;
        session
            .output
            .show(&staged, || format!("{app} {} is given up: traffic stays where it is\n", staged.version))?;
        return Ok(Exit::Done);
    }
    let id = which(session, &arguments.which).await?;
    let path = format!("/v1/deployments/{id}/cancel");
    let view: DeploymentView = session.controller.call(Method::POST, &path, &(), ANSWER_LIMIT).await?;
    session.output.show(&view, || format!("{id} is being cancelled: traffic stays where it is\n"))?;
    Ok(Exit::Done)
}

/// A running deployment by its id or by its app.
pub(super) async fn which(session: &Session<'_>, text: &str) -> Result<DeploymentId, Failure> {
    if text.starts_with("d-") {
        return DeploymentId::parse(text).map_err(|error| Failure::input(error.to_string()));
    }
    let app = AppName::parse(text).map_err(|error| Failure::input(error.to_string()))?;
    let running = session.app(&app).await?.deployment;
    running.map(|deployment| deployment.id).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("nothing of {app} is being deployed"))
            .hint("try", format!("platformctl history {app}"))
    })
}
