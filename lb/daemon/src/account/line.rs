//! Line: all that is told of one request, and how a log says it.

use std::fmt::{self, Display};
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use appbase_core::{Moment, SectionKey};
use lb_core::trace::Share;
use serde::Serialize;

use super::Account;
use crate::connection::Connection;
use crate::request::End;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

pub(crate) struct Line<'a> {
    pub(crate) ended: Ended<'a>,
    pub(crate) account: &'a Account,
    /// Lines of this kind stand for more than one.
    pub(crate) share: Option<Share>,
}

/// How it ended.
#[derive(Clone, Copy)]
pub(crate) struct Ended<'a> {
    pub(crate) unix_ms: u64,
    pub(crate) id: &'a str,
    pub(crate) connection: &'a Connection,
    /// Without what is secret of it.
    pub(crate) host: Option<&'a str>,
    /// As it was routed; without its query.
    pub(crate) path: &'a str,
    /// None: the client got no answer.
    pub(crate) status: Option<u16>,
    /// lb answered itself, with this.
    pub(crate) code: Option<&'static str>,
    pub(crate) end: End,
    pub(crate) took: Duration,
    pub(crate) attempts: u32,
}

/// As it is written in JSON.
#[derive(Serialize)]
struct Written<'a> {
    time: Shown<Moment>,
    request_id: &'a str,
    client: IpAddr,
    scheme: &'static str,
    protocol: &'static str,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    path: &'a str,
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    end: &'static str,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_ms: Option<f64>,
    request_bytes: u64,
    response_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<Shown<TraceId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
}

/// Written as it is shown, without a string in between.
struct Shown<T>(T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct TraceId(u128);

impl Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Ended<'_> {
    pub(crate) fn scheme(&self) -> &'static str {
        if self.connection.tls.is_some() { "https" } else { "http" }
    }

    pub(crate) fn end(&self) -> &'static str {
        match self.end {
            End::Complete => "complete",
            End::ClientGone => "client-gone",
            End::BrokeOff => "broke-off",
            End::Unknown => "cut",
        }
    }
}

impl Line<'_> {
    /// Environment and app.
    pub(crate) fn section(&self) -> Option<(&str, &str)> {
        match self.account.rule.as_ref().map(|rule| &rule.section.key) {
            Some(SectionKey::App { environment, app }) => Some((environment.as_str(), app.as_str())),
            _ => None,
        }
    }

    /// Its name, and the release.
    pub(crate) fn instance(&self) -> Option<(&str, u64)> {
        self.account.instance.as_ref().map(|(backend, release)| (backend.id.as_str(), *release))
    }

    /// One object in one line.
    pub(crate) fn json(&self, out: &mut Vec<u8>) {
        let Self { ended, account, .. } = self;
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let written = Written {
            time: Shown(Moment::of(ended.unix_ms)),
            request_id: ended.id,
            client: ended.connection.client,
            scheme: ended.scheme(),
            protocol: account.protocol,
            method: &account.method,
            host: ended.host,
            path: ended.path,
            status: ended.status,
            code: ended.code,
            end: ended.end(),
            duration_ms: ms(ended.took),
            instance_ms: account.instance_took.map(ms),
            request_bytes: account.request_bytes,
            response_bytes: account.response_bytes,
            environment: self.section().map(|(environment, _)| environment),
            app: self.section().map(|(_, app)| app),
            release: self.instance().map(|(_, release)| release),
            instance: self.instance().map(|(instance, _)| instance),
            attempts: ended.attempts,
            referer: account.referer.as_deref(),
            user_agent: account.user_agent.as_deref(),
            trace_id: account.trace.map(|trace| Shown(TraceId(trace.trace))),
            share: self.share.map(Share::part),
        };
        serde_json::to_writer(&mut *out, &written).expect("it has only text, numbers and memory to go to");
        out.push(b'\n');
    }

    /// Apache's combined log format. 499 is what nginx says of a client that went away before its answer.
    pub(crate) fn combined(&self, out: &mut Vec<u8>) {
        let Self { ended, account, .. } = self;
        let Moment { year, month, day, hour, minute, second, .. } = Moment::of(ended.unix_ms);
        let month = MONTHS[(month - 1) as usize];
        let client = ended.connection.client;
        let (method, path, protocol) = (Escaped(&account.method), Escaped(ended.path), account.protocol);
        let (status, bytes) = (ended.status.unwrap_or(499), account.response_bytes);
        let said = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let (referer, agent) = (said(&account.referer), said(&account.user_agent));
        let (referer, agent) = (Escaped(&referer), Escaped(&agent));
        // Writing to memory cannot fail.
        let _ = writeln!(
            out,
            "{client} - - [{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000] \"{method} {path} {protocol}\" \
             {status} {bytes} \"{referer}\" \"{agent}\""
        );
    }
}

/// Text between quotation marks: marks, backslashes and what is not to be seen, as `\xHH`.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |byte: u8| !matches!(byte, b'"' | b'\\' | 0..b' ' | 0x7f..);
        let mut rest = self.0;
        while let Some(at) = rest.bytes().position(|byte| !is_plain(byte)) {
            let special = rest[at..].chars().next().map_or(1, char::len_utf8);
            f.write_str(&rest[..at])?;
            for byte in rest[at..at + special].bytes() {
                write!(f, "\\x{byte:02X}")?;
            }
            rest = &rest[at + special..];
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lb_core::trace::Context;

    use super::*;
    use crate::account::Listeners;

    fn kept() -> Account {
        Account {
            listeners: Listeners::default(),
            is_logged: true,
            trace: None,
            method: "GET".to_owned(),
            protocol: "HTTP/2.0",
            referer: None,
            user_agent: Some("curl/8 \"x\"\n".to_owned()),
            rule: None,
            instance: None,
            request_bytes: 0,
            response_bytes: 4321,
            instance_took: Some(Duration::from_micros(987)),
        }
    }

    fn ended(connection: &Connection) -> Ended<'_> {
        Ended {
            unix_ms: 1_795_183_331_042,
            id: "abc",
            connection,
            host: Some("shop.example"),
            path: "/a\"b\\\u{1}ü",
            status: Some(200),
            code: None,
            end: End::Complete,
            took: Duration::from_micros(1234),
            attempts: 1,
        }
    }

    fn connection() -> Arc<Connection> {
        Connection::new("192.0.2.7".parse().expect("an address"), None)
    }

    fn said(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn nobody_can_write_a_line_of_his_own() {
        let (connection, account) = (connection(), kept());
        let line = Line { ended: ended(&connection), account: &account, share: None };
        let said = said(|out| line.combined(out));
        let expect = "192.0.2.7 - - [20/Nov/2026:14:02:11 +0000] \"GET /a\\x22b\\x5C\\x01\\xC3\\xBC HTTP/2.0\" 200 4321 \"-\" \
                      \"curl/8 \\x22x\\x22\\x0A\"\n";
        assert_eq!(said, expect);
    }

    #[test]
    fn a_line_of_json_says_what_is_known_and_nothing_else() {
        let (connection, account) = (connection(), kept());
        let line = Line { ended: ended(&connection), account: &account, share: None };
        let text = said(|out| line.json(out));
        assert_eq!(text.matches('\n').count(), 1);
        let read: serde_json::Value = serde_json::from_str(&text).expect("json");
        assert_eq!(
            read,
            serde_json::json!({
                "time": "2026-11-20T14:02:11.042Z", "request_id": "abc", "client": "192.0.2.7", "scheme": "http",
                "protocol": "HTTP/2.0", "method": "GET", "host": "shop.example", "path": "/a\"b\\\u{1}ü", "status": 200,
                "end": "complete", "duration_ms": 1.234, "instance_ms": 0.987, "request_bytes": 0,
                "response_bytes": 4321, "attempts": 1, "user_agent": "curl/8 \"x\"\n",
            })
        );
        let trace = Context { trace: 0xa1, span: 2, parent: None, is_sampled: false };
        let account = Account { trace: Some(trace), ..kept() };
        let ended = Ended { status: None, end: End::ClientGone, ..line.ended };
        let gone = Line { ended, account: &account, share: Share::new(0.1) };
        let read: serde_json::Value = serde_json::from_str(&said(|out| gone.json(out))).expect("json");
        assert_eq!((&read["status"], &read["end"]), (&serde_json::Value::Null, &"client-gone".into()));
        assert_eq!((&read["trace_id"], &read["share"]), (&format!("{:032x}", 0xa1).into(), &0.1.into()));
        assert!(said(|out| gone.combined(out)).contains("\" 499 "));
    }
}
