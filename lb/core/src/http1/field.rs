//! Fields: the header lines of one head, in the order and the letter case they came in, with those that lb itself looks
//! at recognised once.

use std::ops::Range;

/// What is kept from one head to the next.
const KEPT_BYTES_MAX: usize = 2 << 10;

/// Fields that mean something to lb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Accept,
    Connection,
    ContentLength,
    ContentType,
    Expect,
    Host,
    IdempotencyKey,
    /// Says which trace a request belongs to (W3C Trace Context).
    TraceParent,
    TraceState,
    TransferEncoding,
    Upgrade,
    XRequestId,
    /// Says something of this connection alone, and ends here: `Keep-Alive`, `TE`, `Trailer`, `Proxy-Connection`,
    /// `HTTP2-Settings`.
    ThisHop,
    /// Says where a request came from, or what the platform says of it. A client's own word for that ends here: `Forwarded`,
    /// `X-Forwarded-*`, `X-Platform-*`, `X-Real-IP`, `Client-Cert` and `Client-Cert-Chain` (RFC 9440).
    Origin,
    Other,
}

impl Known {
    pub fn of(name: &str) -> Self {
        // By length first: nearly all names are told apart by it.
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is("te") => Self::ThisHop,
            4 if is("host") => Self::Host,
            6 if is("accept") => Self::Accept,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            7 if is("trailer") => Self::ThisHop,
            9 if is("forwarded") || is("x-real-ip") => Self::Origin,
            10 if is("connection") => Self::Connection,
            11 if is("client-cert") => Self::Origin,
            17 if is("client-cert-chain") => Self::Origin,
            10 if is("keep-alive") => Self::ThisHop,
            10 if is("tracestate") => Self::TraceState,
            11 if is("traceparent") => Self::TraceParent,
            12 if is("content-type") => Self::ContentType,
            12 if is("x-request-id") => Self::XRequestId,
            14 if is("content-length") => Self::ContentLength,
            14 if is("http2-settings") => Self::ThisHop,
            15 if is("idempotency-key") => Self::IdempotencyKey,
            16 if is("proxy-connection") => Self::ThisHop,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            11.. if name.get(..11).is_some_and(|start| start.eq_ignore_ascii_case("x-platform-")) => Self::Origin,
            12.. if name.get(..12).is_some_and(|start| start.eq_ignore_ascii_case("x-forwarded-")) => Self::Origin,
            _ if name.contains('_') => Self::of_twin(name),
            _ => Self::Other,
        }
    }
}

impl Known {
    /// `X_Forwarded_For` is to many app servers (CGI, WSGI) what `X-Forwarded-For` is: what lb looks at has no such twin.
    fn of_twin(name: &str) -> Self {
        match Self::of(&name.replace('_', "-")) {
            Self::Other => Self::Other,
            _ => Self::ThisHop,
        }
    }
}

/// Whether this can be a field's name (RFC 9110, section 5.6.2: a token).
pub(crate) fn is_name(name: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(token)
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    pub known: Known,
    pub name: &'a str,
    /// Visible characters, blanks and tabs within, and bytes from 0x80 on.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// The members of a comma-separated list of tokens, empty ones left out.
    pub fn tokens(&self) -> impl Iterator<Item = &[u8]> {
        self.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
    }

    /// Whether a list of media types has this one, whatever its parameters are.
    pub fn has_media(&self, media: &str) -> bool {
        self.tokens().any(|one| {
            let name = one.split(|byte| *byte == b';').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(media.as_bytes())
        })
    }

    pub fn has_token(&self, token: &str) -> bool {
        self.tokens().any(|one| one.eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// All lines of a head. Kept from one head to the next, so that reading one allocates nothing.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    pub(super) bytes: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Debug, Clone)]
struct Span {
    known: Known,
    name: Range<usize>,
    value: Range<usize>,
}

impl Fields {
    /// Takes the lines that were read from `bytes`, a whole head; they point into it.
    pub(super) fn take(&mut self, bytes: &[u8], lines: &[httparse::Header<'_>]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.spans.clear();
        self.spans.extend(lines.iter().map(|line| Span {
            known: Known::of(line.name),
            name: place(bytes, line.name.as_bytes()),
            value: place(bytes, line.value.trim_ascii_end()),
        }));
    }

    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.spans.iter().map(|span| Field {
            known: span.known,
            name: std::str::from_utf8(&self.bytes[span.name.clone()]).unwrap_or_default(),
            value: &self.bytes[span.value.clone()],
        })
    }

    /// What the head of these takes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Gives back the memory that a large head took.
    pub fn release(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            *self = Self::default();
        }
    }

    /// The first of a kind.
    pub fn get(&self, known: Known) -> Option<Field<'_>> {
        self.iter().find(|field| field.known == known)
    }

    pub fn all(&self, known: Known) -> impl Iterator<Item = Field<'_>> {
        self.iter().filter(move |field| field.known == known)
    }

    pub fn has(&self, known: Known) -> bool {
        self.spans.iter().any(|span| span.known == known)
    }

    pub(super) fn text(&self, place: &Range<usize>) -> &str {
        self.bytes.get(place.clone()).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

/// Where `part`, a piece of `whole`, stands in it.
pub(super) fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize).min(whole.len());
    start..(start + part.len()).min(whole.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_every_case() {
        for (name, known) in [
            ("Host", Known::Host),
            ("HOST", Known::Host),
            ("tE", Known::ThisHop),
            ("Transfer-Encoding", Known::TransferEncoding),
            ("x-forwarded-for", Known::Origin),
            ("X-Forwarded-Anything", Known::Origin),
            ("X-Forwarded", Known::Other),
            ("x-real-ip", Known::Origin),
            ("Client-Cert", Known::Origin),
            ("client_cert_chain", Known::ThisHop),
            ("X_Forwarded_For", Known::ThisHop),
            ("Content_Length", Known::ThisHop),
            ("my_header", Known::Other),
            ("Cookie", Known::Other),
            ("", Known::Other),
        ] {
            assert_eq!(Known::of(name), known, "{name}");
        }
    }
}
