//! What the store keeps: change sets (the only writers of desired), run records, deployments, published sections.
//!
//! ```text
//! cluster                        Cluster            identity and epoch
//! head                           Head               number of the last change set, digest of the folded state
//! log/<n>                        ChangeSet
//! snapshot                       Snapshot, every 256 entries
//! run/<environment>/<app>        Run                what the loop decided; compare-and-set, before a table goes out
//! release/<environment>/<app>/<n>  ReleaseRecord
//! deployment/<id>                Deployment
//! outcome/<id>                   DeploymentOutcome
//! published                      Published          digests of the sections that were published last
//! member/<id>                    MemberRecord       desired: one that is not seen still counts
//! network/<environment>          NetworkRecord      its place in the cluster's range, on Docker; never given again
//! token/<id>                     TokenRecord        of a person; the token itself is kept nowhere
//! authority                      AuthorityRecord    the local one, with its key
//! leaf/<environment>/<app>       CertificateRecord  what the local authority made for an app's names, with its key
//! certificate/<id>               CertificateRecord  what somebody uploaded, with its key
//! acme/<host>                    AcmeRecord         what was got for a host from an authority of the world, with its key
//! acme-account                   AcmeAccount        who the platform is there, with its key
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use appbase_core::claims::Scope;
use appbase_core::v1::{Certificate, MemberKind, PrivateKey, Release, Route};
use appbase_core::{
    AppName, ClusterId, DeploymentId, Digest, EnvironmentName, Generation, InstanceId, ProcessName, ReleaseNumber,
    SectionKey, ServerName, Slot, Version,
};
use lb_core::v1::Conditions;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub id: ClusterId,
    /// Raised by restore and failover, and nothing else.
    pub epoch: u64,
}

impl Cluster {
    /// Of a new store.
    pub const EPOCH_FIRST: u64 = 1;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub number: u64,
    /// Digest of the canonical JSON of the folded desired state.
    pub desired: Digest,
}

/// One wanted change: the command's own parameters are checked when it is folded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    #[serde(default)]
    pub id: String,
    /// `app`, `config`, `route`, `environment`.
    pub group: String,
    pub command: String,
    #[serde(default)]
    pub params: serde_json::Value,
}

/// An atomic, ordered list of operations with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeSet {
    pub number: u64,
    pub unix_ms: u64,
    /// Who asked for it.
    #[serde(default)]
    pub author: String,
    pub operations: Vec<Operation>,
}

/// Desired as it was after change set `number`: folding starts here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub number: u64,
    pub desired: Desired,
}

/// What people want: folded from the change sets, in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub environments: BTreeMap<EnvironmentName, BTreeMap<AppName, DesiredApp>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredApp {
    /// The version people asked for last.
    #[serde(default)]
    pub version: Option<Version>,
    /// The environment's values: win over the app file.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// The environment's routes, beside those of the app file.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Wins over the app file's `instances`.
    #[serde(default)]
    pub scale: BTreeMap<ProcessName, u32>,
    #[serde(default)]
    pub hold: bool,
    #[serde(default)]
    pub maintenance: Option<String>,
    #[serde(default)]
    pub split: Option<Split>,
    /// The secret by which either slot can be seen.
    #[serde(default)]
    pub preview: Option<String>,
    #[serde(default)]
    pub notice: Option<String>,
}

/// What a staged release gets before it is live. It is for that release alone, and means nothing once another one is staged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    pub release: ReleaseNumber,
    /// Of the clients, so many in 100.
    #[serde(default)]
    pub percent: u8,
    /// And these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cohorts: Vec<Conditions>,
    /// Copies of so many in 100 of what only reads.
    #[serde(default)]
    pub mirror: u8,
}

/// A release and where its document is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    pub document: Digest,
    pub release: Release,
    /// Instances by process when nobody scaled: from the app file. Not part of the release itself.
    pub scale: BTreeMap<ProcessName, u32>,
    pub made_unix_ms: u64,
    /// What of it was not the app file's when it was made.
    #[serde(default)]
    pub overlay: OfEnvironment,
}

/// What an environment gave a release beside the app file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfEnvironment {
    /// Keys of values.
    pub values: BTreeSet<String>,
    pub routes: Vec<Route>,
}

/// Time that is left, as of a moment on the controller's own clock. A restart begins anew with what was left as of
/// the last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    pub left_ms: u64,
    /// Elapsed time of the controller when `left_ms` was right; not kept across a restart.
    #[serde(skip)]
    pub as_of: Duration,
}

/// What the loop decided for one app in one environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    #[serde(default)]
    pub live: Option<Slot>,
    #[serde(default)]
    pub slots: BTreeMap<Slot, ReleaseNumber>,
    /// The release in the idle slot that waits for somebody to make it live.
    #[serde(default)]
    pub staged: Option<ReleaseNumber>,
    #[serde(default)]
    pub last_good: Option<ReleaseNumber>,
    #[serde(default)]
    pub deployment: Option<DeploymentId>,
    #[serde(default)]
    pub instances: BTreeMap<InstanceId, InstanceRecord>,
    /// How long the idle slot stays warm.
    #[serde(default)]
    pub warm: Option<Timer>,
    /// The release number to hand out next.
    #[serde(default)]
    pub releases_made: ReleaseNumber,
    /// The last deployment that was aborted, for status: it is not tried again by itself.
    #[serde(default)]
    pub aborted: Option<ReleaseNumber>,
}

/// An instance that is wanted, or is being given up. Written before it is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRecord {
    pub process: ProcessName,
    pub number: u32,
    pub release: ReleaseNumber,
    pub slot: Slot,
    pub server: ServerName,
    pub spec: Digest,
    /// Under which lb reaches it; none for a process without a port.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    pub state: Traffic,
}

/// What an instance is to traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Traffic {
    /// New: probed, named, without traffic.
    Standby,
    Active,
    /// Takes nothing new. Once every lb says drained, and one DNS TTL after every dns took the table without it:
    /// `retire` stops and removes it, otherwise it is warm.
    Draining {
        retire: bool,
        /// Runs since all dns members have taken the table without it.
        #[serde(default)]
        names_gone: Option<Timer>,
    },
    /// Drained after it was active: probed still, but nobody counts on it and no name leads to it.
    Warm,
    /// Nobody counts on it: being stopped and removed.
    Retiring,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeploymentKind {
    Deploy,
    Rollback,
    Activate,
    /// Values or routes changed: the live version again, as a new release.
    Config,
}

/// One recorded run with a deadline and an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    pub id: DeploymentId,
    pub environment: EnvironmentName,
    pub app: AppName,
    pub kind: DeploymentKind,
    pub release: ReleaseNumber,
    pub version: Version,
    #[serde(default)]
    pub from: Option<(ReleaseNumber, Version)>,
    pub started_unix_ms: u64,
    /// Until all instances must be up.
    pub deadline: Timer,
    /// Someone asked to end it; honoured until the flip.
    #[serde(default)]
    pub cancel: bool,
    /// It ends before the flip, with everything up.
    #[serde(default)]
    pub stage: bool,
    /// When traffic moved, for people; the fact itself is `Run::live`.
    #[serde(default)]
    pub flipped_unix_ms: Option<u64>,
    /// The table by which it moved, once that is out; none where nothing had to drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flip: Option<Generation>,
    /// Until the drain must have ended, set at the flip.
    #[serde(default)]
    pub drain_deadline: Option<Timer>,
    #[serde(default)]
    pub end: Option<End>,
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub state: EndState,
    pub unix_ms: u64,
    #[serde(default)]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndState {
    Done,
    Staged,
    Aborted,
    Cancelled,
    Degraded,
}

impl std::fmt::Display for EndState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Staged => "staged",
            Self::Aborted => "aborted",
            Self::Cancelled => "cancelled",
            Self::Degraded => "degraded",
        })
    }
}

/// What a deployment came to, written with its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentOutcome {
    /// Requests answered by all members between start and end, and how many of them failed.
    pub requests: u64,
    pub failed: u64,
    /// Requests and streams cut at a drain deadline.
    pub cut: u64,
    /// None: traffic did not move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    #[serde(default)]
    pub failures: Vec<super::api::FailureView>,
}

/// What the load balancers say of a flip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The table by which traffic moved; none where nothing had to drain.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// How many load balancers there are; all have it in force.
    pub members: u64,
    /// Probes that the new instances were sent.
    pub probes: u64,
    /// Requests and streams that were inside the old instances at the flip. Those that were cut are among them.
    pub inside: u64,
    /// Until the last of them was over, in milliseconds.
    pub longest_ms: u64,
}

/// Digests of the sections published last: the revision of this entry is the generation's number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub routes: BTreeMap<SectionKey, Digest>,
    pub names: BTreeMap<SectionKey, Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    pub kind: MemberKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    pub number: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub id: String,
    /// The person or pipeline it was made for.
    pub name: String,
    pub hash: Digest,
    /// [`Scope::Admin`] or [`Scope::Read`].
    pub scope: Scope,
    pub created_unix_ms: u64,
    pub expires_unix_ms: u64,
}

/// The cluster's own certificate authority: good for `localhost` and the platform's domain, and for nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRecord {
    /// PEM.
    pub certificate: String,
    pub key: PrivateKey,
    /// SHA-256 of the certificate.
    pub fingerprint: Digest,
    pub domains: BTreeSet<String>,
    pub from_unix_ms: u64,
    pub until_unix_ms: u64,
}

/// A certificate, and what is written in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    #[serde(flatten)]
    pub certificate: Certificate,
    /// SHA-256 of the first certificate of the chain.
    pub fingerprint: Digest,
    /// Who signed it, in its own words.
    pub issuer: String,
    /// Fingerprint of the local authority, where that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Digest>,
    pub from_unix_ms: u64,
    pub until_unix_ms: u64,
}

/// A host for which an authority of the world is asked (RFC 8555), and how that stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateRecord>,
    /// The one that is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<AcmeOrder>,
    /// One after the other, the last one included.
    #[serde(default)]
    pub failures: u32,
    /// Nothing is asked before.
    #[serde(default)]
    pub retry_unix_ms: u64,
    /// Why the last order failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Since when no live route has the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_unix_ms: Option<u64>,
}

/// An order as it stands at the authority: whoever starts again goes on with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeOrder {
    pub url: String,
    /// Of the certificate that is asked for.
    pub key: PrivateKey,
    /// What lb answers the authority: token → key authorization.
    #[serde(default)]
    pub challenges: BTreeMap<String, String>,
}

/// An account at an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeAccount {
    /// The authority's address.
    pub directory: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// JSON, with the account's key in it.
    pub credentials: PrivateKey,
}

/// What happened, past tense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A change set was written.
    Changed,
    DeploymentStarted,
    InstanceCreated,
    InstanceStarted,
    /// Some more of the new instances are up.
    InstancesUp,
    /// Traffic moved.
    Flipped,
    Draining,
    Drained,
    DeploymentDone,
    DeploymentStaged,
    DeploymentAborted,
    DeploymentCancelled,
    DeploymentDegraded,
    InstanceStopped,
    InstanceRemoved,
    /// The idle slot's release was given up after its window.
    WarmEnded,
    StepFailed,
    /// An authority made a certificate: the local one for an app's names, or one of the world for a host.
    CertificateIssued,
    /// A certificate ends soon, or has ended.
    CertificateEnds,
    /// An authority of the world was asked in vain.
    CertificateFailed,
}
