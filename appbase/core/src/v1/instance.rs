//! What the controller's node and an instance's boot tell each other through files, and the labels instances carry.
//! Frozen for a major version: a new controller adopts instances that an older one started.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{AppName, Digest, EnvironmentName, InstanceId, ProcessName, ReleaseNumber, Version};

/// Label names. Labels, never engine names, say what an instance is.
pub mod label {
    pub const CLUSTER: &str = "io.platformer.cluster";
    pub const ENVIRONMENT: &str = "io.platformer.environment";
    pub const APP: &str = "io.platformer.app";
    pub const VERSION: &str = "io.platformer.version";
    pub const PROCESS: &str = "io.platformer.process";
    pub const NUMBER: &str = "io.platformer.number";
    pub const RELEASE: &str = "io.platformer.release";
    /// Digest of the release document.
    pub const DOCUMENT: &str = "io.platformer.document";
    /// Digest of the instance spec.
    pub const SPEC: &str = "io.platformer.spec";
    pub const SLOT: &str = "io.platformer.slot";
    pub const SERVER: &str = "io.platformer.server";
    /// `address:port` under which lb reaches it; absent for a process without a port.
    pub const ADDRESS: &str = "io.platformer.address";
}

/// `instance.json`: all that boot needs to start one instance. Written 0600 before the start; boot reads nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceConfig {
    #[serde(default)]
    pub needs: Vec<String>,
    pub instance: InstanceId,
    pub environment: EnvironmentName,
    pub app: AppName,
    pub version: Version,
    pub process: ProcessName,
    pub number: u32,
    pub release: ReleaseNumber,
    /// Digest of the release document, fetched as a blob of `<app>`.
    pub document: Digest,
    /// Base URL of the repository, without a slash at the end.
    pub repository: String,
    /// Bearer token that reads exactly this release; empty where the repository asks for none.
    #[serde(default)]
    pub token: String,
    /// Added to the values of the release: `PORT`, `PLATFORM_*`. These win.
    #[serde(default)]
    pub environment_variables: BTreeMap<String, String>,
    /// Whether boot itself restarts an app that ended (process engine), or the engine does (Docker).
    #[serde(default)]
    pub restart: bool,
}

/// `state.json`: what boot says of its app on the process engine, rewritten at each change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceState {
    /// boot's own process id and its start time in clock ticks since the machine started (`/proc/<pid>/stat`, 22nd
    /// field): together they name a process for ever.
    pub boot_pid: i32,
    pub boot_start_ticks: u64,
    /// None while fetching, or between two starts.
    pub app_pid: Option<i32>,
    /// How often the app was started again.
    pub restarts: u32,
    pub last_exit: Option<InstanceExit>,
    /// What boot is doing: `fetching`, `running`, `waiting` (before a restart), `stopping`, `ended`.
    pub phase: String,
    /// Why it does not get on, when it does not (`cannot fetch release …`).
    #[serde(default)]
    pub problem: Option<String>,
}

/// `exit.json`: how the app ended, written before boot ends itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceExit {
    /// Exit code, when it ended by itself.
    pub code: Option<i32>,
    /// Signal number, when one ended it.
    pub signal: Option<i32>,
    /// Milliseconds since the Unix epoch, for people.
    pub at_unix_ms: u64,
    /// How long it ran.
    pub ran_ms: u64,
}
