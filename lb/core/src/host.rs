//! Hosts: the one form in which a host is compared. Lower case, without port, without the dot at the end.

/// A host is at most this long (RFC 1035: 253 characters and what a port adds).
const HOST_BYTES_MAX: usize = 262;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host is not a name or an address with an optional port")]
pub struct HostError;

/// The comparable form of a `Host` value. User information, blanks and odd characters are refused.
pub fn canonical(text: &str) -> Result<String, HostError> {
    if text.is_empty() || text.len() > HOST_BYTES_MAX {
        return Err(HostError);
    }
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(HostError)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| HostError)?;
            (&text[..address.len() + 2], port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    if !port.is_empty() {
        let digits = port.strip_prefix(':').ok_or(HostError)?;
        let number = digits.bytes().all(|byte| byte.is_ascii_digit());
        if !number || (!digits.is_empty() && digits.parse::<u16>().is_err()) {
            return Err(HostError);
        }
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if !name.starts_with('[') && !is_name(name) {
        return Err(HostError);
    }
    Ok(name.to_ascii_lowercase())
}

/// What stands behind a host's first label, where it has more than one: the domain of the wildcard that is for it.
pub fn wildcard_of(host: &str) -> Option<&str> {
    if host.starts_with('[') {
        return None;
    }
    host.split_once('.').map(|(_, domain)| domain).filter(|domain| !domain.is_empty())
}

/// Labels of letters, digits, `-` and `_` (some real names have one), none empty.
pub fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
        for (text, expect) in [
            ("Hello.Example", "hello.example"),
            ("hello.example:8080", "hello.example"),
            ("hello.example.", "hello.example"),
            ("hello.example.:80", "hello.example"),
            ("hello.example:", "hello.example"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("a_b.example", "a_b.example"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(expect), "{text}");
        }
        for bad in [
            "", " a", "a b", "user@a", "a:80:80", "a:x", "a:99999", "[::1", "[a]", "a..b", ".a", "..", "a/b", "ä",
            "*.a",
        ] {
            assert!(canonical(bad).is_err(), "{bad}");
        }
    }
}
