//! Run: opens the store, starts loop and API, answers the address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use appbase_core::claims::{Reach, Scope};
use appbase_core::v1::{Counters, MemberKind, Policy, Probe};
use appbase_core::{AppName, ClusterId, DeploymentId, EnvironmentName, SectionKey};
use controller_core::addresses::{Addresses, Range};
use controller_core::observed::Observed;
use controller_core::plan::Setting;
use controller_core::resolve::Defaults;
use controller_core::time::Now;
use controller_core::v1::state::Cluster;
use kit::client::Client;
use kit::keys::{KeyDirectory, Signer};
use kit::problem::Problem;
use kit::{Clock, Shutdown, Tasks};
use node::Compute;
use tokio::sync::Notify;

use crate::acme::{Acme, AcmeError};
use crate::config::{Config, Engine};
use crate::journal::Journal;
use crate::members::Members;
use crate::reconcile::Reconcile;
use crate::records::{self, Records, Write, lock};
use crate::repository::Repository;
use crate::store::{Revision, STATE_FILE, SqliteStore, Store, StoreError};
use crate::tables::{Rendered, Tables};

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
    #[error(transparent)]
    Keys(#[from] kit::keys::KeyError),
    #[error("the keys are of cluster {theirs}, the data is of {ours}: give the keys that belong to it")]
    OtherKeys { ours: ClusterId, theirs: ClusterId },
    #[error(
        "without keys everybody may do everything, and {address} is not loopback: make keys with platformer init --keys DIR and give --keys DIR"
    )]
    Open { address: SocketAddr },
    #[error("the engine cannot be used")]
    Compute(#[from] node::ComputeError),
    #[error("the process engine cannot be used")]
    Process(#[from] node::process::ProcessError),
    #[error(transparent)]
    Acme(#[from] AcmeError),
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
    /// None: nobody is asked who they are.
    pub signer: Option<Signer>,
    pub compute: Arc<dyn Compute>,
    pub defaults: Defaults,
    pub look_again: Notify,
    /// A host is to be asked for now.
    pub acme_again: Notify,
    /// Whether the loop has decided anything yet: before, members were not heard, and one may have a newer table.
    pub decides: AtomicBool,
    /// Why the server cannot be seen, while it cannot.
    pub gap: Mutex<Option<String>>,
    pub shutdown: Shutdown,
    pub tasks: Tasks,
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

    /// Why nothing may be changed, while this state is older than what members have in force.
    pub(crate) fn is_older(&self) -> Option<String> {
        self.members.ahead_of(&lock(&self.records).published_generation())
    }

    /// Commits with the pen held by the caller.
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        if let Some(reason) = self.is_older() {
            return Err(StoreError::Older { reason });
        }
        self.commit_in_any_state(writes).await
    }

    /// The same also while this state is older than the platform: for what takes rights or members away.
    pub(crate) async fn commit_in_any_state(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        records::commit(&*self.store, &self.records, writes).await
    }

    /// Renders both tables; what differs from what is out goes out with the revision of its record. With the pen held by
    /// the caller.
    pub(crate) async fn publish(&self) -> Result<(), StoreError> {
        let (rendered, digests, known) = {
            let records = lock(&self.records);
            let rendered = Rendered::of(&records, &self.config);
            let digests = rendered.digests();
            let known = records.published == digests && records.published_number() > 0;
            (rendered, digests, known.then(|| records.published_number()))
        };
        let number = match known {
            Some(number) if self.tables.generation().number == number => return Ok(()),
            Some(number) => number,
            None => self.commit(vec![Write::Published(digests)]).await?,
        };
        self.tables.put(rendered, number);
        Ok(())
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

    /// Requests and failures since then.
    pub(crate) fn since_baseline(&self, id: &DeploymentId, key: &SectionKey) -> (u64, u64) {
        let baseline =
            self.baselines.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned().unwrap_or_default();
        let now = self.members.counters(key, None);
        (now.requests.saturating_sub(baseline.requests), now.failed.saturating_sub(baseline.failed))
    }

    /// Its deployment has ended, and that is recorded.
    pub(crate) fn forget_baseline(&self, id: &DeploymentId) {
        self.baselines.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Whether an lb can be reached, and every member that can be has the tables as `records` want them for this app.
    pub(crate) fn is_in_force(&self, records: &Records, environment: &EnvironmentName, app: &AppName) -> bool {
        let key = SectionKey::app(environment, app);
        let (Some(run), none) = (records.runs.get(&key), BTreeMap::new()) else { return true };
        let releases = records.releases.get(&key).unwrap_or(&none);
        let desired = records.desired_app(environment, app);
        let offer = records.offer(&key);
        let routes = controller_core::render::route_section(environment, app, &desired, run, releases, &offer);
        let names = controller_core::render::name_section(environment, app, run, releases, &offer);
        let Some(published) = self.tables.published(&key, routes.as_ref(), names.as_ref()) else { return false };
        let members = self.members.seen(&records.members, self.now());
        let reachable = || members.values().filter(|member| member.is_reachable());
        reachable().any(|member| member.kind == MemberKind::Lb)
            && reachable().all(|member| member.has_taken(&published))
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
        if let StoreError::Older { reason } = error {
            return Self::new(409, "older-state", "the controller has an older state than the platform: nothing was changed")
                .detail(reason)
                .hint("put the newer state back; or, to go on from this one: stop the controller, then controller raise-epoch");
        }
        Self::new(507, "not-stored", "the change could not be stored; nothing of it is in force")
            .detail(kit::problem::chain(&error))
            .hint("see whether the disk of the controller is full")
    }
}

pub async fn run(config: Config, tasks: &Tasks, shutdown: &Shutdown) -> Result<Handle, RunError> {
    let clock = Clock::start();
    let authority = crate::acme::settings(&config)?;
    let signer = config.keys.as_ref().map(|path| KeyDirectory::new(path).signer()).transpose()?;
    if signer.is_none() && !config.listen.ip().is_loopback() {
        return Err(RunError::Open { address: config.listen });
    }
    let listener = kit::serve::bind(config.listen).await?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&config.data)?);
    let identity = signer.as_ref().map(|signer| signer.trust.cluster.clone());
    let records = Records::load(&*store, || new_cluster(identity.clone())).await?;
    if let Some(theirs) = identity.filter(|theirs| *theirs != records.cluster.id) {
        return Err(RunError::OtherKeys { ours: records.cluster.id, theirs });
    }
    let journal = Journal::open(&config.data)?;
    let cluster = records.cluster.clone();
    let compute = compute(&config, &cluster.id, tasks, shutdown, clock).await?;
    let (engine_range, setting) = setting(&config, &cluster.id);
    let tables = Tables::new(cluster.clone());
    restore_tables(&tables, &records, &config);
    let shared = Arc::new(Shared {
        clock,
        store,
        records: Mutex::new(records),
        pen: tokio::sync::Mutex::new(()),
        journal,
        tables,
        members: Members::default(),
        repository: Repository::new(Client::new(&config.repository, repository_token(signer.as_ref()))),
        signer,
        compute,
        defaults: defaults(&config),
        look_again: Notify::new(),
        acme_again: Notify::new(),
        decides: AtomicBool::new(false),
        gap: Mutex::default(),
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
        shown: Mutex::default(),
        baselines: Mutex::default(),
        config,
    });
    let addresses = Addresses::new(engine_range, BTreeMap::new());
    let reconcile = Reconcile::new(Arc::clone(&shared), setting, addresses, tasks.clone());
    if let Some(authority) = authority {
        let (acme, stop) = (Acme::new(Arc::clone(&shared), authority), shutdown.asked());
        tasks.spawn("acme", async move {
            tokio::select! { () = stop => {}, () = acme.forever() => {} }
        });
    }
    let stop = shutdown.asked();
    tasks.spawn("reconcile", async move {
        tokio::select! { () = stop => {}, () = reconcile.forever() => {} }
    });
    let api = kit::serve::http(tasks, "controller-api", listener, crate::http::router(shared), shutdown)?;
    Ok(Handle { api, cluster: cluster.id })
}

fn new_cluster(identity: Option<ClusterId>) -> Cluster {
    Cluster { id: identity.unwrap_or_else(new_cluster_id), epoch: Cluster::EPOCH_FIRST }
}

/// The controller's own, as long as its key.
fn repository_token(signer: Option<&Signer>) -> Option<String> {
    signer.map(|signer| signer.sign("controller", Scope::Repository { reach: Reach::Pin }, None))
}

/// Makes the state in a stopped controller's directory the one that members follow; answers the new epoch.
pub async fn raise_epoch(data: &std::path::Path) -> Result<u64, StoreError> {
    if !data.join(STATE_FILE).exists() {
        let place = data.display().to_string();
        return Err(StoreError::Open { place, reason: "there is no state of a controller".to_owned() });
    }
    Ok(records::raise_epoch(&SqliteStore::open(data)?).await?.epoch)
}

/// A random identity for a new cluster.
pub fn new_cluster_id() -> ClusterId {
    let id = format!("c{}", kit::random::hex::<6>());
    ClusterId::parse(&id).expect("a letter and hex digits are a name")
}

/// What was published before goes out again with its number, if the records still say the same.
fn restore_tables(tables: &Tables, records: &Records, config: &Config) {
    let rendered = Rendered::of(records, config);
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
            let defaults = node::docker::Config::new(cluster.clone(), config.server.clone(), env!("CARGO_PKG_VERSION"));
            let docker = node::docker::Config {
                socket: config.docker_socket.clone(),
                project: config.project.clone(),
                base_image: config.base_image.clone().unwrap_or_else(|| defaults.base_image.clone()),
                range: config.range.parse().map_err(|error| node::ComputeError::Refused {
                    reason: format!("range {}: {error}", config.range),
                })?,
                ..defaults
            };
            Arc::new(node::docker::DockerEngine::connect(docker, clock, tasks, shutdown).await?)
        }
    })
}
