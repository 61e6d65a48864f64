//! Run: opens the store, starts loop and API, answers the address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use appbase_core::v1::{Counters, Policy, Probe};
use appbase_core::{ClusterId, DeploymentId, EnvironmentName, SectionKey};
use controller_core::addresses::{Addresses, Range};
use controller_core::observed::Observed;
use controller_core::plan::Setting;
use controller_core::resolve::Defaults;
use controller_core::time::Now;
use controller_core::v1::state::Cluster;
use dns_core::v1::{PlatformNames, View};
use kit::client::Client;
use kit::problem::Problem;
use kit::{Clock, Shutdown, Tasks};
use node::Compute;
use tokio::sync::Notify;

use crate::config::{Config, Engine};
use crate::journal::Journal;
use crate::members::Members;
use crate::reconcile::Reconcile;
use crate::records::{self, Records, Write, lock};
use crate::repository::Repository;
use crate::store::{Revision, SqliteStore, Store, StoreError};
use crate::tables::{Rendered, Tables};

/// The default environment's place in the cluster's range.
const DEFAULT_NETWORK: u8 = 1;
/// How often a wait for a state of the records looks.
const UNTIL_LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the journal cannot be opened")]
    Journal(#[from] rusqlite::Error),
    #[error(transparent)]
    Bind(#[from] kit::serve::BindError),
    #[error("the cluster's id cannot be read from {path}: {reason}; make it with: platformer init --data DIR")]
    ClusterFile { path: std::path::PathBuf, reason: String },
    #[error("the engine cannot be used")]
    Compute(#[from] node::ComputeError),
    #[error("the process engine cannot be used")]
    Process(#[from] node::process::ProcessError),
    #[error("cannot serve")]
    Io(#[from] std::io::Error),
}

/// A running controller.
#[derive(Debug)]
pub struct Handle {
    pub api: SocketAddr,
    pub cluster: ClusterId,
}

/// What the loop and the API share.
pub(crate) struct Shared {
    pub config: Config,
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub records: Mutex<Records>,
    /// Whoever writes holds it: one writer at a time, across waits.
    pub pen: tokio::sync::Mutex<()>,
    pub journal: Journal,
    pub tables: Tables,
    pub members: Members,
    pub repository: Repository,
    pub compute: Arc<dyn Compute>,
    pub defaults: Defaults,
    pub platform: PlatformNames,
    pub look_again: Notify,
    /// Why the server cannot be seen, while it cannot.
    pub gap: Mutex<Option<String>>,
    pub shutdown: Shutdown,
    shown: Mutex<Arc<Shown>>,
    baselines: Mutex<BTreeMap<DeploymentId, Counters>>,
}

/// The last pass, for people.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub observed: Observed,
    pub steps: Vec<String>,
    pub reports: BTreeMap<SectionKey, Vec<String>>,
}

impl Shared {
    pub(crate) fn now(&self) -> Now {
        Now { unix_ms: self.clock.unix_ms(), elapsed: self.clock.elapsed() }
    }

    /// Commits with the pen held by the caller.
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        records::commit(&*self.store, &self.records, writes).await
    }

    pub(crate) fn show(&self, observed: Observed, steps: Vec<String>, reports: BTreeMap<SectionKey, Vec<String>>) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(Shown { observed, steps, reports });
    }

    pub(crate) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers the counters at the start of a deployment.
    pub(crate) fn baseline(&self, id: &DeploymentId, key: &SectionKey) {
        let counters = self.members.counters(key, None);
        self.baselines.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), counters);
    }

    /// Requests and failures since then, and forgets it.
    pub(crate) fn since_baseline(&self, id: &DeploymentId, key: &SectionKey) -> (u64, u64) {
        let baseline = self.baselines.lock().unwrap_or_else(PoisonError::into_inner).remove(id).unwrap_or_default();
        let now = self.members.counters(key, None);
        (now.requests.saturating_sub(baseline.requests), now.failed.saturating_sub(baseline.failed))
    }

    /// Waits until the records are so, at most `limit`.
    pub(crate) async fn until(&self, limit: Duration, so: impl Fn(&Records) -> bool) -> Option<()> {
        let looked = async {
            while !so(&lock(&self.records)) {
                tokio::time::sleep(UNTIL_LOOK).await;
            }
        };
        tokio::time::timeout(limit, looked).await.ok()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(507, "not-stored", "the change could not be stored; nothing of it is in force")
            .detail(kit::problem::chain(&error))
            .hint("see whether the disk of the controller is full")
    }
}

pub async fn run(config: Config, tasks: &Tasks, shutdown: &Shutdown) -> Result<Handle, RunError> {
    let clock = Clock::start();
    let listener = kit::serve::bind(config.listen).await?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&config.data)?);
    let identity = config.cluster_file.as_deref().map(read_cluster).transpose()?;
    let records = Records::load(&*store, || identity.unwrap_or_else(new_cluster)).await?;
    let journal = Journal::open(&config.data)?;
    let cluster = records.cluster.clone();
    let compute = compute(&config, &cluster.id, tasks, shutdown, clock).await?;
    let (engine_range, setting) = setting(&config, &cluster.id);
    let tables = Tables::new(cluster.clone());
    let platform = platform_names(&config);
    restore_tables(&tables, &records, &platform);
    let shared = Arc::new(Shared {
        clock,
        store,
        records: Mutex::new(records),
        pen: tokio::sync::Mutex::new(()),
        journal,
        tables,
        members: Members::default(),
        repository: Repository::new(Client::new(&config.repository, None)),
        compute,
        defaults: defaults(&config),
        platform,
        look_again: Notify::new(),
        gap: Mutex::default(),
        shutdown: shutdown.clone(),
        shown: Mutex::default(),
        baselines: Mutex::default(),
        config,
    });
    let networks = BTreeMap::from([(EnvironmentName::default_name(), DEFAULT_NETWORK)]);
    let addresses = Addresses::new(engine_range, networks);
    let reconcile = Reconcile::new(Arc::clone(&shared), setting, addresses, tasks.clone());
    let stop = shutdown.asked();
    tasks.spawn("reconcile", async move {
        tokio::select! { () = stop => {}, () = reconcile.forever() => {} }
    });
    let api = kit::serve::http(tasks, "controller-api", listener, crate::http::router(shared), shutdown)?;
    Ok(Handle { api, cluster: cluster.id })
}

fn new_cluster() -> Cluster {
    Cluster { id: new_cluster_id(), epoch: 1 }
}

/// A random identity for a new cluster.
pub fn new_cluster_id() -> ClusterId {
    let id = format!("c{}", kit::random::hex::<6>());
    ClusterId::parse(&id).expect("a letter and hex digits are a name")
}

fn read_cluster(path: &std::path::Path) -> Result<Cluster, RunError> {
    let wrong = |reason: String| RunError::ClusterFile { path: path.to_path_buf(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let id = ClusterId::parse(text.trim()).map_err(|error| wrong(error.to_string()))?;
    Ok(Cluster { id, epoch: 1 })
}

/// What was published before goes out again with its number, if the records still say the same.
fn restore_tables(tables: &Tables, records: &Records, platform: &PlatformNames) {
    let rendered = Rendered::of(records, platform);
    if records.published_number() > 0 && rendered.digests() == records.published {
        tables.put(rendered, records.published_number());
    }
}

fn defaults(config: &Config) -> Defaults {
    Defaults {
        domain: config.domain.clone(),
        policy: Policy { settle_ms: config.settle_ms, ..Policy::default() },
        probe: Probe { interval_ms: config.probe_interval_ms, ..Probe::default() },
        ..Defaults::default()
    }
}

fn setting(config: &Config, cluster: &ClusterId) -> (Range, Setting) {
    let setting = Setting {
        cluster: cluster.clone(),
        server: config.server.clone(),
        repository: config.instance_repository.clone().unwrap_or_else(|| config.repository.clone()),
        name_ttl: config.name_ttl(),
        boot_restarts: config.engine == Engine::Process,
    };
    let range = match config.engine {
        Engine::Process => Range::PROCESS,
        Engine::Docker => Range::Networks { base: config.range_base() },
    };
    (range, setting)
}

async fn compute(
    config: &Config,
    cluster: &ClusterId,
    tasks: &Tasks,
    shutdown: &Shutdown,
    clock: Clock,
) -> Result<Arc<dyn Compute>, RunError> {
    Ok(match config.engine {
        Engine::Process => {
            let process = node::process::ProcessConfig {
                data: config.data.join("node"),
                boot: match &config.boot {
                    Some(boot) => boot.clone(),
                    None => node::process::find_boot()?,
                },
                server: config.server.clone(),
                cluster: cluster.clone(),
            };
            Arc::new(node::process::ProcessEngine::new(process, tasks, clock)?)
        }
        Engine::Docker => {
            let docker = node::docker::Config {
                socket: config.docker_socket.clone(),
                range: config.range.parse().map_err(|error| node::ComputeError::Refused {
                    reason: format!("range {}: {error}", config.range),
                })?,
                ..node::docker::Config::new(cluster.clone(), config.server.clone(), env!("CARGO_PKG_VERSION"))
            };
            Arc::new(node::docker::DockerEngine::connect(docker, clock, tasks, shutdown).await?)
        }
    })
}

/// The names of the platform's own parts, as each class of askers reaches them.
fn platform_names(config: &Config) -> PlatformNames {
    let mut views = Vec::new();
    if config.engine == Engine::Docker {
        views.push(instance_view(config, EnvironmentName::default_name(), DEFAULT_NETWORK));
    }
    let parts = ["lb", "dns", "repository", "controller"];
    views.push(View {
        name: "host".to_owned(),
        sources: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
        environment: None,
        forward: true,
        parts: parts.iter().map(|part| ((*part).to_owned(), vec![config.public_address])).collect(),
    });
    PlatformNames {
        domain: config.domain.clone(),
        ttl_ms: config.name_ttl_ms,
        views,
        servers: BTreeMap::from([(config.server.clone(), vec![config.public_address])]),
    }
}

/// What instances of an environment see: the parts at their fixed addresses in the environment's own network.
fn instance_view(config: &Config, environment: EnvironmentName, network: u8) -> View {
    let base = u32::from(config.range_base()) + (u32::from(network) << 12);
    let at = |offset: u32| vec![IpAddr::V4(Ipv4Addr::from(base + offset))];
    View {
        name: environment.to_string(),
        sources: vec![format!("{}/20", Ipv4Addr::from(base))],
        environment: Some(environment),
        forward: true,
        parts: BTreeMap::from([("lb".to_owned(), at(2)), ("dns".to_owned(), at(3)), ("repository".to_owned(), at(4))]),
    }
}
