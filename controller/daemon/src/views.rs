//! Views: records and what was seen, as the API answers them. No decision is made here.

use std::collections::BTreeMap;

use appbase_core::v1::{Health, MemberKind, Route, Value};
use appbase_core::{AppName, EnvironmentName, ProcessName, SectionKey, Version};
use controller_core::observed::{Observed, Seen};
use controller_core::render::live_release;
use controller_core::v1::api::{
    AppStatus, ControllerInfo, DeploymentView, EndView, InstanceView, LiveView, MemberView, PlanView, PlatformStatus,
    StagedView,
};
use controller_core::v1::compute::InstancePhase;
use controller_core::v1::state::{Deployment, DesiredApp, InstanceRecord, ReleaseRecord, Run, Traffic};

use crate::deploy::rollback_target;
use crate::records::{Records, lock};
use crate::run::{Shared, Shown};

pub(crate) fn info(shared: &Shared) -> ControllerInfo {
    let config = &shared.config;
    let records = lock(&shared.records);
    ControllerInfo {
        cluster: records.cluster.id.clone(),
        epoch: records.cluster.epoch,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        repository: config.public_repository.clone().unwrap_or_else(|| config.repository.clone()),
        engine: shared.compute.engine().to_owned(),
        domain: config.domain.clone(),
        dns: config.public_dns.clone(),
        lb: config.public_lb.clone(),
    }
}

pub(crate) fn platform(shared: &Shared) -> PlatformStatus {
    let info = info(shared);
    let shown = shared.shown();
    let records = lock(&shared.records);
    let apps = records.runs.keys().filter_map(|key| match key {
        SectionKey::App { environment, app } => Some(app_status(shared, &records, &shown, environment, app)),
        SectionKey::Platform => None,
    });
    let gap = shared.gap.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let gap = gap.map(|reason| format!("server {} cannot be seen: {reason}", shared.config.server));
    PlatformStatus {
        info,
        generation: shared.tables.generation(),
        members: members(shared, &records),
        apps: apps.collect(),
        problems: gap.into_iter().chain(shared.members.ahead_of(&records.published_generation())).collect(),
    }
}

pub(crate) fn members(shared: &Shared, records: &Records) -> Vec<MemberView> {
    let seen = shared.members.seen(&records.members, shared.now());
    seen.into_iter()
        .map(|(id, member)| MemberView {
            id,
            kind: member.kind,
            reachable: member.is_reachable(),
            seen_ms_ago: member.status.as_ref().map(|_| member.silent_for.as_millis() as u64),
            in_force: member.status.as_ref().and_then(|status| status.in_force.clone()),
            refused: member.status.as_ref().and_then(|status| status.refused.as_ref().map(|r| r.reason.clone())),
        })
        .collect()
}

pub(crate) fn app_status(
    shared: &Shared,
    records: &Records,
    shown: &Shown,
    environment: &EnvironmentName,
    app: &AppName,
) -> AppStatus {
    let key = SectionKey::app(environment, app);
    let run = records.run(&key);
    let releases = records.releases.get(&key);
    let desired = records.desired_app(environment, app);
    let live = live_release(&run).and_then(|live| releases?.get(&live));
    let version_of = |number: u64| releases.and_then(|r| r.get(&number)).map(|record| record.release.version.clone());
    let mut scale: BTreeMap<_, _> = live.map(|record| record.scale.clone()).unwrap_or_default();
    scale.extend(desired.scale.clone());
    AppStatus {
        environment: environment.clone(),
        app: app.clone(),
        live: live.zip(run.live).map(|(record, slot)| LiveView {
            release: record.release.number,
            version: record.release.version.clone(),
            slot,
        }),
        summary: summary(records, &key, &run, &scale, version_of),
        instances: instances(&run, &shown.observed, version_of),
        routes: live.map(|record| record.release.traffic.routes.clone()).unwrap_or_default(),
        scale,
        hold: desired.hold,
        maintenance: desired.maintenance.clone(),
        staged: staged(shared, &key, &run, &desired, version_of),
        preview: desired.preview.clone(),
        notice: desired.notice.clone(),
        deployment: records.running(&key).map(|running| deployment(shared, records, running)),
        rollback_to: rollback_target(records, &key).and_then(|number| Some((number, version_of(number)?))),
        not_deployed: live.map(|live| not_deployed(&desired, live)).unwrap_or_default(),
        counters: shared.members.counters(&key, live_release(&run)),
    }
}

fn staged(
    shared: &Shared,
    key: &SectionKey,
    run: &Run,
    desired: &DesiredApp,
    version_of: impl Fn(u64) -> Option<Version>,
) -> Option<StagedView> {
    let release = run.staged?;
    let split = desired.split.clone().filter(|split| split.release == release).unwrap_or_default();
    Some(StagedView {
        release,
        version: version_of(release)?,
        slot: run.live?.other(),
        percent: split.percent,
        cohorts: split.cohorts,
        mirror: split.mirror,
        counters: shared.members.counters(key, Some(release)),
    })
}

/// What the environment wants beside the app file, and the live release lacks: it was made before.
fn not_deployed(desired: &DesiredApp, live: &ReleaseRecord) -> Vec<String> {
    let in_force = values_in_force(live);
    let values = desired.values.iter().filter(|(key, value)| in_force.get(*key) != Some(*value));
    let routes = desired.routes.iter().filter(|route| !live.release.traffic.routes.contains(route));
    let route = |route: &Route| format!("route {}", route.wants());
    values.map(|(key, _)| format!("value {key}")).chain(routes.map(route)).collect()
}

/// The values that instances of a release get, as text.
pub(crate) fn values_in_force(record: &ReleaseRecord) -> BTreeMap<String, String> {
    let specs = record.release.processes.values();
    let plain = |value: &Value| match value {
        Value::Plain(text) => text.clone(),
        Value::Secret { version } => format!("(secret, version {version})"),
    };
    specs.flat_map(|spec| &spec.values).map(|(key, value)| (key.clone(), plain(value))).collect()
}

fn summary(
    records: &Records,
    key: &SectionKey,
    run: &Run,
    scale: &BTreeMap<ProcessName, u32>,
    version_of: impl Fn(u64) -> Option<Version>,
) -> String {
    let named = |number: u64| match version_of(number) {
        Some(version) => format!("{version} (release {number})"),
        None => format!("release {number}"),
    };
    let serving = match live_release(run) {
        None => "serving nothing yet".to_owned(),
        Some(live) if !scale.is_empty() && scale.values().all(|wanted| *wanted == 0) => {
            format!("{} scaled to 0", named(live))
        }
        Some(live) => format!("serving {}", named(live)),
    };
    if let Some(running) = records.running(key) {
        return format!("deploying {}, {serving}", named(running.release));
    }
    if let Some(staged) = run.staged {
        return format!("{serving}, {} staged", named(staged));
    }
    match run.aborted {
        Some(aborted) => format!("wanted {} (aborted), {serving}", named(aborted)),
        None => serving,
    }
}

fn instances(run: &Run, observed: &Observed, version_of: impl Fn(u64) -> Option<Version>) -> Vec<InstanceView> {
    let view = |(id, record): (&appbase_core::InstanceId, &InstanceRecord)| {
        let seen = observed.instance(&record.server, id);
        let reports: Vec<_> = observed.members(MemberKind::Lb).filter_map(|(_, member)| member.report(id)).collect();
        Some(InstanceView {
            id: id.clone(),
            process: record.process.clone(),
            number: record.number,
            release: record.release,
            version: version_of(record.release)?,
            slot: record.slot,
            state: match record.state {
                Traffic::Standby => "standby",
                Traffic::Warm => "warm",
                Traffic::Active => "active",
                Traffic::Draining { .. } => "draining",
                Traffic::Retiring => "retiring",
            }
            .to_owned(),
            phase: phase(seen).to_owned(),
            address: record.address.map(|address| address.to_string()),
            health: worst(reports.iter().map(|report| report.health)),
            ejected: reports.iter().any(|report| report.ejected),
            panic: reports.iter().any(|report| report.panic),
            latency_us: reports.iter().filter_map(|report| report.latency_us).max(),
            in_flight: reports.iter().map(|report| report.in_flight + report.streams).sum(),
            restarts: match seen {
                Seen::Present(seen) => seen.restarts,
                _ => 0,
            },
        })
    };
    run.instances.iter().filter_map(view).collect()
}

fn phase(seen: Seen<&controller_core::v1::compute::ObservedInstance>) -> &'static str {
    match seen {
        Seen::Unknown => "unknown",
        Seen::Absent => "missing",
        Seen::Present(seen) => match seen.phase {
            InstancePhase::Created => "created",
            InstancePhase::Running => "running",
            InstancePhase::Ended => "ended",
            InstancePhase::Lost => "lost",
        },
    }
}

fn worst(all: impl Iterator<Item = Health>) -> Option<Health> {
    all.max_by_key(|health| match health {
        Health::Up => 0,
        Health::Pending => 1,
        Health::Down => 2,
    })
}

pub(crate) fn deployment(shared: &Shared, records: &Records, deployment: &Deployment) -> DeploymentView {
    let key = SectionKey::app(&deployment.environment, &deployment.app);
    let waiting = shared.shown().reports.get(&key).cloned().unwrap_or_default();
    let outcome = records.outcomes.get(&deployment.id).cloned().unwrap_or_default();
    let live_after_ms = deployment.flipped_unix_ms.map(|at| at.saturating_sub(deployment.started_unix_ms));
    let end = deployment.end.as_ref().map(|end| EndView {
        state: end.state,
        ended_unix_ms: end.unix_ms,
        live_after_ms,
        requests: outcome.requests,
        failed: outcome.failed,
        cut: outcome.cut,
        receipt: outcome.receipt.clone(),
        reason: end.reason.clone(),
        failures: outcome.failures.clone(),
    });
    let phase = match (&deployment.end, deployment.flipped_unix_ms) {
        (Some(end), _) => end.state.to_string(),
        (None, Some(_)) => "draining".to_owned(),
        (None, None) => "starting".to_owned(),
    };
    DeploymentView {
        id: deployment.id.clone(),
        environment: deployment.environment.clone(),
        app: deployment.app.clone(),
        kind: deployment.kind,
        release: deployment.release,
        version: deployment.version.clone(),
        from: deployment.from.clone(),
        started_unix_ms: deployment.started_unix_ms,
        phase,
        waiting: if end.is_some() { Vec::new() } else { waiting },
        end,
    }
}

pub(crate) fn plan(shared: &Shared) -> PlanView {
    let shown = shared.shown();
    let line =
        |(key, lines): (&SectionKey, &Vec<String>)| lines.iter().map(|l| format!("{key}: {l}")).collect::<Vec<_>>();
    PlanView {
        generation: shared.tables.generation(),
        steps: shown.steps.clone(),
        wake: None,
        report: shown.reports.iter().flat_map(line).collect(),
    }
}
