//! The process engine: instances as plain processes of this machine, each below a boot of its own.
//!
//! Owns: one directory per instance (`<data>/instances/<id>`), starting boot in it, seeing and ending what runs.
//! Refuses: images. Does not enforce memory, CPU and process limits: what needs them needs Docker.
//!
//! Nothing is remembered here: boot leads a session of its own and writes `state.json`, so that a new engine on the
//! same data sees and ends everything that an older one started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use appbase_core::v1::Source;
use appbase_core::{ClusterId, InstanceId, ServerName};
use async_trait::async_trait;
use controller_core::v1::compute::{CreateInstance, ServerSeen};
use futures_util::stream::BoxStream;
use kit::{Clock, Tasks};
use rustix::process::Signal;
use tokio::sync::watch;

use crate::{Compute, ComputeError, LogLine, LogRequest};

mod directory;
mod logs;
mod running;
mod seen;

use directory::Instances;
use running::Boot;

const ENGINE: &str = "process";
const NO_IMAGES: &str = "the process engine runs artifacts only; images need Docker";
/// boot gives the app its grace and then needs a moment of its own.
const BOOT_GRACE: Duration = Duration::from_secs(2);
/// From spawning boot to its first word. It says it before it does anything else.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How soon a change on disk or an ended process becomes a hint.
const WATCH_PAUSE: Duration = Duration::from_millis(250);
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Where the engine works, and for whom.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// `<data>/instances` is made when it is not there.
    pub data: PathBuf,
    /// The boot binary; see [`find_boot`].
    pub boot: PathBuf,
    pub server: ServerName,
    pub cluster: ClusterId,
}

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("cannot find the program boot: looked at {}; build it, or name it", shown(.looked))]
    NoBoot { looked: Vec<PathBuf> },
    #[error("cannot use {path} for instances")]
    Data {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The boot binary beside this program, one directory above (where test programs live), or in PATH.
pub fn find_boot() -> Result<PathBuf, ProcessError> {
    let mine = std::env::current_exe().unwrap_or_default();
    let beside = mine.ancestors().skip(1).take(2).map(Path::to_path_buf);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let looked: Vec<PathBuf> = beside.chain(std::env::split_paths(&path)).map(|place| place.join("boot")).collect();
    match looked.iter().find(|path| path.is_file()) {
        Some(found) => Ok(found.clone()),
        None => Err(ProcessError::NoBoot { looked }),
    }
}

/// Cloned freely; clones are one engine.
#[derive(Debug, Clone)]
pub struct ProcessEngine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ProcessConfig,
    instances: Instances,
    clock: Clock,
    hints: watch::Sender<u64>,
    /// Boots that this engine started, to be waited for when they end. Those of an engine before it have init for that.
    children: Mutex<Vec<Child>>,
}

impl ProcessEngine {
    pub fn new(config: ProcessConfig, tasks: &Tasks, clock: Clock) -> Result<Self, ProcessError> {
        if !config.boot.is_file() {
            return Err(ProcessError::NoBoot { looked: vec![config.boot] });
        }
        let root = config.data.join("instances");
        let instances = Instances::open(&root).map_err(|source| ProcessError::Data { path: root, source })?;
        let (hints, _) = watch::channel(0);
        let inner = Arc::new(Inner { config, instances, clock, hints, children: Mutex::default() });
        // Weak: the watch ends with its engine.
        let watched = Arc::downgrade(&inner);
        tasks.spawn("process engine watch", async move {
            let mut before = BTreeMap::new();
            while let Some(inner) = watched.upgrade() {
                inner.reap();
                let now = seen::fingerprints(&inner.instances);
                if now != before {
                    before = now;
                    inner.hints.send_modify(|count| *count += 1);
                }
                drop(inner);
                tokio::time::sleep(WATCH_PAUSE).await;
            }
        });
        Ok(Self { inner })
    }
}

impl Inner {
    fn reap(&self) {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    /// The instance's directory, if it is one of this cluster.
    fn own(&self, id: &InstanceId) -> Result<Option<PathBuf>, ComputeError> {
        match self.instances.labels(id)? {
            None => Ok(None),
            Some(labels) if labels.cluster == self.config.cluster => Ok(Some(self.instances.path(id))),
            Some(labels) => Err(ComputeError::Refused {
                reason: format!("instance {id} is of another cluster, {}", labels.cluster),
            }),
        }
    }

    fn spawn_boot(&self, directory: &Path) -> std::io::Result<u32> {
        let mut command = Command::new(&self.config.boot);
        command.args(["run", "--session", "--config"]).arg(directory.join(directory::CONFIG));
        command.arg("--dir").arg(directory).env_clear().env(running::MARK, directory);
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn()?;
        let pid = child.id();
        self.children.lock().unwrap_or_else(PoisonError::into_inner).push(child);
        Ok(pid)
    }

    /// Whether nothing of the instance runs any more, looked at until `limit` has passed.
    async fn stopped_within(&self, boot: &Boot, limit: Duration) -> bool {
        let until = self.clock.elapsed() + limit;
        loop {
            self.reap();
            if !boot.runs() && boot.members().is_empty() {
                return true;
            }
            if self.clock.elapsed() >= until {
                return false;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    async fn stop(&self, directory: &Path, grace: Duration) -> Result<(), ComputeError> {
        let Some(boot) = running::boot(directory).map_err(|error| failed("stop", directory, &error))? else {
            return Ok(());
        };
        if boot.runs() {
            boot.signal(Signal::TERM);
        } else {
            boot.signal_members(Signal::TERM);
        }
        if self.stopped_within(&boot, grace).await {
            return Ok(());
        }
        // boot lives to say how its app ended.
        boot.signal_app(Signal::KILL);
        if self.stopped_within(&boot, BOOT_GRACE).await {
            return Ok(());
        }
        boot.signal_members(Signal::KILL);
        if self.stopped_within(&boot, BOOT_GRACE).await {
            return Ok(());
        }
        let reason = "it was killed and has not ended; a process in an uninterruptible wait needs its disk back";
        Err(ComputeError::Failed { what: format!("cannot stop {}", directory.display()), reason: reason.to_owned() })
    }
}

fn failed(doing: &str, directory: &Path, error: &dyn std::error::Error) -> ComputeError {
    ComputeError::Failed { what: format!("cannot {doing} {}", directory.display()), reason: kit::problem::chain(error) }
}

#[async_trait]
impl Compute for ProcessEngine {
    fn engine(&self) -> &'static str {
        ENGINE
    }

    async fn observe(&self) -> Result<ServerSeen, ComputeError> {
        self.inner.reap();
        let config = &self.inner.config;
        let instances = seen::observe(&self.inner.instances, &config.cluster)?;
        let taken_ports = kit::serve::listening_ports();
        Ok(ServerSeen { server: config.server.clone(), instances, taken_ports })
    }

    fn hints(&self) -> watch::Receiver<u64> {
        self.inner.hints.subscribe()
    }

    async fn load_image(
        &self,
        _archive: BoxStream<'static, std::io::Result<bytes::Bytes>>,
        _image: &str,
    ) -> Result<(), ComputeError> {
        Err(ComputeError::Refused { reason: NO_IMAGES.to_owned() })
    }

    async fn has_image(&self, _image: &str) -> Result<bool, ComputeError> {
        Err(ComputeError::Refused { reason: NO_IMAGES.to_owned() })
    }

    async fn create(&self, request: &CreateInstance) -> Result<(), ComputeError> {
        let refused = |reason: String| Err(ComputeError::Refused { reason });
        if matches!(request.source, Source::Image { .. }) {
            return refused(NO_IMAGES.to_owned());
        }
        if let Some(base) = &request.base {
            return refused(format!("base {base} is an image: {NO_IMAGES}"));
        }
        if request.labels.cluster != self.inner.config.cluster {
            return refused(format!("instance {} is of another cluster, {}", request.id, request.labels.cluster));
        }
        match self.inner.instances.labels(&request.id)? {
            None => self.inner.instances.create(request),
            Some(labels) if labels == request.labels => Ok(()),
            Some(_) => refused(format!("instance {} exists with other labels: remove it first", request.id)),
        }
    }

    async fn start(&self, id: &InstanceId) -> Result<(), ComputeError> {
        let inner = &self.inner;
        let directory = inner.own(id)?.ok_or_else(|| ComputeError::Unknown(id.clone()))?;
        let fail = |error: &dyn std::error::Error| failed("start", &directory, error);
        if let Some(before) = running::boot(&directory).map_err(|error| fail(&error))? {
            if before.runs() {
                return Ok(());
            }
            // Its boot was killed: what is left of the app holds the port of the new one.
            before.signal_members(Signal::KILL);
        }
        let pid = inner.spawn_boot(&directory).map_err(|error| fail(&error))?;
        let until = inner.clock.elapsed() + START_LIMIT;
        while inner.clock.elapsed() < until {
            inner.reap();
            match running::boot(&directory) {
                Ok(Some(boot)) if boot.is(pid) || boot.runs() => return Ok(()),
                _ => {}
            }
            let alive = i32::try_from(pid).is_ok_and(|pid| kit::process::stat(pid).is_some_and(|stat| !stat.zombie));
            if !alive && !running::boot(&directory).is_ok_and(|boot| boot.is_some_and(|boot| boot.is(pid))) {
                return Err(ComputeError::Failed {
                    what: format!("cannot start {}", directory.display()),
                    reason: format!(
                        "boot ended at once; `{} run --config {}/{}` says why",
                        inner.config.boot.display(),
                        directory.display(),
                        directory::CONFIG
                    ),
                });
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        let reason = format!("boot (pid {pid}) has said nothing in {} s", START_LIMIT.as_secs());
        Err(ComputeError::Failed { what: format!("cannot start {}", directory.display()), reason })
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), ComputeError> {
        match self.inner.own(id)? {
            Some(directory) => self.inner.stop(&directory, grace).await,
            None => Ok(()),
        }
    }

    async fn remove(&self, id: &InstanceId) -> Result<(), ComputeError> {
        let Some(directory) = self.inner.own(id)? else { return Ok(()) };
        self.inner.stop(&directory, Duration::ZERO).await?;
        let inner = Arc::clone(&self.inner);
        let id = id.clone();
        // An unpacked artifact may be many files.
        let removed = tokio::task::spawn_blocking(move || inner.instances.remove(&id)).await;
        removed.unwrap_or_else(|error| Err(failed("remove", &directory, &error)))
    }

    async fn logs(
        &self,
        id: &InstanceId,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogLine, ComputeError>>, ComputeError> {
        let directory = self.inner.own(id)?.ok_or_else(|| ComputeError::Unknown(id.clone()))?;
        Ok(logs::read(directory, request))
    }
}
