//! Framing: request heads that two programs could read differently, refused before anything routes on them.
//!
//! pingora refuses most of them itself (two hosts, odd lengths and codings, folded lines); here is what it lets pass.

use http::{Version, header};
use pingora_http::RequestHeader;

use crate::refusal::Refusal;

/// Larger heads come from mistakes or attacks; common servers allow 8 to 32 KiB.
const HEAD_BYTES_MAX: usize = 32 << 10;
const FIELDS_MAX: usize = 100;

/// `raw` is the head as it came, `head` what pingora read from it.
pub(crate) fn check(raw: &[u8], head: &RequestHeader) -> Result<(), Refusal> {
    if raw.len() > HEAD_BYTES_MAX || head.headers.len() > FIELDS_MAX {
        return Err(Refusal::head_too_large());
    }
    if !matches!(head.version, Version::HTTP_10 | Version::HTTP_11) {
        return Err(Refusal::framing("its HTTP version is neither 1.0 nor 1.1"));
    }
    let bare = raw.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || raw[at - 1] != b'\r'));
    if bare {
        return Err(Refusal::framing("a line ends with LF alone"));
    }
    // pingora drops Content-Length when both are there, so the head as it came is asked.
    let chunked = head.headers.contains_key(header::TRANSFER_ENCODING);
    if chunked && raw.split(|byte| *byte == b'\n').skip(1).any(is_content_length) {
        return Err(Refusal::framing("it has Content-Length and Transfer-Encoding"));
    }
    if head.version == Version::HTTP_11 && !head.headers.contains_key(header::HOST) {
        return Err(Refusal::framing("it has no Host"));
    }
    Ok(())
}

fn is_content_length(line: &[u8]) -> bool {
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    name.eq_ignore_ascii_case(b"content-length")
}
