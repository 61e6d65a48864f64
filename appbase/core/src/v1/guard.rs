//! Guard: what a route asks of a request before an app gets it, and of an answer before a client does.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::v1::PasswordHash;
use crate::{AppName, Prefix, ProcessName};

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Guard {
    /// The client is in one of these networks; empty: whoever it is.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub networks: BTreeSet<Prefix>,
    /// Of a request's body, in bytes; none: any size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_bytes_max: Option<u64>,
    /// Of an answer's body, in bytes; none: any size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_bytes_max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<Basic>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<Forward>,
}

impl Guard {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As people are shown it: without the hashes of passwords.
    pub fn shown(&self) -> Self {
        let mut shown = self.clone();
        for hash in shown.basic.iter_mut().flat_map(|basic| basic.users.values_mut()) {
            *hash = PasswordHash::hidden();
        }
        shown
    }
}

/// Only who gives the name and the password of one of these (RFC 7617).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Basic {
    /// What people are told that they sign in to.
    #[serde(default = "Basic::usual_realm")]
    pub realm: String,
    pub users: BTreeMap<String, PasswordHash>,
}

impl Basic {
    pub fn usual_realm() -> String {
        "restricted".to_owned()
    }
}

/// Another app of the same environment is asked first, with a request of its own: what answers 2xx lets the request go on,
/// every other answer is the client's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Forward {
    pub app: AppName,
    #[serde(default = "ProcessName::default_name")]
    pub process: ProcessName,
    /// Path and query that it is asked with.
    pub path: String,
    /// Header fields of the request that it gets; empty: the usual ones.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub send: BTreeSet<String>,
    /// Header fields of its answer that the request goes on with. A client's own of these names end at lb.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub copy: BTreeSet<String>,
}

/// How many requests may come: `requests` in `seconds` on average, and `burst` at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rate {
    pub requests: u32,
    #[serde(default = "Rate::second")]
    pub seconds: u32,
    /// As many as `requests` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Whose requests are counted together.
    #[serde(default)]
    pub of: RateOf,
}

impl Rate {
    pub fn second() -> u32 {
        1
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RateOf {
    /// One address; of IPv6 one /64, which is what one household has.
    #[default]
    Client,
    /// All that the route takes.
    Route,
}

/// Which pages of other sites may ask from a browser, and how (CORS, the Fetch standard).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cors {
    /// `https://a.example`; `*` is every site.
    pub origins: BTreeSet<String>,
    /// Beside GET, HEAD and POST.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub methods: BTreeSet<String>,
    /// Header fields that a page may send beside those that every page may.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub headers: BTreeSet<String>,
    /// Header fields of an answer that a page may read beside those that every page may.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub expose: BTreeSet<String>,
    /// With cookies. Not for every site.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub credentials: bool,
    /// How long a browser may remember what it was told; 600 unless given.
    #[serde(default = "Cors::remembered")]
    pub seconds: u32,
}

impl Cors {
    pub fn remembered() -> u32 {
        600
    }
}
