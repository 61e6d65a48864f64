//! The name table's wire types, version 1: sections wrapped in `appbase_core::v1::TableUpdate`. They carry what is
//! running and how it is reached, not records: dns makes the records of each view from them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use appbase_core::{AppName, EnvironmentName, InstanceId, ProcessName, ReleaseNumber, ServerName, Version};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum NameSection {
    App(AppNames),
    Platform(PlatformNames),
}

/// The names of one app in one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppNames {
    pub environment: EnvironmentName,
    pub app: AppName,
    /// Whether `<app>.<domain>` answers as well as `<app>.<environment>.<domain>`.
    pub default_environment: bool,
    /// With a route the app's name answers lb's addresses in the asker's view, without one those of its instances.
    pub routed: bool,
    #[serde(default)]
    pub live: Option<ReleaseNumber>,
    /// Ready instances only; one that drains is no longer here.
    pub instances: BTreeMap<InstanceId, NamedInstance>,
    /// Name → what its TXT records say, while an authority asks whether a host of the app is led here (ACME's DNS-01,
    /// RFC 8555, section 8.4). A name outside the platform's domain is answered as a zone of its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub texts: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedInstance {
    pub process: ProcessName,
    pub number: u32,
    pub release: ReleaseNumber,
    pub version: Version,
    pub address: IpAddr,
    /// Of a process with a port: SRV answers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether it takes live traffic (the app's name answers it) or stands by (only its own names do).
    pub active: bool,
}

/// Domain, views, parts and servers. Exactly one per table, under the key `platform`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformNames {
    /// The platform's domain, without a dot at the end (`platform`).
    pub domain: String,
    /// TTL of every live answer and of negative ones, in milliseconds (DNS gets whole seconds, rounded up).
    pub ttl_ms: u64,
    /// First match by source prefix wins; the last one should match everything.
    pub views: Vec<View>,
    /// Server name → its addresses, as `<server>.core.<domain>`.
    #[serde(default)]
    pub servers: BTreeMap<ServerName, Vec<IpAddr>>,
}

/// What one class of askers gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub name: String,
    /// Source prefixes (`10.210.0.0/20`) that are in this view; `::/0` is everybody, IPv4 included.
    pub sources: Vec<String>,
    /// The environment whose names this view sees; none sees all (the host).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// Whether questions outside the platform's domain are forwarded for it.
    pub forward: bool,
    /// Part name (`lb`, `dns`, `repository`, `controller`) → the addresses under which this view reaches it.
    pub parts: BTreeMap<String, Vec<IpAddr>>,
}

/// A whole table as a person writes it for `dns --table FILE` (JSON, strict).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableFile {
    pub platform: PlatformNames,
    #[serde(default)]
    pub apps: Vec<AppNames>,
}
