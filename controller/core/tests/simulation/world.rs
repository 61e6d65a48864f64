//! World: a fake engine, fake lbs and a fake dns around the real core, driven by a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use appbase_core::v1::{
    Balance, Health, InstanceReport, InstanceSpec, MemberKind, MemberStatus, Policy, Probe, ProcessTraffic, Protocol,
    Release, Route, Source, TrafficSpec,
};
use appbase_core::{
    AppName, ClusterId, DeploymentId, Digest, EnvironmentName, Generation, InstanceId, MemberId, ProcessName,
    ReleaseNumber, ServerName, Version,
};
use controller_core::addresses::{Addresses, Range};
use controller_core::certificates::Offer;
use controller_core::observed::{MemberSeen, Observed};
use controller_core::plan::{Setting, Slice, SlicePlan, Step, plan_slice};
use controller_core::render;
use controller_core::time::Now;
use controller_core::v1::compute::{InstanceLabels, InstancePhase, ObservedInstance};
use controller_core::v1::state::{Deployment, DeploymentKind, DesiredApp, ReleaseRecord, Run, Split, Timer, Traffic};
use lb_core::v1::{InstanceState, RouteSection};

pub(crate) const INSTANCES: u32 = 2;

/// A small generator: the seed is the whole story of a run.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    pub(crate) fn one_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }
}

/// A load balancer as the planner knows it: a table in force, and what is in flight where.
#[derive(Clone, Default)]
pub(crate) struct FakeLb {
    pub(crate) in_force: Option<u64>,
    pub(crate) section: Option<RouteSection>,
    pub(crate) up_since: BTreeMap<InstanceId, Duration>,
    pub(crate) in_flight: BTreeMap<InstanceId, u32>,
    pub(crate) reachable: bool,
    pub(crate) said: Option<(MemberStatus, Duration)>,
}

pub(crate) struct World {
    pub(crate) chance: Chance,
    pub(crate) now: Duration,
    pub(crate) run: Run,
    pub(crate) deployments: BTreeMap<DeploymentId, Deployment>,
    pub(crate) releases: BTreeMap<ReleaseNumber, ReleaseRecord>,
    pub(crate) bad: BTreeSet<ReleaseNumber>,
    pub(crate) desired: DesiredApp,
    pub(crate) addresses: Addresses,
    pub(crate) engine: BTreeMap<InstanceId, ObservedInstance>,
    /// What is out: number and section.
    pub(crate) published: Option<(u64, Option<RouteSection>)>,
    pub(crate) revision: u64,
    pub(crate) lbs: BTreeMap<MemberId, FakeLb>,
    pub(crate) dns: Option<u64>,
    pub(crate) server_seen: bool,
    pub(crate) served: u64,
}

pub(crate) fn app() -> AppName {
    AppName::parse("shop").expect("a name")
}

pub(crate) fn environment() -> EnvironmentName {
    EnvironmentName::default_name()
}

pub(crate) fn setting() -> Setting {
    Setting {
        cluster: ClusterId::parse("c1").expect("a name"),
        server: ServerName::parse("server-1").expect("a name"),
        repository: "http://repository".to_owned(),
        name_ttl: Duration::from_secs(5),
        boot_restarts: true,
    }
}

pub(crate) fn generation(number: u64) -> Generation {
    Generation { cluster: setting().cluster, epoch: 1, number }
}

pub(crate) fn release(number: ReleaseNumber) -> ReleaseRecord {
    let web = ProcessName::default_name();
    let spec = InstanceSpec {
        source: Source::Artifact { layers: vec![Digest::of(&number.to_be_bytes())] },
        base: None,
        command: vec!["./shop".to_owned()],
        values: BTreeMap::new(),
        port: Some(8080),
        limits: Default::default(),
        overlap: false,
        stop_grace_ms: 1000,
    };
    let worker = InstanceSpec { port: None, command: vec!["./work".to_owned()], ..spec.clone() };
    let worker_name = ProcessName::parse("worker").expect("a name");
    let policy = Policy { probe_deadline_ms: 30_000, rollback_window_ms: 60_000, ..Policy::default() };
    let release = Release {
        needs: Vec::new(),
        app: app(),
        environment: environment(),
        number,
        version: Version::parse(&number.to_string()).expect("a version"),
        processes: BTreeMap::from([(web.clone(), spec), (worker_name.clone(), worker)]),
        traffic: TrafficSpec {
            routes: vec![Route::new(None, "/", web.clone())],
            processes: BTreeMap::from([(
                web.clone(),
                ProcessTraffic { probe: Probe::default(), balance: Balance::default(), protocol: Protocol::default() },
            )]),
            policy,
        },
    };
    let scale = BTreeMap::from([(web, INSTANCES), (worker_name, 1)]);
    ReleaseRecord { document: Digest::of(b"document"), release, scale, made_unix_ms: 0, overlay: Default::default() }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let lb = |name: &str| (MemberId::parse(name).expect("a name"), FakeLb { reachable: true, ..FakeLb::default() });
        Self {
            chance: Chance(seed.wrapping_mul(2) + 1),
            now: Duration::from_secs(100),
            run: Run::default(),
            deployments: BTreeMap::new(),
            releases: BTreeMap::new(),
            bad: BTreeSet::new(),
            desired: DesiredApp::default(),
            addresses: Addresses::new(Range::PROCESS, BTreeMap::new()),
            engine: BTreeMap::new(),
            published: None,
            revision: 0,
            lbs: BTreeMap::from([lb("lb-1"), lb("lb-2")]),
            dns: None,
            server_seen: true,
            served: 0,
        }
    }

    pub(crate) fn deploy(&mut self, number: ReleaseNumber, bad: bool) {
        self.releases.entry(number).or_insert_with(|| release(number));
        if bad {
            self.bad.insert(number);
        }
        self.run.releases_made = self.run.releases_made.max(number);
        let id = DeploymentId::parse(&format!("d-{}", self.deployments.len() + 1)).expect("a name");
        let deployment = Deployment {
            id: id.clone(),
            environment: environment(),
            app: app(),
            kind: DeploymentKind::Deploy,
            release: number,
            version: Version::parse(&number.to_string()).expect("a version"),
            from: None,
            started_unix_ms: 0,
            deadline: Timer::start(self.time(), 30_000),
            cancel: false,
            stage: false,
            flipped_unix_ms: None,
            flip: None,
            drain_deadline: None,
            end: None,
            idempotency_key: None,
        };
        self.run.deployment = Some(id.clone());
        self.deployments.insert(id, deployment);
    }

    pub(crate) fn time(&self) -> Now {
        Now { unix_ms: self.now.as_millis() as u64, elapsed: self.now }
    }

    pub(crate) fn section(&self) -> Option<RouteSection> {
        render::route_section(&environment(), &app(), &self.desired, &self.run, &self.releases, &Offer::default())
    }

    pub(crate) fn observed(&self) -> Observed {
        let mut members = BTreeMap::new();
        for (id, lb) in &self.lbs {
            let silent_for = lb.said.as_ref().map_or(self.now, |(_, at)| self.now.saturating_sub(*at));
            let status = lb.said.as_ref().map(|(status, _)| status.clone());
            members.insert(id.clone(), MemberSeen { kind: MemberKind::Lb, status, silent_for });
        }
        let status = status(MemberKind::Dns, self.dns);
        let dns = MemberSeen { kind: MemberKind::Dns, status: Some(status), silent_for: Duration::ZERO };
        members.insert(MemberId::parse("dns-1").expect("a name"), dns);
        let servers = BTreeMap::from([(setting().server, self.server_seen.then(|| self.engine.clone()))]);
        Observed { servers, members, failed_steps: BTreeMap::new() }
    }

    pub(crate) fn plan(&mut self) -> SlicePlan {
        let section = self.section();
        let published =
            self.published.as_ref().filter(|(_, out)| *out == section).map(|(number, _)| generation(*number));
        let held: Vec<_> = self.run.instances.values().filter_map(|i| i.address).collect();
        let now = self.time();
        self.addresses.held(held.into_iter(), now);
        let (environment, app, observed, setting) = (environment(), app(), self.observed(), setting());
        let slice = Slice {
            environment: &environment,
            app: &app,
            desired: &self.desired,
            run: &self.run,
            deployment: self.run.deployment.as_ref().and_then(|id| self.deployments.get(id)),
            releases: &self.releases,
            published: published.as_ref(),
        };
        let plan = plan_slice(&setting, &slice, &observed, &mut self.addresses, now);
        if !self.server_seen {
            assert!(
                !plan.steps.iter().any(|step| matches!(step, Step::Stop { .. } | Step::Remove { .. })),
                "a gap removes nothing: {:?}",
                plan.steps
            );
        }
        plan
    }

    /// One pass of a controller that may end after any of its writes.
    pub(crate) fn controller(&mut self, crashes: bool) {
        let plan = self.plan();
        if let Some(run) = plan.run {
            self.run = run;
        }
        if let Some(deployment) = plan.deployment {
            self.deployments.insert(deployment.id.clone(), deployment);
        }
        self.revision += 1;
        if crashes && self.chance.one_in(6) {
            return;
        }
        let section = self.section();
        if self.published.as_ref().is_none_or(|(_, out)| *out != section) {
            self.revision += 1;
            self.published = Some((self.revision, section));
        }
        for step in plan.steps {
            if crashes && self.chance.one_in(6) {
                return;
            }
            let breaks_off = crashes && self.chance.one_in(6);
            self.execute(step, breaks_off);
        }
    }

    /// A making that breaks off leaves something behind that must not be started as it is.
    pub(crate) fn execute(&mut self, step: Step, breaks_off: bool) {
        match step {
            Step::Create(request) => {
                let id = request.id.clone();
                let made = self.engine.entry(id.clone()).or_insert_with(|| observed_instance(id, request.labels));
                if !breaks_off {
                    made.phase = InstancePhase::Running;
                }
            }
            Step::Start { id, .. } => {
                if let Some(instance) = self.engine.get_mut(&id) {
                    assert_ne!(instance.phase, InstancePhase::Created, "{id} is started although its making broke off");
                    instance.phase = InstancePhase::Running;
                }
            }
            Step::Stop { id, .. } => {
                self.assert_free_of_traffic(&id);
                if let Some(instance) = self.engine.get_mut(&id) {
                    instance.phase = InstancePhase::Ended;
                }
            }
            Step::Remove { id, .. } => {
                self.assert_free_of_traffic(&id);
                self.engine.remove(&id);
            }
        }
    }

    /// The promise: nothing that any lb may still send to is stopped, whether that lb is heard or not.
    pub(crate) fn assert_free_of_traffic(&self, id: &InstanceId) {
        for (name, lb) in &self.lbs {
            let takes = lb.section.as_ref().is_some_and(|section| {
                section.pools.values().any(|pool| {
                    pool.weight > 0 && pool.instances.get(id).is_some_and(|i| i.state == InstanceState::Active)
                })
            });
            assert!(!takes, "{id} is stopped while {name} sends requests to it");
            assert_eq!(lb.in_flight.get(id).copied().unwrap_or_default(), 0, "{id} is stopped with requests of {name}");
        }
    }

    /// Members take tables, probe, send and finish requests, and tell.
    pub(crate) fn members(&mut self) {
        let (out, now, bad) = (self.published.clone(), self.now, self.bad.clone());
        if !self.chance.one_in(4)
            && let Some((number, _)) = &out
        {
            self.dns = Some(*number);
        }
        let names: Vec<_> = self.lbs.keys().cloned().collect();
        for name in names {
            let lazy = self.chance.one_in(4);
            let (traffic, finish) = (self.chance.below(3), self.chance.below(4));
            let lb = self.lbs.get_mut(&name).expect("listed above");
            if lb.reachable
                && !lazy
                && let Some((number, section)) = &out
            {
                lb.in_force = Some(*number);
                lb.section = section.clone();
            }
            probe(lb, &self.engine, &bad, now);
            for count in lb.in_flight.values_mut() {
                *count = count.saturating_sub(finish as u32);
            }
            for _ in 0..traffic {
                self.served += u64::from(send(lb, &self.engine, now));
            }
            if lb.reachable {
                lb.said = Some((report(lb, now), now));
            }
        }
    }

    pub(crate) fn disturb(&mut self) {
        match self.chance.below(24) {
            0 => {
                let name = if self.chance.one_in(2) { "lb-1" } else { "lb-2" };
                let lb = self.lbs.get_mut(name).expect("there are two");
                lb.reachable = !lb.reachable;
            }
            1 => self.server_seen = !self.server_seen,
            2 if self.run.deployment.is_none() => {
                let next = self.run.releases_made + 1;
                let bad = next > 1 && self.chance.one_in(4);
                self.deploy(next, bad);
                if self.chance.one_in(3)
                    && let Some(deployment) = self.run.deployment.as_ref().and_then(|id| self.deployments.get_mut(id))
                {
                    deployment.stage = true;
                }
            }
            3 if self.run.deployment.is_none() && self.run.releases_made > 1 => {
                let number = 1 + self.chance.below(self.run.releases_made);
                if render::live_release(&self.run) != Some(number) {
                    self.deploy(number, false);
                }
            }
            4 => {
                if let Some(id) = &self.run.deployment
                    && let Some(deployment) = self.deployments.get_mut(id)
                    && deployment.flipped_unix_ms.is_none()
                {
                    deployment.cancel = true;
                }
            }
            5 => {
                let count = 1 + self.chance.below(4) as u32;
                self.desired.scale.insert(ProcessName::default_name(), count);
            }
            6 => {
                let percent = self.chance.below(100) as u8;
                let split = |release| Split { release, percent, ..Split::default() };
                self.desired.split = self.run.staged.map(split).filter(|split| split.percent > 20);
            }
            7 if self.run.deployment.is_none() => self.run.staged = None,
            _ => {}
        }
    }

    pub(crate) fn step(&mut self, disturbed: bool) {
        if disturbed {
            self.disturb();
        }
        let jump = if disturbed { self.chance.below(3_000) } else { 700 };
        self.now += Duration::from_millis(jump);
        self.controller(disturbed);
        self.members();
        self.check();
    }

    /// Promises that hold after every step.
    pub(crate) fn check(&self) {
        let run = &self.run;
        if let Some(live) = render::live_release(run) {
            let active = run
                .instances
                .values()
                .filter(|i| i.release == live && i.state == Traffic::Active && i.address.is_some());
            assert!(active.count() > 0, "the live release has instances that take traffic");
        }
        let mut seen = BTreeSet::new();
        for instance in run.instances.values() {
            if let Some(address) = instance.address {
                assert!(seen.insert(address), "two instances at {address}");
            }
            assert!(
                instance.state != Traffic::Active || render::live_release(run) == Some(instance.release),
                "only the live release is active"
            );
        }
    }

    pub(crate) fn settle(&mut self) {
        for lb in self.lbs.values_mut() {
            lb.reachable = true;
        }
        self.server_seen = true;
        for _ in 0..800 {
            self.step(false);
        }
        let plan = self.plan();
        assert_eq!(plan.run, None, "settled means nothing changes: {:?}", plan.report);
        assert!(plan.steps.is_empty(), "settled means nothing to do: {:?}", plan.steps);
        for deployment in self.deployments.values() {
            assert!(deployment.end.is_some(), "every deployment ends: {deployment:?}");
        }
        let engine: BTreeSet<_> = self.engine.keys().collect();
        assert_eq!(engine, self.run.instances.keys().collect(), "the engine shows what is recorded and nothing else");
        if let Some(live) = render::live_release(&self.run) {
            let web = ProcessName::default_name();
            let wanted = self.desired.scale.get(&web).copied().unwrap_or(INSTANCES);
            let active = self.run.instances.values().filter(|i| i.release == live && i.process == web);
            assert_eq!(active.filter(|i| i.state == Traffic::Active).count(), wanted as usize);
            assert!(!self.bad.contains(&live), "a release that never comes up is never live");
        }
    }
}

pub(crate) fn observed_instance(id: InstanceId, labels: InstanceLabels) -> ObservedInstance {
    ObservedInstance {
        id,
        labels,
        phase: InstancePhase::Created,
        restarts: 0,
        last_exit: None,
        problem: None,
        running_for_ms: 60_000,
    }
}

pub(crate) fn status(kind: MemberKind, in_force: Option<u64>) -> MemberStatus {
    MemberStatus {
        kind,
        boot: "b".to_owned(),
        in_force: in_force.map(generation),
        refused: None,
        live: BTreeMap::new(),
        instances: BTreeMap::new(),
        counters: BTreeMap::new(),
    }
}

pub(crate) fn instances(section: &RouteSection) -> impl Iterator<Item = (&InstanceId, InstanceState, ReleaseNumber)> {
    section.pools.iter().flat_map(|(release, pool)| pool.instances.iter().map(move |(id, i)| (id, i.state, *release)))
}

pub(crate) fn probe(
    lb: &mut FakeLb,
    engine: &BTreeMap<InstanceId, ObservedInstance>,
    bad: &BTreeSet<ReleaseNumber>,
    now: Duration,
) {
    let Some(section) = &lb.section else { return };
    for (id, _, release) in instances(section) {
        let running = engine.get(id).is_some_and(|instance| instance.phase == InstancePhase::Running);
        if running && !bad.contains(&release) {
            lb.up_since.entry(id.clone()).or_insert(now);
        } else {
            lb.up_since.remove(id);
        }
    }
}

/// One request to an active instance of the live pool. What it meets must be running.
pub(crate) fn send(lb: &mut FakeLb, engine: &BTreeMap<InstanceId, ObservedInstance>, now: Duration) -> bool {
    let Some(section) = &lb.section else { return false };
    let takes = |(id, state, _): &(&InstanceId, InstanceState, ReleaseNumber)| {
        *state == InstanceState::Active && lb.up_since.contains_key(*id)
    };
    let Some((id, _, _)) = instances(section).find(takes) else { return false };
    let phase = engine.get(id).map(|instance| instance.phase);
    assert_eq!(phase, Some(InstancePhase::Running), "a request at {now:?} meets {id} while it does not run");
    *lb.in_flight.entry(id.clone()).or_default() += 1;
    true
}

pub(crate) fn report(lb: &FakeLb, now: Duration) -> MemberStatus {
    let mut status = status(MemberKind::Lb, lb.in_force);
    for (id, state, _) in lb.section.iter().flat_map(instances) {
        let in_flight = u64::from(lb.in_flight.get(id).copied().unwrap_or_default());
        let up_since = lb.up_since.get(id);
        let report = InstanceReport {
            health: if up_since.is_some() { Health::Up } else { Health::Down },
            up_for_ms: up_since.map_or(0, |since| (now - *since).as_millis() as u64),
            in_flight,
            streams: 0,
            drained: state == InstanceState::Draining && in_flight == 0,
            cut: 0,
            last_probe: None,
            ..InstanceReport::default()
        };
        status.instances.insert(id.clone(), report);
    }
    status
}
