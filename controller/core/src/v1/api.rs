//! The public API under `/v1`. JSON; errors are problem+json; changes take an `Idempotency-Key`.
//!
//! ```text
//! GET  /v1                                              ControllerInfo
//! POST /v1/apps/{app}/deployments?environment=          DeployRequest  -> DeployAnswer (202, or 200 when nothing is to be done)
//! POST /v1/apps/{app}/rollback?environment=             RollbackRequest -> DeployAnswer
//! POST /v1/apps/{app}/activate?environment=             makes what is staged live -> DeployAnswer
//! DELETE /v1/apps/{app}/staged?environment=             gives it up (204)
//! GET  /v1/apps/{app}?environment=                      AppStatus
//! GET  /v1/apps/{app}/history?environment=              [DeploymentView], newest first
//! GET  /v1/apps/{app}/logs?environment=&tail=&follow=   text/plain lines `<instance> | <line>`
//! GET  /v1/status                                       PlatformStatus
//! GET  /v1/deployments/{id}                             DeploymentView
//! POST /v1/deployments/{id}/cancel                      DeploymentView
//! GET  /v1/events?after=&deployment=&follow=            SSE of EventView; `id:` is its number
//! POST /v1/change-sets                                  ChangeSetRequest -> ChangeSetAnswer
//! GET  /v1/change-sets?after=                           [ChangeSet]
//! GET  /v1/plan                                         PlanView
//! GET  /v1/routes                                       [RouteView]
//! GET  /v1/routes/test?url=&method=&headers=            RouteTest
//! GET  /v1/traffic                               [MemberTraffic], of the load balancers
//! GET  /v1/members/{id}/table?kind=&after=&cluster=&wait=   TableUpdate or null
//! PUT  /v1/members/{id}/status                          MemberStatus -> null
//! DELETE /v1/members/{id}                               forget a member that will not come back
//! POST /v1/tokens                                       TokenRequest -> TokenAnswer (201)
//! GET  /v1/tokens                                       [TokenView]
//! DELETE /v1/tokens/{id}                                revoke
//! POST /v1/repository-access                            RepositoryAccess
//! POST /v1/certificates                                 CertificateRequest -> CertificateAnswer (201 when it is new)
//! GET  /v1/certificates                                 [CertificateView], those of the authorities as well
//! DELETE /v1/certificates/{id}                          show it no more, and forget its key
//! GET  /v1/authority                                    AuthorityView
//! ```

use std::collections::{BTreeMap, BTreeSet};

use appbase_core::v1::{Counters, Health, InstanceExit, MemberKind, MemberStatus, PrivateKey, ProbeAnswer, Route};
use appbase_core::{
    AppName, ClusterId, DeploymentId, Digest, EnvironmentName, Generation, InstanceId, MemberId, ProcessName,
    ReleaseNumber, SectionKey, Slot, Version,
};
use lb_core::v1::Conditions;
use serde::{Deserialize, Serialize};

use super::state::{DeploymentKind, EndState, EventKind, Operation, Receipt};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerInfo {
    pub cluster: ClusterId,
    pub epoch: u64,
    /// Version of the platform's software.
    pub software: String,
    /// Where people and CI reach the repository (`http://127.0.0.1:8082`).
    pub repository: String,
    /// `process` or `docker`.
    pub engine: String,
    pub domain: String,
    /// Where DNS answers, for `platformctl dns dig`.
    #[serde(default)]
    pub dns: String,
    /// Where lb takes requests, for display.
    #[serde(default)]
    pub lb: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// The person or pipeline that will use it, 1 to 64 characters.
    pub name: String,
    /// It may look and pull, not change or push.
    #[serde(default)]
    pub read_only: bool,
    /// Seconds until it ends: 30 days when absent, 365 at most.
    #[serde(default)]
    pub life_s: Option<u64>,
}

/// The only time that a token is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAnswer {
    pub token: String,
    pub view: TokenView,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    pub id: String,
    pub name: String,
    pub read_only: bool,
    pub created_unix_ms: u64,
    pub expires_unix_ms: u64,
}

/// How to reach the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryAccess {
    pub url: String,
    /// For an hour; none where no tokens are asked for.
    pub token: Option<String>,
}

/// A certificate with its key, as files hold them; 64 KiB together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRequest {
    /// PEM, the one of the names first.
    pub chain: String,
    /// PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: PrivateKey,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateAnswer {
    /// `added`, `replaced` (one with the same names) or `unchanged`.
    pub outcome: String,
    pub certificate: CertificateView,
}

/// A certificate as people see it: never its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateView {
    pub id: String,
    pub names: BTreeSet<String>,
    /// `local`, `uploaded` or `acme`.
    pub source: String,
    /// Who signed it, in its own words.
    pub issuer: String,
    pub from_unix_ms: u64,
    /// 0: there is none yet.
    pub until_unix_ms: u64,
    /// SHA-256 of the certificate, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Digest>,
    /// For whose hosts it is shown now: `environment/app`.
    pub apps: Vec<SectionKey>,
    /// Why the authority was asked in vain the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The local authority, for those who are to trust it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityView {
    pub cluster: ClusterId,
    /// PEM.
    pub certificate: String,
    /// SHA-256 of the certificate.
    pub fingerprint: Digest,
    /// It is good for these and what is below them, and for nothing else.
    pub domains: BTreeSet<String>,
    pub from_unix_ms: u64,
    pub until_unix_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployRequest {
    pub version: Version,
    /// End a running deployment of another release instead of answering 409.
    #[serde(default)]
    pub supersede: bool,
    /// Start it beside what is live, and leave the traffic where it is.
    #[serde(default)]
    pub stage: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackRequest {
    /// None: the release that was live before.
    #[serde(default)]
    pub to: Option<ReleaseNumber>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployAnswer {
    /// None when the wanted release is live already.
    pub deployment: Option<DeploymentView>,
    /// `started`, `joined` (the same deployment was running), `already-live` or `already-staged`.
    pub outcome: String,
    pub release: ReleaseNumber,
    pub version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentView {
    pub id: DeploymentId,
    pub environment: EnvironmentName,
    pub app: AppName,
    pub kind: DeploymentKind,
    pub release: ReleaseNumber,
    pub version: Version,
    /// What was live when it began.
    #[serde(default)]
    pub from: Option<(ReleaseNumber, Version)>,
    pub started_unix_ms: u64,
    /// `starting`, `probing`, `settling`, `flipped`, `draining`, or the end state.
    pub phase: String,
    #[serde(default)]
    pub end: Option<EndView>,
    /// What is being waited for right now, one line each.
    #[serde(default)]
    pub waiting: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndView {
    pub state: EndState,
    pub ended_unix_ms: u64,
    /// How long from the request to the flip; none when traffic never moved.
    #[serde(default)]
    pub live_after_ms: Option<u64>,
    /// Requests answered and failed by all members between start and end.
    pub requests: u64,
    pub failed: u64,
    /// Streams and requests that were cut at a drain deadline.
    pub cut: u64,
    /// None: traffic did not move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// Why it did not end `done`.
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub failures: Vec<FailureView>,
}

/// What is known of an instance that made a deployment fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureView {
    pub instance: InstanceId,
    #[serde(default)]
    pub probe: Option<ProbeAnswer>,
    #[serde(default)]
    pub exit: Option<InstanceExit>,
    #[serde(default)]
    pub problem: Option<String>,
    pub restarts: u32,
    /// The last log lines, oldest first.
    #[serde(default)]
    pub log: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    pub number: u64,
    pub unix_ms: u64,
    #[serde(default)]
    pub environment: Option<EnvironmentName>,
    #[serde(default)]
    pub app: Option<AppName>,
    #[serde(default)]
    pub deployment: Option<DeploymentId>,
    pub kind: EventKind,
    /// One line for people.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformStatus {
    pub info: ControllerInfo,
    pub generation: Generation,
    pub members: Vec<MemberView>,
    pub apps: Vec<AppStatus>,
    /// What could not be seen, and what failed to plan, one line each.
    #[serde(default)]
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    pub id: MemberId,
    pub kind: MemberKind,
    pub reachable: bool,
    /// None before its first status.
    #[serde(default)]
    pub seen_ms_ago: Option<u64>,
    #[serde(default)]
    pub in_force: Option<Generation>,
    #[serde(default)]
    pub refused: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStatus {
    pub environment: EnvironmentName,
    pub app: AppName,
    #[serde(default)]
    pub live: Option<LiveView>,
    /// One line: `serving 2 (release 7)`, `wanted 3 (aborted), serving 2`.
    pub summary: String,
    pub instances: Vec<InstanceView>,
    pub routes: Vec<Route>,
    /// Wanted number of instances by process.
    pub scale: BTreeMap<ProcessName, u32>,
    pub hold: bool,
    #[serde(default)]
    pub maintenance: Option<String>,
    #[serde(default)]
    pub staged: Option<StagedView>,
    /// The secret by which either slot can be seen.
    #[serde(default)]
    pub preview: Option<String>,
    #[serde(default)]
    pub notice: Option<String>,
    #[serde(default)]
    pub deployment: Option<DeploymentView>,
    /// The release that `rollback` would go to.
    #[serde(default)]
    pub rollback_to: Option<(ReleaseNumber, Version)>,
    /// Values and routes of the environment that the live release does not have: the next deployment brings them.
    #[serde(default)]
    pub not_deployed: Vec<String>,
    /// Of the live release since the members started.
    pub counters: Counters,
}

/// What waits beside the live release, and what it gets meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedView {
    pub release: ReleaseNumber,
    pub version: Version,
    pub slot: Slot,
    /// Of the clients, so many in 100.
    pub percent: u8,
    pub cohorts: Vec<Conditions>,
    /// Copies of so many in 100 of what only reads.
    pub mirror: u8,
    /// Since the members started.
    pub counters: Counters,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveView {
    pub release: ReleaseNumber,
    pub version: Version,
    pub slot: Slot,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceView {
    pub id: InstanceId,
    pub process: ProcessName,
    pub number: u32,
    pub release: ReleaseNumber,
    pub version: Version,
    pub slot: Slot,
    /// `standby`, `active` or `draining`.
    pub state: String,
    /// `created`, `running`, `ended`, `missing` or `unknown`.
    pub phase: String,
    #[serde(default)]
    pub address: Option<String>,
    /// The worst judgement of the lbs that see it; none for a process without a port.
    #[serde(default)]
    pub health: Option<Health>,
    /// Up, and left out by an lb because requests failed there.
    #[serde(default)]
    pub ejected: bool,
    /// Down, and gets requests all the same, because every instance of its process is down.
    #[serde(default)]
    pub panic: bool,
    /// How long its answers take, in microseconds, at the lb for which they take longest.
    #[serde(default)]
    pub latency_us: Option<u64>,
    pub in_flight: u64,
    pub restarts: u32,
}

/// The last word of one load balancer. Its counters are cumulative: rates are what two of them differ by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberTraffic {
    pub member: MemberId,
    /// When it said so, on a clock of the controller's that begins with its start.
    pub said_ms: u64,
    pub status: MemberStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeSetRequest {
    /// Applied in order, all or none.
    pub operations: Vec<Operation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeSetAnswer {
    /// Number in the log.
    pub number: u64,
    pub results: Vec<OperationResult>,
    /// The deployment of the live version that values and routes ask for, when the request wanted one.
    #[serde(default)]
    pub deployment: Option<DeploymentView>,
    /// Whether every member that can be reached acted by it in the time that the request gave; none when it gave none.
    #[serde(default)]
    pub in_force: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationResult {
    pub id: String,
    /// `ok` or a problem code.
    pub result: String,
    #[serde(default)]
    pub data: serde_json::Value,
    #[serde(default)]
    pub output: String,
}

/// What lb would do with a request.
pub type RouteTest = lb_core::explain::Explanation;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    pub generation: Generation,
    pub steps: Vec<String>,
    pub wake: Option<String>,
    pub report: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteView {
    pub environment: EnvironmentName,
    pub app: AppName,
    pub route: Route,
    /// `app file`, `environment`, or `environment (not deployed)`.
    pub origin: String,
}
