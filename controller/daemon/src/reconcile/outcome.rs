//! Outcome: what a deployment came to, for people.

use std::time::Duration;

use appbase_core::v1::{InstanceReport, MemberKind};
use appbase_core::{InstanceId, SectionKey};
use controller_core::observed::{Observed, Seen};
use controller_core::v1::api::FailureView;
use controller_core::v1::state::{Deployment, DeploymentOutcome, InstanceRecord, Receipt, Run};
use futures_util::StreamExt;
use futures_util::future::join_all;
use node::LogRequest;

use crate::records::lock;
use crate::run::Shared;

/// Of a failed instance: so many last log lines, and no longer wait for them.
const LOG_LINES: usize = 12;
const LOG_WAIT: Duration = Duration::from_secs(2);
/// Of so many failed instances at the most.
const FAILURES_MAX: usize = 4;

/// What the deployment came to, gathered while its instances can still be asked.
pub(super) async fn outcome(
    shared: &Shared,
    key: &SectionKey,
    deployment: &Deployment,
    observed: &Observed,
) -> DeploymentOutcome {
    let (requests, failed) = shared.since_baseline(&deployment.id, key);
    let run = lock(&shared.records).run(key);
    let (mut cut, mut receipt) = (0, None);
    if deployment.flipped_unix_ms.is_some() {
        (cut, receipt) = receive(deployment, &run, observed);
    }
    let mut failures = Vec::new();
    let failed_end = deployment.end.as_ref().is_some_and(|end| end.reason.is_some()) && !deployment.cancel;
    if failed_end {
        // Side by side: the pen is held meanwhile.
        let instances = run.instances.iter().filter(|(_, i)| i.release == deployment.release).take(FAILURES_MAX);
        failures = join_all(instances.map(|(id, instance)| failure(shared, id, instance, observed))).await;
    }
    DeploymentOutcome { requests, failed, cut, receipt, failures }
}

/// What the load balancers say of the flip, and how many they cut.
fn receive(deployment: &Deployment, run: &Run, observed: &Observed) -> (u64, Option<Receipt>) {
    let statuses: Vec<_> = observed.members(MemberKind::Lb).filter_map(|(_, member)| member.status.as_ref()).collect();
    let reports = |is_new: bool| {
        let of = move |(id, _): &(&InstanceId, &InstanceReport)| {
            run.instances.get(*id).is_some_and(|instance| (instance.release == deployment.release) == is_new)
        };
        statuses.iter().flat_map(|status| &status.instances).filter(of).map(|(_, report)| report)
    };
    let drains = || reports(false).filter_map(|report| report.drain);
    let receipt = Receipt {
        generation: deployment.flip.clone(),
        members: statuses.len() as u64,
        probes: reports(true).map(|report| report.probes).sum(),
        inside: drains().map(|drain| drain.inside).sum(),
        longest_ms: drains().filter_map(|drain| drain.took_ms).max().unwrap_or_default(),
    };
    (reports(false).map(|report| report.cut).sum(), Some(receipt))
}

async fn failure(shared: &Shared, id: &InstanceId, instance: &InstanceRecord, observed: &Observed) -> FailureView {
    let probe = observed.members.values().find_map(|member| member.report(id)?.last_probe.clone());
    let seen = match observed.instance(&instance.server, id) {
        Seen::Present(seen) => Some(seen),
        _ => None,
    };
    FailureView {
        instance: id.clone(),
        probe,
        exit: seen.and_then(|seen| seen.last_exit.clone()),
        problem: seen.and_then(|seen| seen.problem.clone()),
        restarts: seen.map_or(0, |seen| seen.restarts),
        log: tokio::time::timeout(LOG_WAIT, log_tail(shared, id)).await.unwrap_or_default(),
    }
}

async fn log_tail(shared: &Shared, id: &InstanceId) -> Vec<String> {
    let request = LogRequest { tail: LOG_LINES, follow: false };
    let Ok(lines) = shared.compute.logs(id, request).await else { return Vec::new() };
    lines.filter_map(async |line| line.ok().map(|line| line.text)).take(LOG_LINES).collect().await
}
