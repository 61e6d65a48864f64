//! Paths: made canonical once, before any rule looks at them.
//!
//! What two programs could read differently is refused, because a rule that lb reads one way and the app another way
//! protects nothing. lb forwards the path as it came; this form is for matching alone.

use std::borrow::Cow;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("path does not begin with /")]
    NotAbsolute,
    #[error("path has a . or .. segment: send the path it stands for")]
    DotSegment,
    #[error("path has an encoded separator (%2f or %5c) or a backslash: apps read it in two ways")]
    Separator,
    #[error("path has a control character or a % that is not followed by two hex digits")]
    Malformed,
}

/// The path without its query, with `%41` as `A` and `%40` as `@` (what RFC 3986, section 3.3 lets stand in a segment), other
/// bytes as `%C3`, and with `//` as `/`: one form for whatever apps read alike.
pub fn canonical(target: &str) -> Result<Cow<'_, str>, PathError> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    if path == "*" {
        // `OPTIONS *`: asks for the server as a whole, which is whoever has `/`.
        return Ok(Cow::Borrowed("/"));
    }
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    let plain = |byte: u8| byte > b' ' && byte < 0x7f && !matches!(byte, b'%' | b'\\');
    let path = if path.bytes().all(plain) && !path.contains("//") { Cow::Borrowed(path) } else { decode(path)?.into() };
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(PathError::DotSegment);
    }
    Ok(path)
}

fn decode(path: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    let mut chars = path.char_indices();
    while let Some((at, letter)) = chars.next() {
        match letter {
            '\\' => return Err(PathError::Separator),
            '%' => {
                let hex = path.get(at + 1..at + 3).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
                let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).ok_or(PathError::Malformed)?;
                chars.nth(1);
                match byte {
                    b'/' | b'\\' => return Err(PathError::Separator),
                    0..0x20 | 0x7f => return Err(PathError::Malformed),
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(char::from(byte)),
                    byte if b"-._~!$&'()*+,;=:@".contains(&byte) => out.push(char::from(byte)),
                    _ => out.push_str(&format!("%{byte:02X}")),
                }
            }
            '\0'..='\x1f' | '\x7f' => return Err(PathError::Malformed),
            '/' if out.ends_with('/') => {}
            '!'..='~' => out.push(letter),
            letter => {
                let mut bytes = [0; 4];
                let bytes = letter.encode_utf8(&mut bytes).bytes();
                bytes.for_each(|byte| out.push_str(&format!("%{byte:02X}")));
            }
        }
    }
    Ok(out)
}

/// Whether `prefix` (canonical, without `/` at its end unless it is `/`) covers `path` on segment boundaries.
pub(crate) fn covers(prefix: &str, path: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_canonical_or_refused() {
        for (text, expect) in [
            ("/", Ok("/")),
            ("/a/b?x=/../y", Ok("/a/b")),
            ("/%61dmin", Ok("/admin")),
            ("//admin", Ok("/admin")),
            ("/a//b/", Ok("/a/b/")),
            ("/caf%c3%a9", Ok("/caf%C3%A9")),
            ("/caf\u{e9}", Ok("/caf%C3%A9")),
            ("/%40me%2B%3a", Ok("/@me+:")),
            ("/a%20b", Ok("/a%20b")),
            ("/a b", Ok("/a%20b")),
            ("/...", Ok("/...")),
            ("/.well-known/x", Ok("/.well-known/x")),
            ("*", Ok("/")),
            ("/public/../admin", Err(PathError::DotSegment)),
            ("/public/%2e%2E/admin", Err(PathError::DotSegment)),
            ("/public/.%2e/admin", Err(PathError::DotSegment)),
            ("/.", Err(PathError::DotSegment)),
            ("/a%2fb", Err(PathError::Separator)),
            ("/a%5Cb", Err(PathError::Separator)),
            ("/a\\b", Err(PathError::Separator)),
            ("/a%", Err(PathError::Malformed)),
            ("/a%4", Err(PathError::Malformed)),
            ("/a%zz", Err(PathError::Malformed)),
            ("/a%+1", Err(PathError::Malformed)),
            ("/a%00", Err(PathError::Malformed)),
            ("/a%é", Err(PathError::Malformed)),
            ("a", Err(PathError::NotAbsolute)),
            ("", Err(PathError::NotAbsolute)),
        ] {
            assert_eq!(canonical(text), expect.map(Cow::Borrowed), "{text}");
        }
    }

    #[test]
    fn prefixes_end_at_segments() {
        assert!(covers("/api", "/api") && covers("/api", "/api/x") && covers("/", "/x"));
        assert!(!covers("/api", "/apix") && !covers("/api", "/ap"));
    }

    proptest::proptest! {
        #[test]
        fn canonical_is_stable_and_never_panics(text in "/[a%2eEfF5cC./\\\\\u{e9}]{0,24}") {
            if let Ok(once) = canonical(&text) {
                let twice = canonical(&once);
                proptest::prop_assert_eq!(twice.as_deref(), Ok(&*once));
                let dots = once.split('/').any(|segment| segment == "..");
                proptest::prop_assert!(!dots);
            }
        }
    }
}
