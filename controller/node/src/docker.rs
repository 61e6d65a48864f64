//! Docker: instances as containers of the Docker Engine on this machine, over its unix socket.
//!
//! Owns: what carries this cluster's labels: containers, their volumes, environment networks. Refuses: everything else
//! on the machine, and any request outside the closed list ([`closed`]).
//!
//! [`range`] says who has which address, [`spec`] what an instance looks like as a container.

mod closed;
mod config_archive;
mod fault;
#[cfg(test)]
mod fixture;
mod hints;
mod image;
mod instance;
mod labels;
mod logs;
mod network;
mod observe;
pub mod range;
mod route;
mod spec;
mod time;
mod user;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use appbase_core::v1::label;
use appbase_core::{ClusterId, InstanceId, ServerName};
use async_trait::async_trait;
use bollard::{ClientVersion, Docker};
use bytes::Bytes;
use controller_core::v1::compute::{CreateInstance, ServerSeen};
use futures_util::stream::BoxStream;
use tokio::sync::{Mutex, watch};

pub use labels::{PART, PROJECT, PROJECT_DEFAULT};
pub use network::EnvironmentNetwork;
pub use range::{EnvironmentSubnet, Subnet, SubnetError};

use crate::{Compute, ComputeError, LogLine, LogRequest};

/// Docker 20.10; older ones lack what the platform asks for.
const API_MIN: (u32, u32) = (1, 41);
/// Until the head of an answer; streams may last.
const ANSWER_SECONDS: u64 = 60;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub socket: PathBuf,
    pub cluster: ClusterId,
    pub server: ServerName,
    /// Cut into one /20 per environment.
    pub range: Subnet,
    /// The image that artifacts run in, with boot at `/platformer/bin/boot`.
    pub base_image: String,
    /// First word of the name of the volume that brings boot into other images.
    pub boot_volume: String,
    /// The platform's name on this engine: first word of every name it makes, and the [`PROJECT`] (or compose project)
    /// whose containers with a [`PART`] label are its parts. None: the compose project of the container that the
    /// controller runs in, else [`PROJECT_DEFAULT`].
    pub project: Option<String>,
    /// What instances get as their DNS server; none for the platform's own dns at its fixed address in their network.
    pub dns: Option<IpAddr>,
}

impl Config {
    /// The platform's own defaults, for the release `version`.
    pub fn new(cluster: ClusterId, server: ServerName, version: &str) -> Self {
        Self {
            socket: PathBuf::from("/var/run/docker.sock"),
            cluster,
            server,
            range: "10.210.0.0/16".parse().expect("a well-formed range"),
            base_image: format!("platformer/app-base:{version}"),
            boot_volume: "platformer-boot".to_owned(),
            project: None,
            dns: None,
        }
    }
}

/// One Docker Engine. Clones share everything.
#[derive(Debug, Clone)]
pub struct DockerEngine {
    docker: Docker,
    config: Arc<Config>,
    clock: kit::Clock,
    hints: Arc<hints::Hints>,
    /// Held while networks are made or joined.
    networks: Arc<Mutex<()>>,
    /// Held while an image is loaded.
    loads: Arc<Mutex<()>>,
    /// The boot volume that is known to be filled; held while one is.
    boot_volumes: Arc<Mutex<Option<String>>>,
}

impl DockerEngine {
    /// Asks Docker for its version, refuses one that is too old, and begins to follow its events.
    pub async fn connect(
        config: Config,
        clock: kit::Clock,
        tasks: &kit::Tasks,
        shutdown: &kit::Shutdown,
    ) -> Result<Self, ComputeError> {
        if config.range.environment(0).is_none() {
            let reason = format!(
                "the range {} is smaller than one environment: give a /16, which has room for 15",
                config.range
            );
            return Err(ComputeError::Refused { reason });
        }
        let socket = config.socket.clone();
        // The client sends no version; Docker then answers in its newest, which the check below looks at.
        let version = ClientVersion { major_version: 1, minor_version: 41 };
        let docker = Docker::connect_with_unix(&socket.to_string_lossy(), ANSWER_SECONDS, &version)
            .map_err(|error| fault::compute(error, &socket, || "connect".to_owned()))?;
        let mut engine = Self {
            docker,
            config: Arc::new(config),
            clock,
            hints: Arc::default(),
            networks: Arc::default(),
            loads: Arc::default(),
            boot_volumes: Arc::default(),
        };
        engine.check_version().await?;
        if engine.config.project.is_none() {
            let project = engine.own_project().await?.unwrap_or_else(|| PROJECT_DEFAULT.to_owned());
            engine.config = Arc::new(Config { project: Some(project), ..Config::clone(&engine.config) });
        }
        if let Err(error) = engine.sweep_volumes().await {
            tracing::warn!(%error, "volumes that no instance has are still there");
        }
        tasks.spawn("docker-events", hints::follow(engine.clone(), shutdown.clone()));
        Ok(engine)
    }

    async fn check_version(&self) -> Result<(), ComputeError> {
        let what = || "ask Docker for its version".to_owned();
        let found = self.docker.version().await.map_err(|error| self.fault(error, what))?;
        let api = found.api_version.unwrap_or_default();
        let number = api.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        if number.is_none_or(|number: (u32, u32)| number < API_MIN) {
            let engine = found.version.unwrap_or_default();
            return Err(ComputeError::Failed {
                what: what(),
                reason: format!("it is {engine} with API {api}; the platform needs Docker 20.10 (API 1.41) or newer"),
            });
        }
        Ok(())
    }

    /// Docker names a container's host after it, so a controller in a container can ask for itself.
    async fn own_project(&self) -> Result<Option<String>, ComputeError> {
        let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
        let host = host.trim();
        if host.len() != 12 || !host.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let found = self.inspect(host).await?.and_then(|found| found.config).and_then(|config| config.labels);
        let labels = found.filter(|labels| labels.get(PART).map(String::as_str) == Some("controller"));
        Ok(labels.and_then(|labels| labels.get("com.docker.compose.project").cloned()))
    }

    fn fault(&self, error: bollard::errors::Error, what: impl FnOnce() -> String) -> ComputeError {
        fault::compute(error, &self.config.socket, what)
    }

    /// What every volume, network and helper of this cluster carries.
    fn own_labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (label::CLUSTER.to_owned(), self.config.cluster.to_string()),
            (label::SERVER.to_owned(), self.config.server.to_string()),
            (PROJECT.to_owned(), self.project().to_owned()),
        ])
    }

    fn project(&self) -> &str {
        self.config.project.as_deref().unwrap_or(PROJECT_DEFAULT)
    }

    /// Name of an instance's container and of its volume: two platforms on one engine may run the same app.
    fn name_of(&self, id: &InstanceId) -> String {
        format!("{}-{id}", self.project())
    }
}

#[async_trait]
impl Compute for DockerEngine {
    fn engine(&self) -> &'static str {
        fault::ENGINE
    }

    async fn observe(&self) -> Result<ServerSeen, ComputeError> {
        self.look().await
    }

    fn hints(&self) -> watch::Receiver<u64> {
        self.hints.subscribe()
    }

    async fn load_image(
        &self,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
        image: &str,
    ) -> Result<(), ComputeError> {
        self.load(archive, image).await
    }

    async fn has_image(&self, image: &str) -> Result<bool, ComputeError> {
        Ok(self.inspect_image(image).await?.is_some())
    }

    async fn create(&self, request: &CreateInstance) -> Result<(), ComputeError> {
        self.make(request).await
    }

    async fn start(&self, id: &InstanceId) -> Result<(), ComputeError> {
        self.start_instance(id).await
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), ComputeError> {
        self.stop_instance(id, grace).await
    }

    async fn remove(&self, id: &InstanceId) -> Result<(), ComputeError> {
        self.remove_instance(id).await
    }

    async fn logs(
        &self,
        id: &InstanceId,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogLine, ComputeError>>, ComputeError> {
        if self.own(id).await?.is_none() {
            return Err(ComputeError::Unknown(id.clone()));
        }
        Ok(self.log_lines(&self.name_of(id), request))
    }
}
