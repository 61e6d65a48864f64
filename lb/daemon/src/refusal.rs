//! Refusal: everything lb itself answers instead of an app, each with a stable code that says who failed.
//!
//! | code | status | who | |
//! | --- | --- | --- | --- |
//! | `bad-framing`, `bad-host`, `bad-path` | 400 | client | two programs could read it differently |
//! | `head-too-large` | 431 | client | more than 32 KiB or 100 fields |
//! | `no-route` | 404 | client | no app has this host and path |
//! | `no-table` | 503 | lb | started, and has no table yet |
//! | `maintenance` | 503 | operator | the app's maintenance text |
//! | `hold-full`, `hold-timeout` | 503 | operator | too many waited, or too long |
//! | `no-instance` | 503 | app | none is up |
//! | `instance-unreachable` | 502 | app | no connection could be made |
//! | `instance-broke-off` | 502 | app | the connection ended before an answer |
//! | `instance-invalid` | 502 | app | what it answered is not HTTP |
//! | `instance-timeout` | 504 | app | no answer in time |
//! | `internal` | 500 | lb | should not happen |

use std::fmt;

use pingora_core::{Error, ErrorSource, ErrorType};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) text: String,
    pub(crate) retry_after_s: Option<u32>,
}

impl Refusal {
    fn new(status: u16, code: &'static str, text: impl Into<String>) -> Self {
        Self { status, code, text: text.into(), retry_after_s: None }
    }

    fn later(code: &'static str, text: impl Into<String>) -> Self {
        Self { retry_after_s: Some(1), ..Self::new(503, code, text) }
    }

    pub(crate) fn framing(reason: &str) -> Self {
        Self::new(400, "bad-framing", format!("the request is ambiguous: {reason}"))
    }

    pub(crate) fn host(reason: impl fmt::Display) -> Self {
        Self::new(400, "bad-host", format!("the request cannot be routed: {reason}"))
    }

    pub(crate) fn path(reason: impl fmt::Display) -> Self {
        Self::new(400, "bad-path", format!("the request cannot be routed: {reason}"))
    }

    pub(crate) fn head_too_large() -> Self {
        Self::new(431, "head-too-large", "the request head is larger than 32 KiB or has more than 100 fields")
    }

    pub(crate) fn no_route() -> Self {
        Self::new(404, "no-route", "no app has a route for this host and path")
    }

    pub(crate) fn no_table() -> Self {
        Self::later("no-table", "the load balancer has no route table yet")
    }

    pub(crate) fn maintenance(text: &str) -> Self {
        Self { retry_after_s: Some(30), ..Self::new(503, "maintenance", text) }
    }

    pub(crate) fn hold_full() -> Self {
        Self::later("hold-full", "too many requests wait for the end of a hold")
    }

    pub(crate) fn hold_timeout() -> Self {
        Self::later("hold-timeout", "the hold did not end in time")
    }

    pub(crate) fn no_instance(reason: &str) -> Self {
        Self::later("no-instance", reason)
    }

    /// What an error of the proxy means to the client; none when the client itself is gone.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        use ErrorType as T;
        match (error.esource(), error.etype()) {
            (ErrorSource::Downstream, T::ReadTimedout) => {
                Some(Self::new(408, "client-timeout", "the body did not come in time"))
            }
            (ErrorSource::Downstream, T::ReadError | T::WriteError | T::WriteTimedout | T::ConnectionClosed) => None,
            (ErrorSource::Downstream, _) => Some(Self::framing("its body is not framed as its head says")),
            (
                _,
                T::ConnectTimedout
                | T::ConnectRefused
                | T::ConnectNoRoute
                | T::ConnectError
                | T::SocketError
                | T::BindError,
            ) => Some(Self::new(502, "instance-unreachable", "the app's instance takes no connections")),
            (_, T::ReadTimedout | T::WriteTimedout) => {
                Some(Self::new(504, "instance-timeout", "the app's instance did not answer in time"))
            }
            (ErrorSource::Upstream, T::InvalidHTTPHeader | T::H1Error) => {
                Some(Self::new(502, "instance-invalid", "the app's instance answered something that is not HTTP"))
            }
            (ErrorSource::Upstream, _) => Some(Self::new(
                502,
                "instance-broke-off",
                "the app's instance closed the connection before it answered",
            )),
            _ => Some(Self::new(500, "internal", "the load balancer could not handle this request")),
        }
    }
}
