//! A load balancer that follows a stand-in controller, and tables for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use appbase_core::v1::{Balance, Probe, Route, Tls};
use appbase_core::{AppName, EnvironmentName, InstanceId, MemberId, ProcessName};
use kit::{Shutdown, Tasks};
use lb::{AccessSettings, Config, Handle, Limits, TraceSettings};
use lb_core::v1::{Drain, InstanceState, Pool, PoolInstance, RouteSection};

use crate::app::App;
use crate::client::Client;
use crate::controller::Controller;

pub(crate) use InstanceState::{Active, Draining, Standby};

pub(crate) struct Stage {
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: Shutdown,
    pub(crate) controller: Arc<Controller>,
    pub(crate) lb: Handle,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    pub(crate) async fn start_with(data: Option<PathBuf>) -> Self {
        Self::start_as(Config { data, ..config() }).await
    }

    /// With a controller of its own, whatever `config` says.
    pub(crate) async fn start_as(config: Config) -> Self {
        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        let controller = Controller::start(&tasks, &shutdown).await;
        let url = format!("http://{}", controller.address);
        let lb = lb::run(Config { controller: Some(url), ..config }, &tasks, &shutdown).await.unwrap();
        Self { tasks, shutdown, controller, lb }
    }

    pub(crate) async fn app(&self, name: &'static str) -> Arc<App> {
        App::start(name, &self.tasks, &self.shutdown).await
    }

    /// One app, active and up.
    pub(crate) async fn with_app(name: &'static str) -> (Self, Arc<App>) {
        let stage = Self::start().await;
        let app = stage.app(name).await;
        stage.controller.publish(&[section(&[(&app, Active)])]).await;
        stage.up(name).await;
        (stage, app)
    }

    pub(crate) async fn up(&self, id: &str) {
        let up = |report: &appbase_core::v1::InstanceReport| report.health == appbase_core::v1::Health::Up;
        self.controller.until_instance(id, "up", up).await;
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.lb.http, &self.tasks).await.unwrap()
    }

    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        let mut client = Client::connect(self.lb.admin, &self.tasks).await.unwrap();
        let answer = client.get(path).await.unwrap();
        (answer.status.as_u16(), answer.body)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shutdown.ask();
    }
}

pub(crate) fn config() -> Config {
    let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Config {
        http: anywhere,
        https: None,
        https_public_port: None,
        admin: anywhere,
        member: MemberId::parse("lb-1").unwrap(),
        controller: None,
        token_file: None,
        data: None,
        table: None,
        threads: Some(2),
        proxies: Vec::new(),
        access: AccessSettings::default(),
        trace: TraceSettings::default(),
        upgrade: lb::Upgrade::default(),
        limits: Limits::default(),
    }
}

/// App `hello` with a route for every host. Each instance is a release of its own, named like its app.
pub(crate) fn section(instances: &[(&Arc<App>, InstanceState)]) -> RouteSection {
    let named: Vec<_> = instances.iter().map(|(app, state)| (app.name, app.address, *state)).collect();
    section_of(&named)
}

/// The same with all of them in one release.
pub(crate) fn together(apps: &[&Arc<App>], balance: Balance) -> RouteSection {
    let mut section = section(&apps.iter().map(|app| (*app, Active)).collect::<Vec<_>>());
    let pools = std::mem::take(&mut section.pools);
    let pool = pools.into_values().reduce(|mut all, pool| {
        all.instances.extend(pool.instances);
        all
    });
    let mut pool = pool.unwrap();
    pool.balance.insert(ProcessName::default_name(), balance);
    section.pools.insert(1, pool);
    section
}

/// Each of these sections as one release of the first one's app.
pub(crate) fn together_of<const N: usize>(sections: [RouteSection; N]) -> RouteSection {
    let mut pools = BTreeMap::new();
    let mut first = None;
    for (release, mut section) in (1..).zip(sections) {
        let merged = std::mem::take(&mut section.pools).into_values().reduce(|mut all, pool| {
            all.instances.extend(pool.instances);
            all.weight = all.weight.max(pool.weight);
            all
        });
        pools.insert(release, merged.unwrap());
        first.get_or_insert(section);
    }
    RouteSection { pools, ..first.unwrap() }
}

/// The same for instances that are no [`App`].
pub(crate) fn section_of(instances: &[(&str, SocketAddr, InstanceState)]) -> RouteSection {
    let web = ProcessName::default_name();
    let probe = Probe { interval_ms: 50, timeout_ms: 500, rise: 1, fall: 2, startup_ms: 0, ..Probe::default() };
    let pool = |(name, address, state): &(&str, SocketAddr, InstanceState)| {
        let instance = PoolInstance { process: web.clone(), address: *address, state: *state };
        let instances = BTreeMap::from([(InstanceId::parse(name).unwrap(), instance)]);
        let probes = BTreeMap::from([(web.clone(), probe.clone())]);
        Pool { weight: u32::from(*state == Active), probes, instances, ..Pool::default() }
    };
    let live = instances.iter().position(|(_, _, state)| *state == Active).map(|at| at as u64 + 1);
    RouteSection {
        environment: EnvironmentName::default_name(),
        app: AppName::parse("hello").unwrap(),
        live,
        routes: vec![Route::new(None, "/", web.clone())],
        pools: (1..).zip(instances.iter().map(pool)).collect(),
        hold: false,
        maintenance: None,
        drain: Drain { requests_ms: 5_000, streams_ms: 5_000 },
        cohorts: Vec::new(),
        preview: None,
        mirror: None,
        notice: None,
        tls: Tls::default(),
    }
}

/// Waits until `done`, looking every few milliseconds.
pub(crate) async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "did not come in time: {what}");
}
