//! Compose: heads as lb sends them on. What says something of one connection alone is written anew, and what a client
//! says of where it comes from is replaced by what lb sees.

use std::fmt::Display;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use appbase_core::v1::{Cors, HeaderEdits};
use lb_core::guard::{self, Crossing};
use lb_core::http1::framing::{self, RequestFraming, ResponseFraming};
use lb_core::http1::{BodyLength, Known, RequestHead, ResponseHead};
use lb_core::trace::Context;

use crate::certificates::Shaken;
use crate::marks::{Marks, PLACE_COOKIE, STICKY_COOKIE};

const COOKIE_ATTRIBUTES: &str = "Path=/; HttpOnly; SameSite=Lax";
const NOTICE: &str = "X-Platform-Notice";
const HSTS: &str = "Strict-Transport-Security";

/// Where a head is written, line by line.
pub(crate) trait Lines {
    fn begin_request(&mut self, method: &str, path: &str);

    fn begin_answer(&mut self, status: u16, reason: &str);

    fn line(&mut self, name: &str, value: &[u8]);

    fn display(&mut self, name: &str, value: impl Display);

    /// How the body goes out, so far as a line says it.
    fn length(&mut self, body: BodyLength) {
        match body {
            BodyLength::None | BodyLength::UntilClose => {}
            BodyLength::Bytes(bytes) => self.display("Content-Length", bytes),
            BodyLength::Chunked => self.line("Transfer-Encoding", b"chunked"),
        }
    }

    fn end(&mut self);
}

/// HTTP/1.1, as text.
impl Lines for Vec<u8> {
    fn begin_request(&mut self, method: &str, path: &str) {
        for part in [method, " ", path, " HTTP/1.1\r\n"] {
            self.extend_from_slice(part.as_bytes());
        }
    }

    fn begin_answer(&mut self, status: u16, reason: &str) {
        // Writing to memory cannot fail.
        let _ = write!(self, "HTTP/1.1 {status} {reason}\r\n");
    }

    fn line(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.extend_from_slice(part);
        }
    }

    fn display(&mut self, name: &str, value: impl Display) {
        let _ = write!(self, "{name}: {value}\r\n");
    }

    fn end(&mut self) {
        self.extend_from_slice(b"\r\n");
    }
}

/// What lb itself says of a request.
#[derive(Clone, Copy)]
pub(crate) struct Forwarded<'a> {
    pub(crate) client: IpAddr,
    /// None: it came without TLS.
    pub(crate) tls: Option<&'a Shaken>,
    pub(crate) request_id: &'a str,
    /// As the client wrote it.
    pub(crate) host: Option<&'a str>,
    /// Path and query as the app is to see them.
    pub(crate) path: &'a str,
    pub(crate) instance: SocketAddr,
    pub(crate) edits: Option<&'a HeaderEdits>,
    pub(crate) notice: Option<&'a str>,
    /// None: what the client says of that goes on as it is.
    pub(crate) trace: Option<Context>,
    /// It goes to another instance as well, and nobody waits for the answer of this one.
    pub(crate) is_copy: bool,
}

pub(crate) fn request(out: &mut impl Lines, head: &RequestHead, framing: &RequestFraming, forwarded: &Forwarded<'_>) {
    out.begin_request(head.method(), forwarded.path);
    let edits = forwarded.edits;
    let set_host = edits.and_then(|edits| edits.set.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")));
    match set_host.map(|(_, host)| host.as_str()).or(forwarded.host) {
        Some(host) => out.line("Host", host.as_bytes()),
        // A request in HTTP/1.0 may have none.
        None => out.display("Host", forwarded.instance),
    }
    for field in head.fields.iter() {
        let goes_on = match field.known {
            Known::Accept | Known::ContentType | Known::IdempotencyKey | Known::Other => true,
            Known::Expect => framing.expects_continue,
            Known::Upgrade => framing.upgrade,
            Known::TraceParent => forwarded.trace.is_none(),
            // It says more of the client's trace, so it goes with that one alone.
            Known::TraceState => forwarded.trace.is_none_or(|trace| trace.parent.is_some()),
            Known::Connection
            | Known::ContentLength
            | Known::Host
            | Known::TransferEncoding
            | Known::XRequestId
            | Known::ThisHop
            | Known::Origin => false,
        };
        let is_nominated = || framing.nominates && framing::is_nominated(&head.fields, field.name);
        if goes_on && !is_nominated() && !replaces(edits, field.name) {
            out.line(field.name, field.value);
        }
    }
    add(out, edits);
    if framing.upgrade {
        out.line("Connection", b"upgrade");
    }
    out.display("X-Forwarded-For", forwarded.client);
    out.line("X-Forwarded-Proto", if forwarded.tls.is_some() { b"https" } else { b"http" });
    if let Some(host) = forwarded.host {
        out.line("X-Forwarded-Host", host.as_bytes());
    }
    out.line("X-Request-Id", forwarded.request_id.as_bytes());
    if let Some(trace) = forwarded.trace {
        out.display("traceparent", trace);
    }
    if let Some(notice) = forwarded.notice {
        out.line(NOTICE, notice.as_bytes());
    }
    if let Some(certificate) = forwarded.tls.and_then(|shaken| shaken.client_certificate.as_ref()) {
        out.line("Client-Cert", certificate.as_bytes());
    }
    if forwarded.is_copy {
        out.line("X-Platform-Copy", b"1");
    }
    out.length(framing.body);
    out.end();
}

/// What lb itself says of an answer.
pub(crate) struct Answered<'a> {
    pub(crate) request_id: &'a str,
    /// How the body goes out; it may have come another way.
    pub(crate) body: BodyLength,
    pub(crate) connection: Option<&'static str>,
    pub(crate) edits: Option<&'a HeaderEdits>,
    /// The route's, and what it has for this request.
    pub(crate) cors: Option<(&'a Cors, Crossing<'a>)>,
    pub(crate) marks: Marks,
    pub(crate) notice: Option<&'a str>,
}

pub(crate) fn response(out: &mut impl Lines, head: &ResponseHead, framing: &ResponseFraming, answered: &Answered<'_>) {
    out.begin_answer(head.status(), head.reason());
    let switches = head.status() == 101;
    for field in head.fields.iter() {
        let goes_on = match field.known {
            Known::Upgrade => switches,
            // To HEAD, and of what was not modified, it says what the length would be.
            Known::ContentLength => framing.body == BodyLength::None && !matches!(head.status(), 100..200 | 204),
            Known::Connection | Known::TransferEncoding | Known::XRequestId | Known::ThisHop => false,
            _ => true,
        };
        let is_nominated = || framing.nominates && framing::is_nominated(&head.fields, field.name);
        let is_ours = || {
            (answered.marks.https_for_s > 0 && field.name.eq_ignore_ascii_case(HSTS))
                || (answered.cors.is_some() && is_of_cors(field.name))
        };
        if goes_on && !is_ours() && !is_nominated() && !replaces(answered.edits, field.name) {
            out.line(field.name, field.value);
        }
    }
    add(out, answered.edits);
    if let Some((cors, crossing)) = &answered.cors {
        guard::cors_lines(cors, crossing, |name, value| out.line(name, value.as_bytes()));
    }
    if let Some((process, instance)) = answered.marks.sticks_to {
        let cookie = format_args!("{STICKY_COOKIE}{process:08x}={instance:016x}; {COOKIE_ATTRIBUTES}");
        out.display("Set-Cookie", cookie);
    }
    if let Some(place) = answered.marks.place {
        out.display("Set-Cookie", format_args!("{PLACE_COOKIE}={place:04x}; {COOKIE_ATTRIBUTES}"));
    }
    told(out, answered.notice, &answered.marks);
    out.line("X-Request-Id", answered.request_id.as_bytes());
    if let Some(connection) = answered.connection {
        out.line("Connection", connection.as_bytes());
    }
    out.length(answered.body);
    out.end();
}

fn is_of_cors(name: &str) -> bool {
    name.get(..15).is_some_and(|start| start.eq_ignore_ascii_case("access-control-"))
}

/// What is said with every answer, lb's own too.
pub(crate) fn told(out: &mut impl Lines, notice: Option<&str>, marks: &Marks) {
    if marks.https_for_s > 0 {
        out.display(HSTS, format_args!("max-age={}", marks.https_for_s));
    }
    if marks.preview {
        // Its host is the secret: no index and no other site gets to know it.
        out.line("X-Robots-Tag", b"noindex, nofollow");
        out.line("Referrer-Policy", b"no-referrer");
    }
    if let Some(notice) = notice {
        out.line(NOTICE, notice.as_bytes());
    }
}

/// Whether a route's edits take this line out, for good or for another.
fn replaces(edits: Option<&HeaderEdits>, name: &str) -> bool {
    edits.is_some_and(|edits| edits.remove.iter().chain(edits.set.keys()).any(|other| is_twin(other, name)))
}

/// Whether many app servers take both for one name: in every letter case, and with `_` for `-`.
fn is_twin(one: &str, two: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    one.len() == two.len() && one.bytes().map(plain).eq(two.bytes().map(plain))
}

/// What a route's edits put in.
pub(crate) fn add(out: &mut impl Lines, edits: Option<&HeaderEdits>) {
    let Some(edits) = edits else { return };
    for (name, value) in edits.set.iter().chain(&edits.add).filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        out.line(name, value.as_bytes());
    }
}

/// A head that another one follows.
pub(crate) fn interim(out: &mut impl Lines, head: &ResponseHead) {
    out.begin_answer(head.status(), head.reason());
    for field in head.fields.iter().filter(|field| field.known == Known::Other) {
        out.line(field.name, field.value);
    }
    out.end();
}

/// What an answer says of its connection: HTTP/1.0 goes on only where that is said, HTTP/1.1 ends only so.
pub(crate) fn connection(goes_on: bool, is_http10: bool) -> Option<&'static str> {
    match (goes_on, is_http10) {
        (false, _) => Some("close"),
        (true, true) => Some("keep-alive"),
        (true, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_on_without_what_ends_here() {
        let mut head = RequestHead::default();
        let came = "POST http://a.example/x?y HTTP/1.1\r\nhost: a.example\r\nCookie: b\r\nConnection: close, X-Mine\r\nx-mine: 1\r\n\
                    TE: trailers\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\nForwarded: for=1\r\n\
                    X-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1\r\nX-Request-ID: lie\r\nExpect: 100-continue\r\nContent-Length: 03\r\n\r\n";
        head.read(came.as_bytes()).unwrap();
        let framing = framing::of_request(&head).unwrap();
        let (host, path) = framing::target(&head).unwrap();
        let forwarded = Forwarded {
            client: "192.0.2.1".parse().unwrap(),
            tls: None,
            request_id: "id",
            host,
            path,
            instance: "127.0.0.1:1".parse().unwrap(),
            edits: None,
            notice: None,
            trace: None,
            is_copy: false,
        };
        let mut out = Vec::new();
        request(&mut out, &head, &framing, &forwarded);
        let expect = "POST /x?y HTTP/1.1\r\nHost: a.example\r\nCookie: b\r\nExpect: 100-continue\r\nX-Forwarded-For: 192.0.2.1\r\n\
                      X-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example\r\nX-Request-Id: id\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn answers_go_on_framed_for_the_client() {
        let mut head = ResponseHead::default();
        let came = "HTTP/1.1 200 Fine\r\nSet-Cookie: a\r\nset-cookie: b\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
                    Transfer-Encoding: chunked\r\nX-Request-Id: lie\r\n\r\n";
        head.read(came.as_bytes()).unwrap();
        let framing = framing::of_response(&head, "GET").unwrap();
        let mut out = Vec::new();
        let answered = Answered {
            request_id: "id",
            body: BodyLength::UntilClose,
            connection: Some("close"),
            edits: None,
            cors: None,
            marks: Marks::default(),
            notice: None,
        };
        response(&mut out, &head, &framing, &answered);
        let expect =
            "HTTP/1.1 200 Fine\r\nSet-Cookie: a\r\nset-cookie: b\r\nX-Request-Id: id\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expect);

        head.read(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: x\r\n\r\n").unwrap();
        let framing = framing::of_response(&head, "GET").unwrap();
        let mut out = Vec::new();
        response(
            &mut out,
            &head,
            &framing,
            &Answered {
                request_id: "id",
                body: framing.body,
                connection: None,
                edits: None,
                cors: None,
                marks: Marks::default(),
                notice: None,
            },
        );
        assert!(String::from_utf8(out).unwrap().contains("\r\nContent-Length: 7\r\nETag: x\r\n"));
    }

    #[test]
    fn edits_take_out_replace_and_put_in() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let edits = HeaderEdits {
            set: map(&[("X-Tier", "gold"), ("Host", "inner.example")]),
            add: map(&[("Via-Lb", "1")]),
            remove: ["Cookie".to_owned()].into(),
        };
        let mut head = RequestHead::default();
        head.read(b"GET / HTTP/1.1\r\nHost: a\r\ncookie: x\r\nx_tier: none\r\nVia-Lb: 0\r\n\r\n").unwrap();
        let forwarded = Forwarded {
            client: "192.0.2.1".parse().unwrap(),
            tls: None,
            request_id: "id",
            host: Some("a"),
            path: "/",
            instance: "127.0.0.1:1".parse().unwrap(),
            edits: Some(&edits),
            notice: None,
            trace: None,
            is_copy: false,
        };
        let mut out = Vec::new();
        request(&mut out, &head, &framing::of_request(&head).unwrap(), &forwarded);
        let out = String::from_utf8(out).unwrap();
        let expect =
            "GET / HTTP/1.1\r\nHost: inner.example\r\nVia-Lb: 0\r\nX-Tier: gold\r\nVia-Lb: 1\r\nX-Forwarded-For: ";
        assert!(out.starts_with(expect) && out.contains("X-Forwarded-Host: a\r\n"), "{out}");

        let mut head = ResponseHead::default();
        head.read(b"HTTP/1.1 200 OK\r\nServer: odd\r\nX-Tier: none\r\n\r\n").unwrap();
        let edits = HeaderEdits { set: map(&[("x-tier", "gold")]), remove: ["server".to_owned()].into(), ..edits };
        let framing = framing::of_response(&head, "HEAD").unwrap();
        let answered = Answered {
            request_id: "id",
            body: framing.body,
            connection: None,
            edits: Some(&edits),
            cors: None,
            marks: Marks::default(),
            notice: None,
        };
        let mut out = Vec::new();
        response(&mut out, &head, &framing, &answered);
        let expect = "HTTP/1.1 200 OK\r\nx-tier: gold\r\nVia-Lb: 1\r\nX-Request-Id: id\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }
}
