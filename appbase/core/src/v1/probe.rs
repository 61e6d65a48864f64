//! Probes: how lb asks an instance whether it is up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text of this length is no path and no service of anybody's.
const CHECK_BYTES_MAX: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    #[serde(alias = "path")]
    pub check: Check,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    /// Passes in a row until up.
    pub rise: u32,
    /// Failures in a row until down.
    pub fall: u32,
    /// From the first probe on: until an instance was up once, failures in this time do not make it down.
    #[serde(default)]
    pub startup_ms: u64,
}

impl Default for Probe {
    fn default() -> Self {
        let check = Check::Http { path: "/health".to_owned() };
        Self { check, interval_ms: 1000, timeout_ms: 2000, rise: 1, fall: 3, startup_ms: 60_000 }
    }
}

/// What is asked. As text: a path, `tcp`, `grpc` or `grpc:SERVICE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Check {
    /// GET; any 2xx passes, redirects are not followed.
    Http { path: String },
    /// A connection is made.
    Tcp,
    /// `grpc.health.v1.Health/Check`, HTTP/2 without TLS; `SERVING` passes. No service: the server as a whole.
    Grpc { service: String },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" says nothing of how to ask: give a path that begins with / and has no blanks, \"tcp\", \"grpc\" or \"grpc:SERVICE\""
)]
pub struct CheckError(String);

impl FromStr for Check {
    type Err = CheckError;

    fn from_str(text: &str) -> Result<Self, CheckError> {
        let is_plain = text.len() <= CHECK_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        match text {
            _ if !is_plain => {}
            "tcp" => return Ok(Self::Tcp),
            "grpc" => return Ok(Self::Grpc { service: String::new() }),
            path if path.starts_with('/') => return Ok(Self::Http { path: path.to_owned() }),
            other => {
                if let Some(service) = other.strip_prefix("grpc:").filter(|service| !service.is_empty()) {
                    return Ok(Self::Grpc { service: service.to_owned() });
                }
            }
        }
        Err(CheckError(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Check {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { path } => out.write_str(path),
            Self::Tcp => out.write_str("tcp"),
            Self::Grpc { service } if service.is_empty() => out.write_str("grpc"),
            Self::Grpc { service } => write!(out, "grpc:{service}"),
        }
    }
}

impl TryFrom<String> for Check {
    type Error = CheckError;

    fn try_from(text: String) -> Result<Self, CheckError> {
        text.parse()
    }
}

impl From<Check> for String {
    fn from(check: Check) -> Self {
        check.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_as_they_are_written() {
        for text in ["/", "/health?deep=1", "tcp", "grpc", "grpc:shop.v1.Cart"] {
            assert_eq!(text.parse::<Check>().map(|check| check.to_string()).as_deref(), Ok(text));
        }
        for bad in ["", "health", "/a b", "/a\n", "TCP", "grpc:", "http://a/", "/é"] {
            assert!(bad.parse::<Check>().is_err(), "{bad:?}");
        }
        assert!(format!("/{}", "a".repeat(CHECK_BYTES_MAX)).parse::<Check>().is_err());
    }
}
