//! Render: run records become the route table and the name table. Same records, same tables.

use std::collections::BTreeMap;

use appbase_core::v1::{Balance, Policy, Probe, Protocol, Tls};
use appbase_core::{AppName, Digest, EnvironmentName, ProcessName, ReleaseNumber};
use dns_core::v1::{AppNames, NameSection, NamedInstance};
use lb_core::v1::{Cohort, Conditions, Drain, InstanceState, Mirror, Pool, PoolInstance, Preview, RouteSection};
use serde::Serialize;

use crate::certificates::{self, Offer};
use crate::v1::state::{DesiredApp, ReleaseRecord, Run, Split, Traffic};

/// What lb needs of one app; none while nothing of it takes or will take traffic. Of the certificates on offer it gets
/// those for the hosts of the live release.
pub fn route_section(
    environment: &EnvironmentName,
    app: &AppName,
    desired: &DesiredApp,
    run: &Run,
    releases: &BTreeMap<ReleaseNumber, ReleaseRecord>,
    offer: &Offer<'_>,
) -> Option<RouteSection> {
    let live = live_release(run);
    let split = desired.split.as_ref().filter(|split| run.staged == Some(split.release));
    let mut pools: BTreeMap<ReleaseNumber, Pool> = BTreeMap::new();
    for (id, instance) in &run.instances {
        let (Some(address), Some(state)) = (instance.address, pool_state(instance.state)) else { continue };
        let takes = split.is_some_and(|split| split.release == instance.release && split.percent > 0);
        let state = if takes && state == InstanceState::Standby { InstanceState::Active } else { state };
        let pool = pools.entry(instance.release).or_insert_with(|| Pool {
            weight: weight(live, split, instance.release),
            probes: releases.get(&instance.release).map(probes).unwrap_or_default(),
            balance: releases.get(&instance.release).map(balance).unwrap_or_default(),
            protocols: releases.get(&instance.release).map(protocols).unwrap_or_default(),
            instances: BTreeMap::new(),
        });
        pool.instances.insert(id.clone(), PoolInstance { process: instance.process.clone(), address, state });
    }
    let shown = live.and_then(|live| releases.get(&live));
    if shown.is_none() && pools.is_empty() {
        return None;
    }
    let (default, routes) = (Policy::default(), certificates::live_routes(run, releases));
    let policy = shown.map_or(&default, |record| &record.release.traffic.policy);
    Some(RouteSection {
        environment: environment.clone(),
        app: app.clone(),
        live,
        routes: routes.to_vec(),
        pools,
        hold: desired.hold,
        maintenance: desired.maintenance.clone(),
        drain: Drain { requests_ms: policy.request_drain_ms, streams_ms: policy.stream_drain_ms },
        cohorts: split.map(cohorts).unwrap_or_default(),
        preview: desired
            .preview
            .as_ref()
            .map(|secret| Preview { secret: Digest::of(secret.as_bytes()), slots: run.slots.clone() }),
        mirror: split.and_then(|Split { release, mirror, .. }| {
            (*mirror > 0).then_some(Mirror { release: *release, percent: *mirror })
        }),
        notice: desired.notice.clone(),
        tls: Tls {
            policy: policy.https.clone(),
            certificates: offer.shown(routes),
            challenges: offer.challenges(routes),
            handshakes: offer.handshakes(routes),
            ..Tls::default()
        },
    })
}

/// What dns needs of one app: what is draining, or has drained, is no longer in it.
pub fn name_section(
    environment: &EnvironmentName,
    app: &AppName,
    run: &Run,
    releases: &BTreeMap<ReleaseNumber, ReleaseRecord>,
    offer: &Offer<'_>,
) -> Option<NameSection> {
    let live = live_release(run);
    let mut instances = BTreeMap::new();
    for (id, instance) in &run.instances {
        let (Some(address), Some(record)) = (instance.address, releases.get(&instance.release)) else { continue };
        let active = match instance.state {
            Traffic::Active => true,
            Traffic::Standby => false,
            Traffic::Draining { .. } | Traffic::Warm | Traffic::Retiring => continue,
        };
        let named = NamedInstance {
            process: instance.process.clone(),
            number: instance.number,
            release: instance.release,
            version: record.release.version.clone(),
            address: address.ip(),
            port: Some(address.port()),
            active,
        };
        instances.insert(id.clone(), named);
    }
    if live.is_none() && instances.is_empty() {
        return None;
    }
    let routed = live.and_then(|live| releases.get(&live)).is_some_and(|r| !r.release.traffic.routes.is_empty());
    Some(NameSection::App(AppNames {
        environment: environment.clone(),
        app: app.clone(),
        default_environment: environment.is_default(),
        routed,
        live,
        instances,
        texts: offer.texts(certificates::live_routes(run, releases)),
    }))
}

/// Digest of a section as it is published.
pub fn digest<S: Serialize>(section: &S) -> Digest {
    Digest::of(&serde_json::to_vec(section).expect("sections have text keys"))
}

pub fn live_release(run: &Run) -> Option<ReleaseNumber> {
    run.slots.get(&run.live?).copied()
}

fn weight(live: Option<ReleaseNumber>, split: Option<&Split>, release: ReleaseNumber) -> u32 {
    let staged = split.map_or(0, |split| u32::from(split.percent));
    match split {
        Some(split) if split.release == release => staged,
        _ if live == Some(release) => 100 - staged,
        _ => 0,
    }
}

fn cohorts(split: &Split) -> Vec<Cohort> {
    let cohort = |conditions: &Conditions| Cohort { release: split.release, conditions: conditions.clone() };
    split.cohorts.iter().map(cohort).collect()
}

fn probes(record: &ReleaseRecord) -> BTreeMap<ProcessName, Probe> {
    let processes = &record.release.traffic.processes;
    processes.iter().map(|(name, traffic)| (name.clone(), traffic.probe.clone())).collect()
}

/// Where it is not what is usual anyway.
fn balance(record: &ReleaseRecord) -> BTreeMap<ProcessName, Balance> {
    let processes = &record.release.traffic.processes;
    let own = processes.iter().filter(|(_, traffic)| traffic.balance != Balance::default());
    own.map(|(name, traffic)| (name.clone(), traffic.balance.clone())).collect()
}

/// Where it is not HTTP/1.1.
fn protocols(record: &ReleaseRecord) -> BTreeMap<ProcessName, Protocol> {
    let processes = &record.release.traffic.processes;
    let own = processes.iter().filter(|(_, traffic)| !traffic.protocol.is_default());
    own.map(|(name, traffic)| (name.clone(), traffic.protocol)).collect()
}

fn pool_state(state: Traffic) -> Option<InstanceState> {
    match state {
        Traffic::Standby | Traffic::Warm => Some(InstanceState::Standby),
        Traffic::Active => Some(InstanceState::Active),
        Traffic::Draining { .. } => Some(InstanceState::Draining),
        Traffic::Retiring => None,
    }
}
