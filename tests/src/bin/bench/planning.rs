//! Planning: one pass of the controller's core over many apps, on an engine that does at once what it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use appbase_core::v1::{
    Balance, Health, InstanceReport, InstanceSpec, MemberKind, MemberStatus, Policy, Probe, ProcessTraffic, Protocol,
    Release, Route, Source, TrafficSpec,
};
use appbase_core::{
    AppName, ClusterId, DeploymentId, Digest, EnvironmentName, Generation, InstanceId, MemberId, ProcessName,
    ServerName, Version,
};
use controller_core::addresses::{Addresses, Range};
use controller_core::certificates::Offer;
use controller_core::observed::{MemberSeen, Observed};
use controller_core::plan::{Setting, Slice, SlicePlan, Step, plan_slice};
use controller_core::render;
use controller_core::time::Now;
use controller_core::v1::compute::{InstancePhase, ObservedInstance};
use controller_core::v1::state::{Deployment, DeploymentKind, DesiredApp, ReleaseRecord, Run, Timer};
use kit::Clock;

use crate::report::{Samples, rounds, table};

/// A deployment of all of them is over long before so many passes.
const PASSES_MAX: u64 = 60;
const PASS: Duration = Duration::from_secs(10);

struct App {
    name: AppName,
    run: Run,
    deployment: Option<Deployment>,
    releases: BTreeMap<u64, ReleaseRecord>,
    desired: DesiredApp,
}

struct World {
    setting: Setting,
    environment: EnvironmentName,
    apps: Vec<App>,
    engine: BTreeMap<InstanceId, ObservedInstance>,
    addresses: Addresses,
    number: u64,
    now: Duration,
}

pub(crate) fn run() -> String {
    let rows: Vec<_> = [100, 1000]
        .map(|count| {
            let mut world = World::new(count);
            let passes = world.settle();
            let mut quiet = Samples::default();
            for _ in 0..rounds() * 4 {
                quiet.add(world.pass().1);
            }
            vec![count.to_string(), world.engine.len().to_string(), passes.cell(1), quiet.cell(1)]
        })
        .into();
    format!(
        "Every app with two instances; a pass looks at all of them: both tables' sections rendered and digested, every slice \
         planned. One thread.\n\n{}",
        table(
            &["apps", "instances", "a pass while all are being deployed, ms", "a pass with nothing to do, ms"],
            &rows
        )
    )
}

impl World {
    fn new(count: usize) -> Self {
        let setting = Setting {
            cluster: ClusterId::parse("bench").expect("a name"),
            server: ServerName::parse("server-1").expect("a name"),
            repository: "http://repository".to_owned(),
            name_ttl: Duration::from_secs(5),
            boot_restarts: true,
        };
        let environment = EnvironmentName::default_name();
        let apps = (0..count).map(|number| App::new(&environment, number)).collect();
        let addresses = Addresses::new(Range::PROCESS, BTreeMap::new());
        Self {
            setting,
            environment,
            apps,
            engine: BTreeMap::new(),
            addresses,
            number: 1,
            now: Duration::from_secs(100),
        }
    }

    /// Passes until nothing changes any more; milliseconds of each.
    fn settle(&mut self) -> Samples {
        let mut times = Samples::default();
        for _ in 0..PASSES_MAX {
            let (changed, took) = self.pass();
            if !changed && self.apps.iter().all(|app| app.run.deployment.is_none()) {
                return times;
            }
            times.add(took);
        }
        panic!("the apps do not settle");
    }

    /// One pass, and what it asked for done. Whether something changed, and the milliseconds of the pass alone.
    fn pass(&mut self) -> (bool, f64) {
        let observed = self.observed();
        let now = Now { unix_ms: 0, elapsed: self.now };
        let published = Generation { cluster: self.setting.cluster.clone(), epoch: 1, number: self.number };
        let clock = Clock::start();
        let held = self.apps.iter().flat_map(|app| app.run.instances.values().filter_map(|instance| instance.address));
        self.addresses.held(held, now);
        let mut plans = Vec::with_capacity(self.apps.len());
        for app in &self.apps {
            plans.push(app.plan(&self.setting, &self.environment, &observed, &published, &mut self.addresses, now));
        }
        let took = clock.elapsed().as_secs_f64() * 1000.0;
        let mut changed = false;
        for (app, plan) in self.apps.iter_mut().zip(plans) {
            changed |= plan.run.is_some() || plan.deployment.is_some() || !plan.steps.is_empty();
            app.run = plan.run.unwrap_or_else(|| std::mem::take(&mut app.run));
            app.deployment = plan.deployment.or(app.deployment.take()).filter(|deployment| deployment.end.is_none());
            plan.steps.into_iter().for_each(|step| execute(&mut self.engine, step));
        }
        self.number += u64::from(changed);
        self.now += PASS;
        (changed, took)
    }

    /// All members have the newest table, and every instance that runs is up.
    fn observed(&self) -> Observed {
        let report = |id: &InstanceId| {
            let report = InstanceReport {
                health: Health::Up,
                up_for_ms: 60_000,
                in_flight: 0,
                streams: 0,
                drained: true,
                cut: 0,
                last_probe: None,
                ..InstanceReport::default()
            };
            (id.clone(), report)
        };
        let member = |name: &str, kind: MemberKind| {
            let status = MemberStatus {
                kind,
                boot: "b".to_owned(),
                in_force: Some(Generation { cluster: self.setting.cluster.clone(), epoch: 1, number: self.number }),
                refused: None,
                live: BTreeMap::new(),
                instances: if kind == MemberKind::Lb {
                    self.engine.keys().map(report).collect()
                } else {
                    BTreeMap::new()
                },
                counters: BTreeMap::new(),
            };
            let seen = MemberSeen { kind, status: Some(status), silent_for: Duration::ZERO };
            (MemberId::parse(name).expect("a name"), seen)
        };
        Observed {
            servers: BTreeMap::from([(self.setting.server.clone(), Some(self.engine.clone()))]),
            members: BTreeMap::from([member("lb-1", MemberKind::Lb), member("dns-1", MemberKind::Dns)]),
            failed_steps: BTreeMap::new(),
        }
    }
}

impl App {
    /// Its first deployment is accepted.
    fn new(environment: &EnvironmentName, number: usize) -> Self {
        let name = AppName::parse(&format!("app-{number}")).expect("a name");
        let version = Version::parse("1").expect("a version");
        let id = DeploymentId::parse(&format!("d-{number}")).expect("a name");
        let deployment = Deployment {
            id: id.clone(),
            environment: environment.clone(),
            app: name.clone(),
            kind: DeploymentKind::Deploy,
            release: 1,
            version: version.clone(),
            from: None,
            started_unix_ms: 0,
            deadline: Timer::start(Now { unix_ms: 0, elapsed: Duration::from_secs(100) }, 3_600_000),
            cancel: false,
            stage: false,
            flipped_unix_ms: None,
            flip: None,
            drain_deadline: None,
            end: None,
            idempotency_key: None,
        };
        let record = release(environment, &name, version);
        Self {
            name,
            run: Run { releases_made: 1, deployment: Some(id), ..Run::default() },
            deployment: Some(deployment),
            releases: BTreeMap::from([(1, record)]),
            desired: DesiredApp::default(),
        }
    }

    fn plan(
        &self,
        setting: &Setting,
        environment: &EnvironmentName,
        observed: &Observed,
        published: &Generation,
        addresses: &mut Addresses,
        now: Now,
    ) -> SlicePlan {
        let routes =
            render::route_section(environment, &self.name, &self.desired, &self.run, &self.releases, &Offer::default());
        let names = render::name_section(environment, &self.name, &self.run, &self.releases);
        std::hint::black_box((render::digest(&routes), render::digest(&names)));
        let slice = Slice {
            environment,
            app: &self.name,
            desired: &self.desired,
            run: &self.run,
            deployment: self.deployment.as_ref(),
            releases: &self.releases,
            published: Some(published),
        };
        plan_slice(setting, &slice, observed, addresses, now)
    }
}

fn release(environment: &EnvironmentName, app: &AppName, version: Version) -> ReleaseRecord {
    let web = ProcessName::default_name();
    let spec = InstanceSpec {
        source: Source::Artifact { layers: vec![Digest::of(app.as_str().as_bytes())] },
        base: None,
        command: vec!["./app".to_owned()],
        values: BTreeMap::new(),
        port: Some(8080),
        limits: Default::default(),
        overlap: false,
        stop_grace_ms: 1000,
    };
    let host = Some(format!("{app}.test"));
    let release = Release {
        needs: Vec::new(),
        app: app.clone(),
        environment: environment.clone(),
        number: 1,
        version,
        processes: BTreeMap::from([(web.clone(), spec)]),
        traffic: TrafficSpec {
            routes: vec![Route::new(host, "/", web.clone())],
            processes: BTreeMap::from([(
                web.clone(),
                ProcessTraffic { probe: Probe::default(), balance: Balance::default(), protocol: Protocol::default() },
            )]),
            policy: Policy::default(),
        },
    };
    ReleaseRecord {
        document: Digest::of(b"document"),
        release,
        scale: BTreeMap::from([(web, 2)]),
        made_unix_ms: 0,
        overlay: Default::default(),
    }
}

fn execute(engine: &mut BTreeMap<InstanceId, ObservedInstance>, step: Step) {
    match step {
        Step::Create(request) => {
            let made = ObservedInstance {
                id: request.id.clone(),
                labels: request.labels,
                phase: InstancePhase::Running,
                restarts: 0,
                last_exit: None,
                problem: None,
                running_for_ms: 60_000,
            };
            engine.insert(request.id, made);
        }
        Step::Remove { id, .. } => drop(engine.remove(&id)),
        Step::Start { .. } | Step::Stop { .. } => unreachable!("nothing ends here"),
    }
}
