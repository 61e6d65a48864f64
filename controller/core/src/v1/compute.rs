//! Arguments and answers of the node's `Compute`: what an instance is, on any engine.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use appbase_core::v1::{InstanceConfig, InstanceExit, Limits, Source};
use appbase_core::{
    AppName, ClusterId, Digest, EnvironmentName, InstanceId, ProcessName, ReleaseNumber, ServerName, Slot, Version,
};
use serde::{Deserialize, Serialize};

/// The truth about an instance, carried by the engine with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceLabels {
    pub cluster: ClusterId,
    pub environment: EnvironmentName,
    pub app: AppName,
    pub version: Version,
    pub process: ProcessName,
    pub number: u32,
    pub release: ReleaseNumber,
    pub document: Digest,
    pub spec: Digest,
    pub slot: Slot,
    pub server: ServerName,
    /// Under which lb reaches it; none for a process without a port.
    pub address: Option<SocketAddr>,
}

/// Create one instance; it is not started yet. Doing it twice with equal labels is doing it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateInstance {
    pub id: InstanceId,
    pub labels: InstanceLabels,
    pub source: Source,
    /// Image an artifact runs in; none for the platform's own app-base.
    pub base: Option<String>,
    /// Words of the command; empty for an image's own entrypoint.
    pub command: Vec<String>,
    /// The engine address of the instance (Docker: its fixed address in the environment's network).
    pub ip: Option<IpAddr>,
    /// Number of the environment's network within the cluster's range; none where there are no networks.
    pub network: Option<u8>,
    pub limits: Limits,
    pub stop_grace_ms: u64,
    /// Put 0600 into the instance's own volume or directory before the start.
    pub config: InstanceConfig,
}

/// One instance as the engine shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedInstance {
    pub id: InstanceId,
    pub labels: InstanceLabels,
    pub phase: InstancePhase,
    /// How often its app was started again by boot or the engine.
    pub restarts: u32,
    /// How it ended the last time, when it did.
    #[serde(default)]
    pub last_exit: Option<InstanceExit>,
    /// Why it does not get on (`cannot fetch release …`), when it does not.
    #[serde(default)]
    pub problem: Option<String>,
    /// How long its app has been running without a break; 0 unless running.
    pub running_for_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstancePhase {
    /// Made, never started.
    Created,
    /// Its boot (or container) runs; the app may be between two starts.
    Running,
    /// Ended, and nothing will start it again by itself.
    Ended,
    /// Killed together with what watches over it, or by a start of the machine: nobody could say anything of it. It only
    /// has to be started again.
    Lost,
}

/// Everything one server shows. A server that could not be seen is a gap, not an empty list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSeen {
    pub server: ServerName,
    pub instances: Vec<ObservedInstance>,
    /// Ports on which something of this machine listens, where instances share its addresses: no new one is sent there.
    #[serde(default)]
    pub taken_ports: BTreeSet<u16>,
}
