//! What runs: the pushed version, the release made of it, and what one instance needs of both.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::v1::{Balance, HttpsPolicy, Probe, Route};
use crate::{AppName, Digest, EnvironmentName, ProcessName, ReleaseNumber, Version};

/// What `artifact push` stores with a version: the app file as it was pushed. The config blob of the version's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionDocument {
    #[serde(default)]
    pub needs: Vec<String>,
    pub app: AppName,
    pub version: Version,
    pub source: Source,
    /// The text of `platform.toml`, unresolved; empty when none was pushed.
    #[serde(default)]
    pub app_file: String,
}

/// Where the bytes of a version are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Source {
    /// Gzip-compressed tars in the repository under `<app>`, unpacked in this order into one directory.
    Artifact { layers: Vec<Digest> },
    /// An image: its docker-archive in the repository, and the id it has once loaded.
    Image { archive: Digest, image: String },
}

/// The release document: immutable, numbered per (app, environment), all values resolved. Kept by digest in the
/// repository under `<app>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    #[serde(default)]
    pub needs: Vec<String>,
    pub app: AppName,
    pub environment: EnvironmentName,
    pub number: ReleaseNumber,
    pub version: Version,
    pub processes: BTreeMap<ProcessName, InstanceSpec>,
    pub traffic: TrafficSpec,
}

/// What one instance of a process needs. Two releases with equal specs share their instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    pub source: Source,
    /// Image the artifact runs in (`base = …`), or none for the platform's own app-base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The command as words, never a shell string. Empty: the image's own entrypoint.
    #[serde(default)]
    pub command: Vec<String>,
    /// The process environment, resolved.
    #[serde(default)]
    pub values: BTreeMap<String, Value>,
    /// The port the process listens on inside its own network; none for a process without traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default)]
    pub limits: Limits,
    /// Whether old and new may run side by side although the process has no port.
    #[serde(default)]
    pub overlap: bool,
    /// From SIGTERM to SIGKILL.
    pub stop_grace_ms: u64,
}

impl InstanceSpec {
    /// Digest of the canonical JSON (sorted maps, fixed field order). Instances carry it as a label.
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("a spec has only text keys and finite numbers"))
    }
}

/// One value of the process environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Value {
    Plain(String),
    /// A secret stands here by its version id; its ciphertext travels in the release document, its key does not.
    Secret {
        version: String,
    },
}

/// What an instance may use at most. None: the platform's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
}

/// Everything about a release that lb needs and instances do not: a change here alone starts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficSpec {
    pub routes: Vec<Route>,
    /// By process: only processes with a port are here.
    pub processes: BTreeMap<ProcessName, ProcessTraffic>,
    pub policy: Policy,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessTraffic {
    pub probe: Probe,
    #[serde(default)]
    pub balance: Balance,
    #[serde(default, skip_serializing_if = "Protocol::is_default")]
    pub protocol: Protocol,
}

/// What a process speaks on its port, without TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, and what it upgrades to (WebSocket).
    #[default]
    Http1,
    /// HTTP/2 from the first byte on (RFC 9113, section 3.3): gRPC.
    H2c,
}

impl Protocol {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The times of a traffic move (settle 2 s, probe deadline 60 s, drains 30 s, rollback window 10 min), and how clients
/// reach the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// How long all instances must have been up before the flip.
    pub settle_ms: u64,
    /// From the start of a deployment until all must be up.
    pub probe_deadline_ms: u64,
    pub request_drain_ms: u64,
    pub stream_drain_ms: u64,
    /// How long the old release stays warm after the flip.
    pub rollback_window_ms: u64,
    #[serde(default, skip_serializing_if = "HttpsPolicy::is_default")]
    pub https: HttpsPolicy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            settle_ms: 2_000,
            probe_deadline_ms: 60_000,
            request_drain_ms: 30_000,
            stream_drain_ms: 30_000,
            rollback_window_ms: 600_000,
            https: HttpsPolicy::default(),
        }
    }
}
