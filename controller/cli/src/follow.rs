//! Following a deployment to its end: the stream of events, taken up again where it broke, beside a look at the
//! deployment itself every now and then. Ctrl-C detaches; the deployment goes on.

mod narrator;
mod stream;

use std::time::Duration;

use controller_core::v1::api::DeploymentView;
use controller_core::v1::state::EndState;
use kit::client::ClientError;
use serde_json::json;
use tokio::time::timeout;

use crate::error::{Exit, Failure};
use crate::render::deployment::{bad_end, good_end, head};
use crate::session::Session;

pub(crate) use stream::Stream;

/// Longest wait without `--wait`: longer than any deadline of a deployment.
pub(crate) const WAIT_DEFAULT: Duration = Duration::from_secs(600);

/// The deployment itself is looked at this often: what it waits for, and its end should the stream not tell.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Tells the deployment's way and its end; the exit code says how it ended.
pub(crate) async fn follow(session: &Session<'_>, deployment: DeploymentView, wait: Duration) -> Result<Exit, Failure> {
    if !session.output.json {
        session.output.talk(&head(&deployment, session.output.talk_paint));
    }
    let mut narrator = narrator::Narrator::new(session.output);
    let ended = tokio::select! {
        ended = timeout(wait, until_end(session, &deployment, &mut narrator)) => ended,
        _ = tokio::signal::ctrl_c() => {
            drop(narrator);
            return Err(detached(Exit::Interrupted, "detached; the deployment goes on", &deployment));
        }
    };
    let unreachable = narrator.lost;
    drop(narrator);
    match ended {
        Ok(ended) => {
            let ended = ended?;
            let exit = tell_end(session, &ended)?;
            if !session.output.json {
                tell_not_deployed(session, &ended).await;
            }
            Ok(exit)
        }
        Err(_) if unreachable => {
            let message =
                format!("no answer from {}; the deployment goes on when it is back", session.controller.base());
            Err(detached(Exit::Unreachable, &message, &deployment))
        }
        Err(_) => {
            let message = format!(
                "{} did not end within {}; it goes on",
                deployment.id,
                crate::render::number::duration(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),)
            );
            let now = session.deployment(&deployment.id).await.unwrap_or(deployment);
            Err(detached(Exit::WaitTimedOut, &message, &now))
        }
    }
}

fn detached(exit: Exit, message: &str, deployment: &DeploymentView) -> Failure {
    let failure = Failure::new(exit, message).hint("follow", format!("platformctl follow {}", deployment.id));
    match deployment.phase.as_str() {
        "draining" => failure.hint("undo", format!("platformctl rollback {}", deployment.app)),
        _ => failure.hint("cancel", format!("platformctl cancel {}", deployment.id)),
    }
}

async fn until_end(
    session: &Session<'_>,
    deployment: &DeploymentView,
    narrator: &mut narrator::Narrator<'_>,
) -> Result<DeploymentView, Failure> {
    let mut stream = Stream::of_deployment(&session.controller, &deployment.id);
    let mut look_at = session.clock.elapsed();
    loop {
        let pause = look_at.saturating_sub(session.clock.elapsed());
        let mut ended = false;
        if let Ok(next) = timeout(pause, stream.next()).await {
            let event = next?;
            ended = crate::render::timeline::is_end(event.kind);
            narrator.event(&event)?;
        }
        narrator.stream_lost(stream.lost());
        if !ended && session.clock.elapsed() < look_at {
            continue;
        }
        look_at = session.clock.elapsed() + LOOK_INTERVAL;
        match session.deployment(&deployment.id).await {
            Ok(view) if view.end.is_some() => {
                // What happened before the end is told before it.
                while let Ok(Ok(event)) = timeout(Duration::from_millis(50), stream.next()).await {
                    narrator.event(&event)?;
                }
                narrator.finish();
                return Ok(view);
            }
            Ok(view) => narrator.waiting(&view),
            Err(ClientError::Unreachable { .. }) => narrator.stream_lost(true),
            Err(ClientError::Refused(problem)) if (502..=504).contains(&problem.status) => narrator.stream_lost(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The last word: how it ended, and what to do next.
fn tell_end(session: &Session<'_>, view: &DeploymentView) -> Result<Exit, Failure> {
    let output = session.output;
    let Some(end) = &view.end else { return Ok(Exit::Unexpected) };
    let exit = exit_of(end.state);
    if output.json {
        output.record(&json!({ "deployment": view }))?;
        return Ok(exit);
    }
    if exit != Exit::Done {
        output.talk(bad_end(view, end, output.talk_paint).trim_end());
        return Ok(exit);
    }
    output.line(&good_end(end, output.paint))?;
    if view.from.is_some() && end.state == EndState::Done {
        let environment =
            if view.environment.is_default() { String::new() } else { format!(" -e {}", view.environment) };
        output.hint("undo", &format!("platformctl rollback {}{environment}", view.app));
    }
    Ok(exit)
}

/// An older release lacks what the environment got since, and nobody who goes back thinks of it.
async fn tell_not_deployed(session: &Session<'_>, view: &DeploymentView) {
    if let Ok(status) = session.app(&view.app).await
        && !status.not_deployed.is_empty()
    {
        let what = status.not_deployed.join(", ");
        session.output.talk(&format!("what serves was made without {what}; the next deploy brings it"));
    }
}

fn exit_of(end: EndState) -> Exit {
    match end {
        EndState::Done | EndState::Staged => Exit::Done,
        EndState::Aborted | EndState::Cancelled => Exit::Failed,
        EndState::Degraded => Exit::Degraded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_one_exit_code() {
        for (end, exit) in [
            (EndState::Done, Exit::Done),
            (EndState::Staged, Exit::Done),
            (EndState::Aborted, Exit::Failed),
            (EndState::Cancelled, Exit::Failed),
            (EndState::Degraded, Exit::Degraded),
        ] {
            assert_eq!(exit_of(end), exit);
        }
    }
}
