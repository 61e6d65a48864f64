//! Refusal: everything lb itself answers instead of an app, each with a stable code that says who failed. Redirects and
//! preflights of CORS (codes `redirect` and `preflight`) are among them, and what an authority is answered (`challenge`,
//! its text without a line end), though nobody failed.
//!
//! | code | status | who | |
//! | --- | --- | --- | --- |
//! | `bad-framing`, `bad-host`, `bad-path` | 400 | client | two programs could read it differently |
//! | `bad-framing` | 501 | client | a transfer coding other than `chunked` |
//! | `misdirected` | 421 | client | the connection was made for another host; a new one is for this |
//! | `client-certificate` | 403 | client | the app asks for a certificate of the client, and without TLS there is none |
//! | `not-allowed` | 403 | client | its address is in none of the route's networks |
//! | `body-too-large` | 413 | client | more than the route takes |
//! | `rate-limited` | 429 | client | more requests than the route's rate; `Retry-After` says when |
//! | `sign-in` | 401 | client | the route asks for a name and a password, and these are none of its users' |
//! | `too-many-tries` | 429 | client | wrong ones came too often from its network; `Retry-After` says when |
//! | `sign-in-busy` | 503 | lb | too many passwords wait to be checked |
//! | `auth-failed` | 502, 503 | app | the app that decides who may ask gave no sound answer, or has no instance that is up |
//! | `auth-timeout` | 504 | app | it took longer than 10 s |
//! | `bad-method` | 405 | client | `CONNECT`: lb is no forward proxy |
//! | `client-timeout` | 408 | client | the head took longer than 10 s; the body was silent for 60 s, or brought less than 1 KiB in 30 s |
//! | `head-too-large` | 431 | client | more than 32 KiB or 100 fields |
//! | `no-route` | 404 | client | no app has a route for this request |
//! | `no-table` | 503 | lb | started, and has no table yet |
//! | `maintenance` | 503 | operator | the app's maintenance text |
//! | `hold-full`, `hold-timeout` | 503 | operator | too many waited, or too long |
//! | `no-instance` | 503 | app | none is up |
//! | `instance-unreachable` | 502 | app | no connection could be made |
//! | `instance-broke-off` | 502 | app | the connection ended before an answer |
//! | `instance-invalid` | 502 | app | what it answered is not HTTP |
//! | `answer-too-large` | 502 | app | more than the route lets through |
//! | `instance-timeout` | 504 | app | no answer in time |

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lb_core::guard::Denied;
use lb_core::rule::{Ask, Rule};

use crate::attempt::InstanceFault;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) text: String,
    pub(crate) retry_after_s: Option<u32>,
    /// No failure: a route says so. With these lines.
    pub(crate) wanted: Option<Vec<(String, String)>>,
    /// The rule that says so.
    pub(crate) rule: Option<Arc<Rule>>,
    /// What people are to sign in to.
    pub(crate) realm: Option<String>,
    /// It is another app's answer, passed on.
    pub(crate) said: Option<Box<Said>>,
}

/// Lines and body of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) lines: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// Whole ones, for people who wait.
fn seconds(wait: Duration) -> u32 {
    wait.as_secs_f64().ceil().clamp(1.0, 86_400.0) as u32
}

impl Refusal {
    fn new(status: u16, code: &'static str, text: impl Into<String>) -> Self {
        Self { status, code, text: text.into(), retry_after_s: None, wanted: None, rule: None, realm: None, said: None }
    }

    fn later(code: &'static str, text: impl Into<String>) -> Self {
        Self { retry_after_s: Some(1), ..Self::new(503, code, text) }
    }

    pub(crate) fn framing(reason: impl fmt::Display) -> Self {
        Self::new(400, "bad-framing", format!("the request is ambiguous: {reason}"))
    }

    /// RFC 9112, section 6.1.
    pub(crate) fn coding() -> Self {
        Self::new(501, "bad-framing", "the request's Transfer-Encoding is not chunked alone")
    }

    pub(crate) fn connect() -> Self {
        Self::new(405, "bad-method", "CONNECT is for forward proxies")
    }

    pub(crate) fn late_head() -> Self {
        Self::new(408, "client-timeout", "the request's head did not come in time")
    }

    pub(crate) fn late_body() -> Self {
        Self::new(408, "client-timeout", "the request's body did not come in time")
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
        Self::new(404, "no-route", "no app has a route for this request")
    }

    pub(crate) fn no_table() -> Self {
        Self::later("no-table", "the load balancer has no route table yet")
    }

    pub(crate) fn redirect(status: u16, location: String, rule: &Arc<Rule>) -> Self {
        Self { rule: Some(Arc::clone(rule)), ..Self::elsewhere(status, location) }
    }

    fn elsewhere(status: u16, location: String) -> Self {
        let lines = vec![("Location".to_owned(), location.clone())];
        Self { wanted: Some(lines), ..Self::new(status, "redirect", location) }
    }

    /// A browser asks whether a page may ask.
    pub(crate) fn preflight(lines: Vec<(String, String)>) -> Self {
        Self { wanted: Some(lines), ..Self::new(204, "preflight", String::new()) }
    }

    /// An authority asks whether a name leads here.
    pub(crate) fn challenge(answer: &str) -> Self {
        let lines = vec![("Cache-Control".to_owned(), "no-store".to_owned())];
        Self { wanted: Some(lines), ..Self::new(200, "challenge", answer) }
    }

    pub(crate) fn denied(denied: &Denied) -> Self {
        match denied {
            Denied::Network => Self::new(403, "not-allowed", "this address may not ask here"),
            Denied::TooLarge { bytes_max } => Self::body_too_large(*bytes_max),
        }
    }

    pub(crate) fn body_too_large(bytes_max: u64) -> Self {
        Self::new(413, "body-too-large", format!("a request's body has at most {bytes_max} bytes here"))
    }

    pub(crate) fn too_many(wait: Duration) -> Self {
        let text = "more requests came than are let through here: ask again later";
        Self { retry_after_s: Some(seconds(wait)), ..Self::new(429, "rate-limited", text) }
    }

    pub(crate) fn sign_in(realm: &str) -> Self {
        Self { realm: Some(realm.to_owned()), ..Self::new(401, "sign-in", "give a name and its password") }
    }

    pub(crate) fn too_many_tries(wait: Duration) -> Self {
        let text = "wrong passwords came too often from here: try again later";
        Self { retry_after_s: Some(seconds(wait)), ..Self::new(429, "too-many-tries", text) }
    }

    /// What an app that decides who may ask says to the client.
    pub(crate) fn said(status: u16, said: Said) -> Self {
        let said = Some(Box::new(said));
        Self { said, wanted: Some(Vec::new()), ..Self::new(status, "auth", String::new()) }
    }

    pub(crate) fn inquiry_failed(status: u16) -> Self {
        let retry_after_s = (status == 503).then_some(1);
        let text = "the app that decides who may ask here gave no answer that could be used";
        Self { retry_after_s, ..Self::new(status, "auth-failed", text) }
    }

    pub(crate) fn inquiry_timeout() -> Self {
        Self::new(504, "auth-timeout", "the app that decides who may ask here did not answer in time")
    }

    pub(crate) fn sign_in_busy() -> Self {
        Self::later("sign-in-busy", "too many passwords wait to be checked")
    }

    /// No failure: the app is asked over TLS alone.
    pub(crate) fn to_https(host: &str, port: u16, ask: &Ask<'_>) -> Self {
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        let query = if ask.query.is_empty() { String::new() } else { format!("?{}", ask.query) };
        Self::elsewhere(308, format!("https://{host}{port}{}{query}", ask.path))
    }

    pub(crate) fn misdirected() -> Self {
        Self::new(421, "misdirected", "this connection was made for another host: ask on a new one")
    }

    pub(crate) fn no_client_certificate() -> Self {
        Self::new(403, "client-certificate", "this app asks for a client's certificate: ask over https, and show one")
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

    pub(crate) fn unreachable() -> Self {
        Self::new(502, "instance-unreachable", "the app's instance takes no connections")
    }

    pub(crate) fn of(fault: InstanceFault) -> Self {
        match fault {
            InstanceFault::BrokeOff => {
                Self::new(502, "instance-broke-off", "the app's instance closed the connection before it answered")
            }
            InstanceFault::Invalid(reason) => Self::new(
                502,
                "instance-invalid",
                format!("the app's instance answered something else than HTTP: {reason}"),
            ),
            InstanceFault::Unsayable => Self::path("its path or host cannot be said in HTTP/2, which the app speaks"),
            InstanceFault::TooLarge => {
                Self::new(502, "answer-too-large", "the app's answer is larger than its route lets through")
            }
            InstanceFault::Silent => Self::new(504, "instance-timeout", "the app's instance did not answer in time"),
        }
    }
}
