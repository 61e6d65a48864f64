//! Https: what an app asks of its clients' connections, and what it is given to prove its names with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// How an app wants to be reached; a part of its traffic policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpsPolicy {
    /// Requests that come without TLS are sent to `https` (308).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redirect: bool,
    /// `max-age` of `Strict-Transport-Security` (RFC 6797) in answers over TLS; 0: none is sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hsts_seconds: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl HttpsPolicy {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What lb serves an app's names over TLS with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    #[serde(flatten)]
    pub policy: HttpsPolicy,
    /// Where two are for one name, the first is taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Certificate>,
    /// Certificates in PEM: clients must show one that one of these has signed. None: nobody is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_authorities: Option<String>,
    /// Answers to ACME's HTTP-01 challenges (RFC 8555, section 8.3): token → key authorization.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub challenges: BTreeMap<String, String>,
    /// Shown in handshakes of ACME's TLS-ALPN-01 (RFC 8737), and in no others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handshakes: Vec<Certificate>,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The names it is shown for, lower case; `*.domain` is for exactly one more label.
    pub names: BTreeSet<String>,
    /// PEM, the one of the names first, then those that lead to its authority.
    pub chain: String,
    /// PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: PrivateKey,
}

impl Certificate {
    /// What it weighs in a table.
    pub fn bytes(&self) -> usize {
        self.chain.len() + self.key.0.len()
    }
}

/// The secret half of a certificate, in PEM. Never shown: its debug form is a word.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrivateKey(pub String);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
