//! Observe: Docker's containers as instances. Holds no policy; what it cannot read it leaves out and says so.

use std::collections::BTreeSet;

use appbase_core::InstanceId;
use appbase_core::v1::{InstanceExit, label};
use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum as Status};
use bollard::query_parameters::ListContainersOptions;
use controller_core::v1::compute::{InstancePhase, ObservedInstance, ServerSeen};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{DockerEngine, labels, time};
use crate::ComputeError;

/// How many containers are looked at side by side.
const LOOKS: usize = 8;

impl DockerEngine {
    pub(crate) async fn look(&self) -> Result<ServerSeen, ComputeError> {
        let wanted = vec![
            format!("{}={}", label::CLUSTER, self.config.cluster),
            format!("{}={}", label::SERVER, self.config.server),
            label::APP.to_owned(),
        ];
        let options = ListContainersOptions {
            all: true,
            filters: Some([("label".to_owned(), wanted)].into()),
            ..ListContainersOptions::default()
        };
        let listed = self.docker.list_containers(Some(options)).await;
        let listed = listed.map_err(|error| self.fault(error, || "list instances".to_owned()))?;
        let ids: Vec<String> = listed.into_iter().filter_map(|container| container.id).collect();
        self.hints.keep(|container| ids.iter().any(|id| id == container));
        // One that vanished between the two looks is absent.
        let looks = stream::iter(ids).map(|id| async move { self.inspect(&id).await }).buffered(LOOKS);
        let found: Vec<Option<ContainerInspectResponse>> = looks.try_collect().await?;
        let now = self.clock.unix_ms();
        let mut instances: Vec<ObservedInstance> = found
            .iter()
            .flatten()
            .filter_map(|container| {
                let exit = container.id.as_deref().and_then(|id| self.hints.exit_of(id));
                read(container, self.project(), exit, now)
            })
            .collect();
        instances.sort_by(|one, other| one.id.cmp(&other.id));
        // Instances have addresses of their own.
        Ok(ServerSeen { server: self.config.server.clone(), instances, taken_ports: BTreeSet::new() })
    }
}

/// `last_code` is what the event of its last end said; Docker forgets it when it starts the container again. Pure.
fn read(
    container: &ContainerInspectResponse,
    project: &str,
    last_code: Option<i32>,
    now: u64,
) -> Option<ObservedInstance> {
    let name = container.name.as_deref()?.trim_start_matches('/');
    let found = container.config.as_ref().and_then(|config| config.labels.as_ref());
    let labels = match labels::parse(|name| found.and_then(|labels| labels.get(name)).map(String::as_str)) {
        Ok(labels) => labels,
        Err(error) => {
            tracing::warn!(container = name, %error, "a container with this cluster's label is no instance");
            return None;
        }
    };
    let state = container.state.as_ref()?;
    let phase = match state.status? {
        Status::CREATED => InstancePhase::Created,
        Status::RUNNING | Status::PAUSED | Status::RESTARTING => InstancePhase::Running,
        Status::EMPTY | Status::REMOVING | Status::EXITED | Status::DEAD | Status::STOPPING => InstancePhase::Ended,
    };
    let runs = state.status == Some(Status::RUNNING);
    let started = state.started_at.as_deref().and_then(time::unix_ms);
    Some(ObservedInstance {
        id: InstanceId::parse(name.strip_prefix(project)?.strip_prefix('-')?).ok()?,
        labels,
        phase,
        restarts: container.restart_count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        last_exit: last_exit(state, started, last_code, runs),
        problem: problem(container, state),
        running_for_ms: started.filter(|_| runs).map_or(0, |started| now.saturating_sub(started)),
    })
}

fn last_exit(state: &ContainerState, started: Option<u64>, last_code: Option<i32>, runs: bool) -> Option<InstanceExit> {
    let finished = state.finished_at.as_deref().and_then(time::unix_ms)?;
    let code = if runs { last_code } else { state.exit_code.and_then(|code| i32::try_from(code).ok()) };
    // Docker, like a shell, writes an end by signal n as 128 + n.
    let signal = code.filter(|code| (129..=192).contains(code)).map(|code| code - 128);
    Some(InstanceExit {
        code: code.filter(|_| signal.is_none()),
        signal,
        at_unix_ms: finished,
        ran_ms: started.filter(|_| !runs).map_or(0, |started| finished.saturating_sub(started)),
    })
}

fn problem(container: &ContainerInspectResponse, state: &ContainerState) -> Option<String> {
    if state.oom_killed == Some(true) {
        let limit = container.host_config.as_ref().and_then(|host| host.memory).unwrap_or(0) >> 20;
        return Some(format!("it was killed for using more memory than its limit of {limit} MiB"));
    }
    if state.status == Some(Status::PAUSED) {
        return Some("it is paused (`docker unpause` lets it go on)".to_owned());
    }
    state.error.clone().filter(|error| !error.is_empty())
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerConfig;

    use super::*;
    use crate::docker::fixture;

    fn container(state: ContainerState) -> ContainerInspectResponse {
        let request = fixture::request();
        ContainerInspectResponse {
            name: Some(format!("/platformer-{}", request.id)),
            restart_count: Some(2),
            config: Some(ContainerConfig {
                labels: Some(labels::render(&request.labels).into_iter().collect()),
                ..ContainerConfig::default()
            }),
            state: Some(state),
            ..ContainerInspectResponse::default()
        }
    }

    fn state(status: Status, code: i64) -> ContainerState {
        ContainerState {
            status: Some(status),
            exit_code: Some(code),
            started_at: Some("1970-01-01T00:00:10Z".to_owned()),
            finished_at: Some("1970-01-01T00:00:12.5Z".to_owned()),
            ..ContainerState::default()
        }
    }

    #[test]
    fn states_are_read() {
        for (status, code, event, phase, exit, running_for) in [
            (Status::RUNNING, 0, Some(3), InstancePhase::Running, (Some(3), None), 90_000),
            (Status::RUNNING, 0, None, InstancePhase::Running, (None, None), 90_000),
            (Status::RESTARTING, 1, Some(3), InstancePhase::Running, (Some(1), None), 0),
            (Status::EXITED, 137, None, InstancePhase::Ended, (None, Some(9)), 0),
            (Status::EXITED, 0, None, InstancePhase::Ended, (Some(0), None), 0),
            (Status::DEAD, 255, None, InstancePhase::Ended, (Some(255), None), 0),
        ] {
            let seen = read(&container(state(status, code)), "platformer", event, 100_000).expect("an instance");
            assert_eq!((seen.phase, seen.restarts, seen.running_for_ms), (phase, 2, running_for), "{status}");
            let last = seen.last_exit.expect("an exit");
            assert_eq!((last.code, last.signal), exit, "{status}");
        }
    }

    #[test]
    fn one_that_never_ran_never_ended() {
        let never = Some("0001-01-01T00:00:00Z".to_owned());
        let state = ContainerState { started_at: never.clone(), finished_at: never, ..state(Status::CREATED, 0) };
        let seen = read(&container(state), "platformer", None, 5).expect("an instance");
        assert_eq!((seen.phase, seen.last_exit, seen.running_for_ms), (InstancePhase::Created, None, 0));
    }

    #[test]
    fn what_is_no_instance_is_left_out_and_memory_is_named() {
        let mut foreign = container(state(Status::RUNNING, 0));
        foreign.config = None;
        assert_eq!(read(&foreign, "platformer", None, 0), None);
        let killed = ContainerState { oom_killed: Some(true), ..state(Status::EXITED, 137) };
        let problem = read(&container(killed), "platformer", None, 0).and_then(|seen| seen.problem).expect("a problem");
        assert!(problem.contains("memory"), "{problem}");
    }
}
