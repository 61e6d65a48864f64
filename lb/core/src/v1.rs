//! The route table's wire types, version 1: one section per (environment, app), wrapped in
//! `appbase_core::v1::TableUpdate`.

pub mod handover;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use appbase_core::v1::{Balance, Probe, Protocol, Route, Tls};
use appbase_core::{AppName, Digest, EnvironmentName, InstanceId, Prefix, ProcessName, ReleaseNumber, Slot};
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
    /// Requests that get one release whatever the weights say: the first that fits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cohorts: Vec<Cohort>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Told to the app with each request and to the client with each answer, as `X-Platform-Notice`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    #[serde(default)]
    pub tls: Tls,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cohort {
    pub release: ReleaseNumber,
    #[serde(flatten)]
    pub conditions: Conditions,
}

/// Everything that is given must fit; patterns are those of routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// Prefix on segment boundaries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: BTreeMap<String, String>,
    /// The client is in one of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub networks: BTreeSet<Prefix>,
}

/// Who knows the secret sees the release of a slot, live or not: at `<secret>-<slot>.` and any domain that leads to lb, or
/// with `X-Platform-Preview: <secret>-<slot>` at any host of the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// SHA-256 of the secret, which is 26 small letters and digits. A table never holds the secret itself.
    pub secret: Digest,
    pub slots: BTreeMap<Slot, ReleaseNumber>,
}

/// Of the requests without a body that only read (GET and HEAD), a copy of so many in 100 goes to this release as well; its
/// answers are counted and thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    pub release: ReleaseNumber,
    /// From 1 to 100.
    pub percent: u8,
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
    /// What each process speaks; HTTP/1.1 where nothing is given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub protocols: BTreeMap<ProcessName, Protocol>,
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
