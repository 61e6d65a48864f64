//! The route table's wire types, version 1: one section per (environment, app), wrapped in
//! `appbase_core::v1::TableUpdate`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use appbase_core::v1::{Balance, Probe, Route};
use appbase_core::{AppName, EnvironmentName, InstanceId, ProcessName, ReleaseNumber};
use serde::{Deserialize, Serialize};

/// Everything lb knows of one app in one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSection {
    pub environment: EnvironmentName,
    pub app: AppName,
    /// The live release: what `weights` give all traffic to while no traffic move is under way.
    #[serde(default)]
    pub live: Option<ReleaseNumber>,
    pub routes: Vec<Route>,
    pub pools: BTreeMap<ReleaseNumber, Pool>,
    /// Requests wait instead of being forwarded (bounded in count and time), then go on.
    #[serde(default)]
    pub hold: bool,
    /// Answer 503 with this text instead of forwarding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<String>,
    pub drain: Drain,
}

/// The instances of one release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Share of new requests beside the other pools of the section; 0 takes none.
    pub weight: u32,
    /// How the instances of each process are probed.
    pub probes: BTreeMap<ProcessName, Probe>,
    /// How requests are spread over the instances of a process; as `Balance::default` where none is given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub balance: BTreeMap<ProcessName, Balance>,
    pub instances: BTreeMap<InstanceId, PoolInstance>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInstance {
    pub process: ProcessName,
    pub address: SocketAddr,
    pub state: InstanceState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// Probed, no live traffic: new, warm or preview.
    Standby,
    /// Takes requests while it is up.
    Active,
    /// Takes no new request; what it has ends, or is ended at the deadline.
    Draining,
}

/// How long what is in flight may take once an instance is draining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    pub requests_ms: u64,
    pub streams_ms: u64,
}

/// A whole table as a person writes it for `lb --table FILE` (JSON, strict): the sections alone, in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableFile {
    pub sections: Vec<RouteSection>,
}
