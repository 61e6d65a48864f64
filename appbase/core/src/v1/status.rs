//! What a member says of itself: acknowledgement, health, drain, counters and presence in one document.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Generation, InstanceId, ReleaseNumber, SectionKey};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    Lb,
    Dns,
}

impl std::fmt::Display for MemberKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Lb => "lb",
            Self::Dns => "dns",
        })
    }
}

/// `PUT /v1/members/{id}/status`, at each change and every 2 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    pub kind: MemberKind,
    /// Random per start of the member: counters begin at zero with it.
    pub boot: String,
    /// The table in force; none before the first one.
    pub in_force: Option<Generation>,
    /// The last table that was refused, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// The live release of each section in force: after loss of the store this is where the live slot is read.
    #[serde(default)]
    pub live: BTreeMap<SectionKey, ReleaseNumber>,
    #[serde(default)]
    pub instances: BTreeMap<InstanceId, InstanceReport>,
    /// Cumulative since `boot`, by section and release.
    #[serde(default)]
    pub counters: BTreeMap<SectionKey, BTreeMap<ReleaseNumber, Counters>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub generation: Generation,
    pub reason: String,
}

/// lb's judgement of one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    pub health: Health,
    /// Since when it is up without a break; 0 unless up.
    pub up_for_ms: u64,
    /// Requests in flight, streams not counted.
    pub in_flight: u64,
    /// Upgraded connections and other long-lived streams.
    pub streams: u64,
    /// In state draining here, and nothing is left in flight (ended, or ended by force at the deadline).
    pub drained: bool,
    /// How many were ended by force at a drain deadline.
    #[serde(default)]
    pub cut: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe: Option<ProbeAnswer>,
    /// Left out because requests failed there, whatever its probes say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ejected: bool,
    /// Down, and gets requests: all of its process are, so that lb's judgement counts for nothing (panic mode).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub panic: bool,
    /// Requests that went to it since lb knows it, and those of them that failed there: a 5xx, or no whole answer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub requests: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: u64,
    /// Probes sent to it so far.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub probes: u64,
    /// What its drain has to wait for; none: it does not drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainReport>,
    /// How long answers take it, in microseconds; none: it has not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
}

/// How a drain goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    /// Requests and streams that were inside when it began.
    pub inside: u64,
    /// Until nobody was inside any more; none: somebody still is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// No probe has decided yet.
    #[default]
    Pending,
    Up,
    Down,
}

/// What the last probe got: shown to people when a deployment fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// Probes sent to this instance so far.
    pub tries: u64,
    /// HTTP status, when there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The beginning of the body, at most 512 bytes, as text.
    #[serde(default)]
    pub body: String,
    /// Why there was no answer, when there was none (`connection refused`, `no answer in 2000 ms`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Cumulative counters of one release at one lb since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests answered, streams included.
    pub requests: u64,
    /// Requests that lb itself had to answer with an error, or whose answer broke off: the user saw a failure.
    pub failed: u64,
    /// Answers of the app with status 5xx (not in `failed`).
    pub app_errors: u64,
    /// Copies of requests that a mirror sent it, and those of them that got a 5xx or no answer. In none of the others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub copies: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub copies_failed: u64,
    /// Requests by duration: bucket `i` counts those that took at most [`DURATION_BUCKETS_MS`]`[i]` and more than the
    /// bucket before; one more bucket for the rest. Empty means all zero.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub durations: Vec<u64>,
}

impl Counters {
    pub fn add(&mut self, more: &Self) {
        self.requests += more.requests;
        self.failed += more.failed;
        self.app_errors += more.app_errors;
        self.copies += more.copies;
        self.copies_failed += more.copies_failed;
        self.durations.resize(self.durations.len().max(more.durations.len()), 0);
        for (sum, more) in self.durations.iter_mut().zip(&more.durations) {
            *sum += more;
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Upper bounds of the duration buckets, in milliseconds.
pub const DURATION_BUCKETS_MS: [u64; 13] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];
