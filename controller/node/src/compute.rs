//! Compute: what every engine can do.

use std::time::Duration;

use appbase_core::InstanceId;
use async_trait::async_trait;
use controller_core::v1::compute::{CreateInstance, ServerSeen};
use futures_util::stream::BoxStream;
use tokio::sync::watch;

/// All of these may be called twice with the same arguments; the second time changes nothing.
#[async_trait]
pub trait Compute: Send + Sync + 'static {
    /// `process` or `docker`.
    fn engine(&self) -> &'static str;

    /// All instances of this cluster on this server. What carries no label of this cluster is not in it.
    async fn observe(&self) -> Result<ServerSeen, ComputeError>;

    /// Changes its value when something may have changed. A hint: it may be missed and may be wrong.
    fn hints(&self) -> watch::Receiver<u64>;

    /// Makes an image usable on this engine from a docker-archive; `image` is the id it must have afterwards.
    async fn load_image(
        &self,
        archive: BoxStream<'static, std::io::Result<bytes::Bytes>>,
        image: &str,
    ) -> Result<(), ComputeError>;

    async fn has_image(&self, image: &str) -> Result<bool, ComputeError>;

    /// Makes the instance; it is not started. An existing one with the same labels is adopted, with others refused.
    async fn create(&self, request: &CreateInstance) -> Result<(), ComputeError>;

    async fn start(&self, id: &InstanceId) -> Result<(), ComputeError>;

    /// SIGTERM, then SIGKILL after `grace`. Ends when it has stopped; one that is not there is stopped.
    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), ComputeError>;

    /// Takes it away with everything that is its own. One that is not there is removed.
    async fn remove(&self, id: &InstanceId) -> Result<(), ComputeError>;

    /// Log lines, oldest first; ends at the end of the log unless following.
    async fn logs(
        &self,
        id: &InstanceId,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogLine, ComputeError>>, ComputeError>;
}

#[derive(Debug, Clone, Copy)]
pub struct LogRequest {
    /// How many of the last lines to begin with; at most 10,000.
    pub tail: usize,
    pub follow: bool,
}

/// One line without its line end, at most 16 KiB; bytes that are not UTF-8 are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub text: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// The engine does not answer: not running, gone, or access denied. What was asked may or may not have happened.
    #[error("the {engine} engine does not answer: {reason}")]
    Unreachable { engine: &'static str, reason: String },
    /// It answered that it cannot.
    #[error("{what}: {reason}")]
    Failed { what: String, reason: String },
    /// A request outside what the node may do (privileged, foreign mounts, host namespaces).
    #[error("refused: {reason}")]
    Refused { reason: String },
    #[error("instance {0} does not exist")]
    Unknown(InstanceId),
}
