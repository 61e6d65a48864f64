//! Framing: how long a message's body is (RFC 9112, section 6), and what a request says of its connection. All that two
//! programs could read differently is refused.

use super::field::{Field, Fields, Known};
use super::head::{RequestHead, ResponseHead};

/// Why a head says nothing clear about its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("it has Content-Length and Transfer-Encoding")]
    TwoLengths,
    #[error("it has Content-Length more than once")]
    ManyLengths,
    #[error("its Content-Length is not a number")]
    Length,
    #[error("its Transfer-Encoding is not chunked alone")]
    Coding,
    #[error("it has Transfer-Encoding in HTTP/1.0")]
    CodingIn10,
    #[error("it has no Host")]
    NoHost,
    #[error("it has Host more than once")]
    ManyHosts,
    #[error("its Connection names {0}, which is for whoever answers")]
    ForAll(&'static str),
    #[error("its Connection names more than 16 fields")]
    ManyNominated,
    #[error("its target is neither a path, nor a whole http URI, nor * with OPTIONS")]
    Target,
    #[error("its target and its Host name different hosts")]
    OtherHost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    None,
    Bytes(u64),
    Chunked,
    /// An answer that ends with its connection.
    UntilClose,
}

/// What a request's head says apart from what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFraming {
    pub body: BodyLength,
    /// The client wants to send another request.
    pub keep_alive: bool,
    /// It asks to leave HTTP: WebSocket and the like. An upgrade to HTTP/2 is not among them: it is ignored.
    pub upgrade: bool,
    /// It waits for `100 Continue` before it sends its body.
    pub expects_continue: bool,
    /// Its `Connection` names fields that end here: see [`is_nominated`].
    pub nominates: bool,
}

/// Each is looked for in each line.
const NOMINATED_MAX: u32 = 16;
/// Named in `Connection`, these would be taken out on the way (RFC 9110, section 7.6.1).
const FOR_ALL: [&str; 7] =
    ["host", "content-length", "transfer-encoding", "authorization", "cookie", "x-request-id", "x-forwarded-for"];

pub fn of_request(head: &RequestHead) -> Result<RequestFraming, FramingError> {
    let mut connection = OfConnection::default();
    let (mut lengths, mut codings) = (Lengths::default(), Codings::default());
    let (mut hosts, mut expects_continue) = (0u32, false);
    let (mut upgrades, mut to_http2) = (false, false);
    for field in head.fields.iter() {
        match field.known {
            Known::Host => hosts += 1,
            Known::Connection => connection.take(&field)?,
            Known::ContentLength => lengths.take(&field)?,
            Known::TransferEncoding => codings.take(&field)?,
            Known::Upgrade => {
                upgrades = true;
                to_http2 |= is_http2(&field);
            }
            Known::Expect => expects_continue |= field.value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
    }
    if hosts > 1 {
        return Err(FramingError::ManyHosts);
    }
    if hosts == 0 && !head.is_http10() {
        return Err(FramingError::NoHost);
    }
    if codings.chunked && head.is_http10() {
        return Err(FramingError::CodingIn10);
    }
    let body = length(lengths, codings)?.unwrap_or(BodyLength::None);
    Ok(RequestFraming {
        body,
        keep_alive: if head.is_http10() { connection.keep_alive && !connection.close } else { !connection.close },
        upgrade: connection.upgrade
            && !head.is_http10()
            && matches!(body, BodyLength::None | BodyLength::Bytes(0))
            && upgrades
            && !to_http2,
        expects_continue: expects_continue
            && !head.is_http10()
            && !matches!(body, BodyLength::None | BodyLength::Bytes(0)),
        nominates: connection.nominated > 0,
    })
}

/// Whether `Upgrade` names HTTP/2: a tunnel of it would pass lb's routes.
pub fn is_http2(upgrade: &Field<'_>) -> bool {
    upgrade.tokens().any(|token| token.len() > 1 && token[..2].eq_ignore_ascii_case(b"h2"))
}

/// What an answer to `method` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseFraming {
    pub body: BodyLength,
    /// The connection can carry another request afterwards.
    pub keep_alive: bool,
    /// As in a request.
    pub nominates: bool,
}

pub fn of_response(head: &ResponseHead, method: &str) -> Result<ResponseFraming, FramingError> {
    let mut connection = OfConnection::default();
    let (mut lengths, mut codings) = (Lengths::default(), Codings::default());
    for field in head.fields.iter() {
        match field.known {
            Known::Connection => connection.take(&field)?,
            Known::ContentLength => lengths.take(&field)?,
            Known::TransferEncoding => codings.take(&field)?,
            _ => {}
        }
    }
    if codings.chunked && head.is_http10() {
        return Err(FramingError::CodingIn10);
    }
    let said = length(lengths, codings)?;
    let bodiless = method == "HEAD" || matches!(head.status(), 100..200 | 204 | 304);
    let body = if bodiless { BodyLength::None } else { said.unwrap_or(BodyLength::UntilClose) };
    let persists = if head.is_http10() { connection.keep_alive && !connection.close } else { !connection.close };
    Ok(ResponseFraming {
        body,
        keep_alive: persists && body != BodyLength::UntilClose,
        nominates: connection.nominated > 0,
    })
}

/// The host and the path that a request is for. Without a host in its target that is its `Host`.
pub fn target(head: &RequestHead) -> Result<(Option<&str>, &str), FramingError> {
    let text = head.target();
    // Clients keep fragments to themselves; some apps would take one for a part of the path.
    if text.contains('#') {
        return Err(FramingError::Target);
    }
    let host =
        head.fields.get(Known::Host).map(|field| std::str::from_utf8(field.value).map_err(|_| FramingError::Target));
    let host = host.transpose()?;
    if text.starts_with('/') || (text == "*" && head.method() == "OPTIONS") {
        return Ok((host, text));
    }
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let rest = &text[scheme.ok_or(FramingError::Target)?.len()..];
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() || !(path.is_empty() || path.starts_with('/')) {
        return Err(FramingError::Target);
    }
    // RFC 9112, section 3.2.2 has the target win. Two different ones are no mistake that anyone makes.
    if host.is_some_and(|host| !host.eq_ignore_ascii_case(authority)) {
        return Err(FramingError::OtherHost);
    }
    Ok((Some(authority), if path.is_empty() { "/" } else { path }))
}

/// Whether `Connection` takes this field out on the way.
pub fn is_nominated(fields: &Fields, name: &str) -> bool {
    fields.all(Known::Connection).any(|field| field.has_token(name))
}

#[derive(Default)]
struct OfConnection {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    nominated: u32,
}

impl OfConnection {
    fn take(&mut self, field: &Field<'_>) -> Result<(), FramingError> {
        for token in field.tokens() {
            let is = |word: &str| token.eq_ignore_ascii_case(word.as_bytes());
            if is("close") {
                self.close = true;
            } else if is("keep-alive") {
                self.keep_alive = true;
            } else if is("upgrade") {
                self.upgrade = true;
            } else if let Some(name) = FOR_ALL.into_iter().find(|name| is(name)) {
                return Err(FramingError::ForAll(name));
            } else {
                self.nominated += 1;
            }
        }
        if self.nominated > NOMINATED_MAX { Err(FramingError::ManyNominated) } else { Ok(()) }
    }
}

#[derive(Default)]
struct Lengths(Option<u64>);

impl Lengths {
    fn take(&mut self, field: &Field<'_>) -> Result<(), FramingError> {
        if self.0.is_some() || field.value.contains(&b',') {
            return Err(FramingError::ManyLengths);
        }
        let digits = field.value;
        let sound = !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(digits).ok().filter(|_| sound).and_then(|text| text.parse().ok());
        self.0 = Some(number.ok_or(FramingError::Length)?);
        Ok(())
    }
}

#[derive(Default)]
struct Codings {
    chunked: bool,
}

impl Codings {
    fn take(&mut self, field: &Field<'_>) -> Result<(), FramingError> {
        if self.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
            return Err(FramingError::Coding);
        }
        self.chunked = true;
        Ok(())
    }
}

fn length(lengths: Lengths, codings: Codings) -> Result<Option<BodyLength>, FramingError> {
    match (lengths.0, codings.chunked) {
        (Some(_), true) => Err(FramingError::TwoLengths),
        (Some(bytes), false) => Ok(Some(BodyLength::Bytes(bytes))),
        (None, true) => Ok(Some(BodyLength::Chunked)),
        (None, false) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(line: &str, lines: &str) -> RequestHead {
        let mut head = RequestHead::default();
        head.read(format!("{line}\r\n{lines}\r\n").as_bytes()).expect("a head");
        head
    }

    fn framing(lines: &str) -> Result<RequestFraming, FramingError> {
        of_request(&head("POST / HTTP/1.1", &format!("Host: a\r\n{lines}")))
    }

    #[test]
    fn a_body_has_one_length_or_the_request_is_refused() {
        for (lines, expect) in [
            ("", Ok(BodyLength::None)),
            ("Content-Length: 0\r\n", Ok(BodyLength::Bytes(0))),
            ("content-length: 0005\r\n", Ok(BodyLength::Bytes(5))),
            ("Transfer-Encoding: chunked\r\n", Ok(BodyLength::Chunked)),
            ("Transfer-Encoding: CHUNKED\r\n", Ok(BodyLength::Chunked)),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(FramingError::TwoLengths)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(FramingError::TwoLengths)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(FramingError::ManyLengths)),
            ("Content-Length: 5, 5\r\n", Err(FramingError::ManyLengths)),
            ("Content-Length: +5\r\n", Err(FramingError::Length)),
            ("Content-Length: -5\r\n", Err(FramingError::Length)),
            ("Content-Length: 5 5\r\n", Err(FramingError::Length)),
            ("Content-Length: 0x5\r\n", Err(FramingError::Length)),
            ("Content-Length: 5_0\r\n", Err(FramingError::Length)),
            ("Content-Length: \r\n", Err(FramingError::Length)),
            ("Content-Length: 9999999999999999999\r\n", Err(FramingError::Length)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: identity\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: xchunked\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: chunked;q=1\r\n", Err(FramingError::Coding)),
            ("Transfer-Encoding: \r\n", Err(FramingError::Coding)),
        ] {
            assert_eq!(framing(lines).map(|framing| framing.body), expect, "{lines:?}");
        }
        let old = |lines: &str| of_request(&head("POST / HTTP/1.0", lines)).map(|framing| framing.body);
        assert_eq!(old("Transfer-Encoding: chunked\r\n"), Err(FramingError::CodingIn10));
        assert_eq!(old("Content-Length: 3\r\n"), Ok(BodyLength::Bytes(3)));
    }

    #[test]
    fn a_connection_goes_on_as_both_sides_say() {
        let keeps = |line, lines| of_request(&head(line, lines)).expect("sound").keep_alive;
        assert!(keeps("GET / HTTP/1.1", "Host: a\r\n"));
        assert!(!keeps("GET / HTTP/1.1", "Host: a\r\nConnection: Close\r\n"));
        assert!(!keeps("GET / HTTP/1.1", "Host: a\r\nConnection: x, keep-alive ,close\r\n"));
        assert!(!keeps("GET / HTTP/1.0", ""));
        assert!(keeps("GET / HTTP/1.0", "connection: keep-alive\r\n"));
        for name in ["Host", "content-length", "Transfer-Encoding", "Cookie"] {
            let named = framing(&format!("Connection: close, {name}\r\n"));
            assert!(matches!(named, Err(FramingError::ForAll(_))), "{name}: {named:?}");
        }
        let many = (0..17).map(|number| format!("a{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(framing(&format!("Connection: {many}\r\n")), Err(FramingError::ManyNominated));
        assert!(is_nominated(&head("GET / HTTP/1.1", "Connection: X-Mine, close\r\n").fields, "x-mine"));
    }

    #[test]
    fn hosts_are_one() {
        assert_eq!(of_request(&head("GET / HTTP/1.1", "")), Err(FramingError::NoHost));
        assert_eq!(of_request(&head("GET / HTTP/1.0", "Host: a\r\nHost: a\r\n")), Err(FramingError::ManyHosts));
        assert!(of_request(&head("GET / HTTP/1.0", "")).is_ok());
        for (line, host, expect) in [
            ("GET /a?b HTTP/1.1", "x", Ok((Some("x"), "/a?b"))),
            ("OPTIONS * HTTP/1.1", "x", Ok((Some("x"), "*"))),
            ("GET * HTTP/1.1", "x", Err(FramingError::Target)),
            ("GET http://x/a HTTP/1.1", "X", Ok((Some("x"), "/a"))),
            ("GET HTTPS://x HTTP/1.1", "x", Ok((Some("x"), "/"))),
            ("GET http://y/a HTTP/1.1", "x", Err(FramingError::OtherHost)),
            ("GET http:///a HTTP/1.1", "x", Err(FramingError::Target)),
            ("GET http://x?a HTTP/1.1", "x", Err(FramingError::Target)),
            ("GET ftp://x/a HTTP/1.1", "x", Err(FramingError::Target)),
            ("GET x:80 HTTP/1.1", "x:80", Err(FramingError::Target)),
            ("GET a HTTP/1.1", "x", Err(FramingError::Target)),
            ("GET /a#/../b HTTP/1.1", "x", Err(FramingError::Target)),
        ] {
            assert_eq!(target(&head(line, &format!("Host: {host}\r\n"))), expect, "{line}");
        }
        assert_eq!(target(&head("GET / HTTP/1.0", "")), Ok((None, "/")));
    }

    #[test]
    fn upgrades_leave_http_but_never_for_http2() {
        let upgrades = |lines: &str| framing(lines).expect("sound").upgrade;
        assert!(upgrades("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"));
        assert!(!upgrades("Upgrade: websocket\r\n"), "not named in Connection");
        assert!(!upgrades("Connection: upgrade\r\n"));
        assert!(!upgrades("Connection: upgrade\r\nUpgrade: h2c\r\n"));
        assert!(!upgrades("Connection: upgrade\r\nUpgrade: websocket, H2C\r\n"));
        assert!(!upgrades("Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n"));
        assert!(!upgrades("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n"));
        assert!(
            !of_request(&head("GET / HTTP/1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n"))
                .expect("sound")
                .upgrade
        );
        assert!(framing("Expect: 100-Continue\r\nContent-Length: 4\r\n").expect("sound").expects_continue);
        assert!(!framing("Expect: 100-continue\r\n").expect("sound").expects_continue);
    }

    #[test]
    fn answers_end_where_their_head_says() {
        for (first, lines, method, expect) in [
            ("HTTP/1.1 200 OK", "Content-Length: 5\r\n", "GET", Ok((BodyLength::Bytes(5), true))),
            ("HTTP/1.1 200 OK", "Content-Length: 5\r\n", "HEAD", Ok((BodyLength::None, true))),
            ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked\r\n", "GET", Ok((BodyLength::Chunked, true))),
            ("HTTP/1.1 200 OK", "", "GET", Ok((BodyLength::UntilClose, false))),
            ("HTTP/1.1 204 No", "", "GET", Ok((BodyLength::None, true))),
            ("HTTP/1.1 304 Not", "Content-Length: 5\r\n", "GET", Ok((BodyLength::None, true))),
            ("HTTP/1.1 200 OK", "Content-Length: 5\r\nConnection: close\r\n", "GET", Ok((BodyLength::Bytes(5), false))),
            ("HTTP/1.0 200 OK", "Content-Length: 5\r\n", "GET", Ok((BodyLength::Bytes(5), false))),
            (
                "HTTP/1.0 200 OK",
                "Content-Length: 5\r\nConnection: keep-alive\r\n",
                "GET",
                Ok((BodyLength::Bytes(5), true)),
            ),
            ("HTTP/1.0 200 OK", "Transfer-Encoding: chunked\r\n", "GET", Err(FramingError::CodingIn10)),
            (
                "HTTP/1.1 200 OK",
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                "GET",
                Err(FramingError::TwoLengths),
            ),
            ("HTTP/1.1 200 OK", "Content-Length: 5\r\nContent-Length: 6\r\n", "GET", Err(FramingError::ManyLengths)),
            ("HTTP/1.1 200 OK", "Transfer-Encoding: gzip\r\n", "GET", Err(FramingError::Coding)),
        ] {
            let mut head = ResponseHead::default();
            head.read(format!("{first}\r\n{lines}\r\n").as_bytes()).expect("a head");
            let got = of_response(&head, method).map(|framing| (framing.body, framing.keep_alive));
            assert_eq!(got, expect, "{first} {lines:?} {method}");
        }
    }
}
