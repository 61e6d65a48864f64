//! `platform.toml`: what a person writes beside an app. Strict: an unknown key is an error with its place.

use std::collections::{BTreeMap, BTreeSet};

use appbase_core::v1::{BalancePolicy, Check, HeaderEdits, Protocol, RateOf};
use appbase_core::{AppName, Prefix, ProcessName};
use serde::Deserialize;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AppFile {
    /// The command of process `web`, as one line: split into words by quotes, nothing expanded.
    pub command: Option<String>,
    /// The image an artifact runs in.
    pub base: Option<String>,
    pub port: Option<u16>,
    /// How lb asks: a path, `tcp`, `grpc` or `grpc:SERVICE`; `/health` unless given.
    pub health: Option<Check>,
    pub balance: BalanceFile,
    /// What process `web` speaks on its port: `http1` unless given, or `h2c`.
    pub protocol: Protocol,
    /// Hosts the app answers besides its own names; `*` is every host.
    pub hosts: Vec<String>,
    /// Path prefix on all hosts; `/` unless given.
    pub path: Option<String>,
    /// Instances of process `web`; 1 unless given.
    pub instances: Option<u32>,
    pub limits: LimitsFile,
    pub values: BTreeMap<String, String>,
    pub traffic: TrafficFile,
    /// Answers of all routes go out packed, unless one says otherwise; no unless given.
    pub compress: bool,
    /// Of all routes that have none of their own.
    pub guard: GuardFile,
    pub https: HttpsFile,
    /// Seconds from SIGTERM to SIGKILL; 10 unless given.
    pub stop_grace: Option<f64>,
    /// Further rules, beside `path`.
    pub routes: Vec<RouteFile>,
    /// Further processes by name.
    pub processes: BTreeMap<ProcessName, ProcessFile>,
}

/// A rule: which requests, and what becomes of them. `Route` says what each means.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteFile {
    /// All of the app's unless given.
    pub hosts: Option<Vec<String>>,
    pub path: Option<String>,
    pub exact: bool,
    pub methods: BTreeSet<String>,
    pub headers: BTreeMap<String, String>,
    pub query: BTreeMap<String, String>,
    pub process: Option<ProcessName>,
    pub rewrite: Option<String>,
    pub redirect: Option<String>,
    /// 308 unless given.
    pub status: Option<u16>,
    pub request_headers: EditsFile,
    pub response_headers: EditsFile,
    /// The app's unless given.
    pub compress: Option<bool>,
    /// Instead of the app's.
    pub guard: Option<GuardFile>,
}

/// What is asked of requests before the app gets them; `Guard` says what each means. Sizes are texts as of limits.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardFile {
    pub networks: BTreeSet<Prefix>,
    pub request_max: Option<String>,
    pub response_max: Option<String>,
    pub rate: Option<RateFile>,
    pub cors: Option<CorsFile>,
    pub basic: Option<BasicFile>,
    pub forward: Option<ForwardFile>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateFile {
    pub requests: u32,
    pub seconds: Option<u32>,
    pub burst: Option<u32>,
    #[serde(default)]
    pub of: RateOf,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorsFile {
    pub origins: BTreeSet<String>,
    pub methods: BTreeSet<String>,
    pub headers: BTreeSet<String>,
    pub expose: BTreeSet<String>,
    pub credentials: bool,
    pub seconds: Option<u32>,
}

/// Names and hashes of passwords.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BasicFile {
    pub realm: Option<String>,
    pub users: BTreeMap<String, String>,
}

/// `Forward`, strictly.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardFile {
    pub app: AppName,
    pub process: Option<ProcessName>,
    pub path: String,
    #[serde(default)]
    pub send: BTreeSet<String>,
    #[serde(default)]
    pub copy: BTreeSet<String>,
}

/// `HeaderEdits`, strictly.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EditsFile {
    pub set: BTreeMap<String, String>,
    pub add: BTreeMap<String, String>,
    pub remove: BTreeSet<String>,
}

impl From<EditsFile> for HeaderEdits {
    fn from(EditsFile { set, add, remove }: EditsFile) -> Self {
        Self { set, add, remove }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessFile {
    pub command: Option<String>,
    pub port: Option<u16>,
    pub health: Option<Check>,
    pub balance: BalanceFile,
    pub protocol: Protocol,
    pub instances: Option<u32>,
    pub limits: LimitsFile,
    /// Old and new may run side by side although the process has no port.
    pub overlap: bool,
    pub stop_grace: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsFile {
    /// `64MiB`, `1GiB`, or a number of bytes as text.
    pub memory: Option<String>,
    /// Cores: `0.5`.
    pub cpu: Option<f64>,
    pub pids: Option<u64>,
}

/// How requests are spread over the instances of a process; `Balance` says what each means.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BalanceFile {
    pub policy: Option<BalancePolicy>,
    pub sticky: bool,
    /// Seconds.
    pub slow_start: Option<f64>,
    pub eject_after: Option<u32>,
}

/// How clients are to reach the app; `HttpsPolicy` says what each means.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpsFile {
    pub redirect: bool,
    /// Seconds.
    pub hsts: Option<u64>,
}

/// Seconds, but for rise and fall; the platform's default where absent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrafficFile {
    pub settle: Option<f64>,
    pub probe_deadline: Option<f64>,
    pub probe_interval: Option<f64>,
    pub probe_timeout: Option<f64>,
    pub probe_startup: Option<f64>,
    pub probe_rise: Option<u32>,
    pub probe_fall: Option<u32>,
    pub request_drain: Option<f64>,
    pub stream_drain: Option<f64>,
    pub rollback_window: Option<f64>,
}
