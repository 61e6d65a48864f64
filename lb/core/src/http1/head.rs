//! Heads: where one ends in a stream of bytes, and what it says.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::field::{Fields, place};

/// Larger heads come from mistakes or attacks; common servers allow 8 to 32 KiB.
pub const HEAD_BYTES_MAX: usize = 32 << 10;
pub const FIELDS_MAX: usize = 100;

/// Why bytes are no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("a line ends with LF alone")]
    BareLf,
    #[error("the head is larger than 32 KiB or has more than 100 fields")]
    TooLarge,
    #[error("its first line is not METHOD TARGET HTTP/1.1")]
    RequestLine,
    #[error("its first line is not HTTP/1.1 STATUS REASON")]
    StatusLine,
    #[error("its HTTP version is neither 1.0 nor 1.1")]
    Version,
    #[error("a line is not NAME: VALUE")]
    FieldLine,
}

/// Finds the end of a head in a buffer that grows, and looks at no byte twice.
#[derive(Debug, Clone, Default)]
pub struct HeadScan {
    looked: usize,
    line_start: usize,
    /// Where the first line begins: one empty line before it is ignored (RFC 9112, section 2.2).
    start: usize,
}

impl HeadScan {
    /// The place of the head in `bytes`, once it is complete. `bytes` may only grow from one call to the next.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<Range<usize>>, HeadError> {
        while let Some(at) = memchr::memchr(b'\n', &bytes[self.looked..]).map(|at| at + self.looked) {
            if at == 0 || bytes[at - 1] != b'\r' {
                return Err(HeadError::BareLf);
            }
            let is_empty = self.line_start + 1 == at;
            self.looked = at + 1;
            self.line_start = at + 1;
            if is_empty && at == 1 {
                self.start = at + 1;
            } else if is_empty {
                return if at < HEAD_BYTES_MAX { Ok(Some(self.start..at + 1)) } else { Err(HeadError::TooLarge) };
            }
        }
        self.looked = bytes.len();
        if bytes.len() > HEAD_BYTES_MAX { Err(HeadError::TooLarge) } else { Ok(None) }
    }
}

/// A request's head. Kept from one request to the next.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    method: Range<usize>,
    target: Range<usize>,
    minor: u8,
    pub fields: Fields,
}

impl RequestHead {
    /// Reads a complete head, its empty line included.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), HeadError> {
        let mut lines = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let read = request.parse_with_uninit_headers(bytes, &mut lines);
        complete(read, bytes, HeadError::RequestLine)?;
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
            return Err(HeadError::RequestLine);
        };
        if target.is_empty() {
            return Err(HeadError::RequestLine);
        }
        (self.method, self.target) = (place(bytes, method.as_bytes()), place(bytes, target.as_bytes()));
        self.minor = minor;
        self.fields.take(bytes, request.headers);
        Ok(())
    }

    pub fn method(&self) -> &str {
        self.fields.text(&self.method)
    }

    /// As it came: a path with its query, a whole URI, `*`.
    pub fn target(&self) -> &str {
        self.fields.text(&self.target)
    }

    pub fn is_http10(&self) -> bool {
        self.minor == 0
    }
}

/// An answer's head. Kept from one answer to the next.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    status: u16,
    reason: Range<usize>,
    minor: u8,
    pub fields: Fields,
}

impl ResponseHead {
    /// 100 Continue.
    pub fn go_on() -> Self {
        Self { status: 100, minor: 1, ..Self::default() }
    }

    pub fn read(&mut self, bytes: &[u8]) -> Result<(), HeadError> {
        let mut lines = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let read =
            httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut lines);
        complete(read, bytes, HeadError::StatusLine)?;
        let (Some(status), Some(minor)) = (response.code, response.version) else { return Err(HeadError::StatusLine) };
        if !(100..1000).contains(&status) {
            return Err(HeadError::StatusLine);
        }
        (self.status, self.minor) = (status, minor);
        // A reason in another alphabet is left out; nobody may rely on it.
        self.reason =
            response.reason.filter(|reason| !reason.is_empty()).map_or(0..0, |reason| place(bytes, reason.as_bytes()));
        self.fields.take(bytes, response.headers);
        Ok(())
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    pub fn reason(&self) -> &str {
        self.fields.text(&self.reason)
    }

    pub fn is_http10(&self) -> bool {
        self.minor == 0
    }

    /// 1xx, which another head follows. 101 is the end of HTTP on its connection.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

fn complete(
    read: Result<httparse::Status<usize>, httparse::Error>,
    bytes: &[u8],
    first_line: HeadError,
) -> Result<(), HeadError> {
    match read {
        // Less than all: an empty line where httparse sees one and the scan does not.
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => Ok(()),
        Ok(_) => Err(first_line),
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLarge),
        Err(httparse::Error::Version) => Err(HeadError::Version),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => Err(HeadError::FieldLine),
        Err(_) => Err(first_line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RequestHead, HeadError> {
        let mut head = RequestHead::default();
        let place = HeadScan::default().find(text.as_bytes())?.expect("an end");
        head.read(&text.as_bytes()[place]).map(|()| head)
    }

    #[test]
    fn a_head_is_found_however_it_is_cut() {
        let whole = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next";
        let mut scan = HeadScan::default();
        for length in 0..whole.len() {
            let found = scan.find(&whole[..length]);
            if length < 29 {
                assert_eq!(found, Ok(None), "{length}");
            } else {
                assert_eq!(found, Ok(Some(2..29)));
                break;
            }
        }
        let alone = b"GET / HTTP/1.1\r\n\r\n";
        assert_eq!(HeadScan::default().find(alone), Ok(Some(0..alone.len())));
    }

    #[test]
    fn what_is_said_is_read_as_it_came() {
        let head = read("POST /a?b HTTP/1.1\r\nHost:  a.example \r\nX-Odd:\r\ncookie: \tä\r\n\r\n").expect("a head");
        assert_eq!((head.method(), head.target(), head.is_http10()), ("POST", "/a?b", false));
        let fields: Vec<_> = head.fields.iter().map(|field| (field.name, field.value)).collect();
        assert_eq!(fields, [("Host", &b"a.example"[..]), ("X-Odd", b""), ("cookie", "ä".as_bytes())]);
        assert!(read("GET / HTTP/1.0\r\n\r\n").expect("a head").is_http10());
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for (text, expect) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", HeadError::BareLf),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n\r\n", HeadError::BareLf),
            ("\n", HeadError::BareLf),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", HeadError::RequestLine),
            ("GET  / HTTP/1.1\r\n\r\n", HeadError::RequestLine),
            ("GET / a HTTP/1.1\r\n\r\n", HeadError::Version),
            (" GET / HTTP/1.1\r\n\r\n", HeadError::RequestLine),
            ("GET /\tHTTP/1.1\r\n\r\n", HeadError::RequestLine),
            ("GET / HTTP/1.1 \r\n\r\n", HeadError::RequestLine),
            ("GET /\r\n\r\n", HeadError::RequestLine),
            ("GET / HTTP/1.2\r\n\r\n", HeadError::Version),
            ("GET / HTTP/2.0\r\n\r\n", HeadError::Version),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", HeadError::FieldLine),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", HeadError::FieldLine),
            ("GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", HeadError::FieldLine),
            ("GET / HTTP/1.1\r\nA\r\n\r\n", HeadError::FieldLine),
            ("GET / HTTP/1.1\r\n: b\r\n\r\n", HeadError::FieldLine),
            ("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", HeadError::FieldLine),
            ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", HeadError::FieldLine),
            ("GET / HTTP/1.1\r\nA(: b\r\n\r\n", HeadError::FieldLine),
            ("GET / HTTP/1.1\r\nÄ: b\r\n\r\n", HeadError::FieldLine),
        ] {
            assert_eq!(read(text).map(drop), Err(expect), "{text:?}");
        }
        let many: String = (0..=FIELDS_MAX).map(|number| format!("a{number}: b\r\n")).collect();
        assert_eq!(read(&format!("GET / HTTP/1.1\r\n{many}\r\n")).map(drop), Err(HeadError::TooLarge));
        let long = "x".repeat(HEAD_BYTES_MAX);
        assert_eq!(HeadScan::default().find(format!("GET /{long}").as_bytes()), Err(HeadError::TooLarge));
        assert_eq!(read(&format!("GET /{long} HTTP/1.1\r\n\r\n")).map(drop), Err(HeadError::TooLarge));
    }

    #[test]
    fn answers_are_read() {
        let mut head = ResponseHead::default();
        for (text, expect) in [
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", Ok((200, "OK"))),
            ("HTTP/1.1 404 Not Found\r\n\r\n", Ok((404, "Not Found"))),
            ("HTTP/1.0 204\r\n\r\n", Ok((204, ""))),
            ("HTTP/1.1 204 \r\n\r\n", Ok((204, ""))),
            ("HTTP/1.1 099 x\r\n\r\n", Err(HeadError::StatusLine)),
            ("HTTP/1.1 20 x\r\n\r\n", Err(HeadError::StatusLine)),
            ("HTTP/1.1 2000 x\r\n\r\n", Err(HeadError::StatusLine)),
            ("HTTP/2 200 x\r\n\r\n", Err(HeadError::Version)),
            ("ICY 200 OK\r\n\r\n", Err(HeadError::Version)),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", Err(HeadError::FieldLine)),
        ] {
            let read = head.read(text.as_bytes()).map(|()| (head.status(), head.reason()));
            assert_eq!(read, expect, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_cut_head_is_read_like_a_whole_one(text in "(GET|P\\(T) /[a-z ]{0,3} HTTP/1.[01](\r\n|\n)([aH]:? ?[b\t\r]{0,3}\r?\n){0,4}\r?\n", cut in 0usize..60) {
            let bytes = text.as_bytes();
            let mut scan = HeadScan::default();
            let cut = cut.min(bytes.len());
            let first = scan.find(&bytes[..cut]);
            let found = match first {
                Ok(None) => scan.find(bytes),
                other => other,
            };
            proptest::prop_assert_eq!(&found, &HeadScan::default().find(bytes));
            if let Ok(Some(place)) = found {
                let _ = RequestHead::default().read(&bytes[place]);
            }
        }
    }
}
