//! Balance: how lb chooses among the instances of a process.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names of headers, cookies and query parameters are no longer.
const NAME_BYTES_MAX: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balance {
    pub policy: BalancePolicy,
    /// A client stays with the instance it had, by a cookie of lb's.
    pub sticky: bool,
    /// How long an instance that joins older ones takes less than its share; 0: it takes it at once.
    pub slow_start_ms: u64,
    /// Gateway failures in a row until an instance is left out for a while; 0: never.
    pub eject_after: u32,
}

impl Default for Balance {
    fn default() -> Self {
        Self { policy: BalancePolicy::default(), sticky: false, slow_start_ms: 10_000, eject_after: 5 }
    }
}

/// As text: `peak-ewma`, `round-robin`, `hash:client`, `hash:path`, `hash:header:NAME`, `hash:cookie:NAME`,
/// `hash:query:NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BalancePolicy {
    /// Of two that are drawn the one that is likely to answer sooner.
    #[default]
    PeakEwma,
    RoundRobin,
    /// Equal requests to the same instance, as long as that has room.
    Hash(HashKey),
}

/// What makes requests equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Client,
    Path,
    /// By name; a request without it is balanced by load.
    Header(String),
    Cookie(String),
    Query(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no policy: give peak-ewma, round-robin, hash:client, hash:path, hash:header:NAME, hash:cookie:NAME or hash:query:NAME"
)]
pub struct BalancePolicyError(String);

impl FromStr for BalancePolicy {
    type Err = BalancePolicyError;

    fn from_str(text: &str) -> Result<Self, BalancePolicyError> {
        let error = || BalancePolicyError(text.chars().take(64).collect());
        Ok(match text {
            "peak-ewma" => Self::PeakEwma,
            "round-robin" => Self::RoundRobin,
            "hash:client" => Self::Hash(HashKey::Client),
            "hash:path" => Self::Hash(HashKey::Path),
            _ => {
                let (kind, name) = text.strip_prefix("hash:").and_then(|key| key.split_once(':')).ok_or_else(error)?;
                let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
                if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_token) {
                    return Err(error());
                }
                Self::Hash(match kind {
                    "header" => HashKey::Header(name.to_ascii_lowercase()),
                    "cookie" => HashKey::Cookie(name.to_owned()),
                    "query" => HashKey::Query(name.to_owned()),
                    _ => return Err(error()),
                })
            }
        })
    }
}

impl fmt::Display for BalancePolicy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeakEwma => out.write_str("peak-ewma"),
            Self::RoundRobin => out.write_str("round-robin"),
            Self::Hash(HashKey::Client) => out.write_str("hash:client"),
            Self::Hash(HashKey::Path) => out.write_str("hash:path"),
            Self::Hash(HashKey::Header(name)) => write!(out, "hash:header:{name}"),
            Self::Hash(HashKey::Cookie(name)) => write!(out, "hash:cookie:{name}"),
            Self::Hash(HashKey::Query(name)) => write!(out, "hash:query:{name}"),
        }
    }
}

impl TryFrom<String> for BalancePolicy {
    type Error = BalancePolicyError;

    fn try_from(text: String) -> Result<Self, BalancePolicyError> {
        text.parse()
    }
}

impl From<BalancePolicy> for String {
    fn from(policy: BalancePolicy) -> Self {
        policy.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_they_are_written() {
        for text in ["peak-ewma", "round-robin", "hash:client", "hash:path", "hash:header:x-user", "hash:cookie:Sid"] {
            assert_eq!(text.parse::<BalancePolicy>().map(|policy| policy.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("hash:header:X-User".parse(), Ok(BalancePolicy::Hash(HashKey::Header("x-user".to_owned()))));
        for bad in ["", "random", "hash", "hash:", "hash:header:", "hash:header:a b", "hash:body:x"] {
            assert!(bad.parse::<BalancePolicy>().is_err(), "{bad:?}");
        }
    }
}
