//! Proxied: what a proxy in front of lb says of a connection before its first request (PROXY protocol, versions 1 and 2, as
//! HAProxy's `proxy-protocol.txt` has it).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest line of version 1.
const LINE_BYTES_MAX: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Addresses take at most 216 bytes; what a proxy adds to them is seldom more than a few hundred.
const V2_BYTES_MAX: usize = 4 << 10;

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxied {
    /// So many bytes of what came.
    pub length: usize,
    /// Whom it stands for; none: the proxy itself, or nobody it could name.
    pub client: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection does not begin with a PROXY header")]
pub struct NotProxied;

/// None: more of it is to come.
pub fn read(bytes: &[u8]) -> Result<Option<Proxied>, NotProxied> {
    let begins = |word: &[u8]| bytes.iter().zip(word).all(|(came, wanted)| came == wanted);
    if begins(SIGNATURE) {
        return version2(bytes);
    }
    if begins(b"PROXY ") {
        return version1(bytes);
    }
    Err(NotProxied)
}

fn version1(bytes: &[u8]) -> Result<Option<Proxied>, NotProxied> {
    let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(NotProxied) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(NotProxied)?;
    let line = std::str::from_utf8(line).map_err(|_| NotProxied)?;
    let words: Vec<&str> = line.split(' ').collect();
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port.to_string() == text);
    let client = match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port]
            if is_port(from_port) && is_port(to_port) =>
        {
            let address = |text: &str| text.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == (family == "TCP4"));
            address(to).ok_or(NotProxied)?;
            Some(address(from).ok_or(NotProxied)?)
        }
        _ => return Err(NotProxied),
    };
    Ok(Some(Proxied { length: end + 1, client }))
}

fn version2(bytes: &[u8]) -> Result<Option<Proxied>, NotProxied> {
    let Some(&[command, family, high, low]) = bytes.get(12..16).and_then(|rest| rest.first_chunk()) else {
        return Ok(None);
    };
    let said = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || said > V2_BYTES_MAX {
        return Err(NotProxied);
    }
    let Some(addresses) = bytes.get(16..16 + said) else { return Ok(None) };
    let client = match (command & 0x0f, family) {
        // The proxy's own connection, a probe say.
        (0, _) => None,
        (1, 0x11) => Some(
            Ipv4Addr::from(*addresses.first_chunk::<12>().and_then(|a| a.first_chunk::<4>()).ok_or(NotProxied)?).into(),
        ),
        (1, 0x21) => Some(
            Ipv6Addr::from(*addresses.first_chunk::<36>().and_then(|a| a.first_chunk::<16>()).ok_or(NotProxied)?)
                .into(),
        ),
        // Not over IP, or not over TCP: it is taken, and says nothing.
        (1, _) => None,
        _ => return Err(NotProxied),
    };
    Ok(Some(Proxied { length: 16 + said, client }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = (addresses.len() as u16).to_be_bytes();
        [SIGNATURE.as_slice(), &[0x20 | command, family], &length, addresses].concat()
    }

    #[test]
    fn both_versions_name_the_client() {
        let client = |bytes: &[u8]| read(bytes).map(|header| header.expect("whole").client.map(|ip| ip.to_string()));
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(client(b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\nGET"), some("192.0.2.1"));
        assert_eq!(client(b"PROXY TCP6 2001:db8::1 ::1 65535 80\r\n"), some("2001:db8::1"));
        assert_eq!(client(b"PROXY UNKNOWN\r\n"), Ok(None));
        assert_eq!(client(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), Ok(None));
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0, 5, 0, 80];
        assert_eq!(client(&v2(1, 0x11, &v4)), some("192.0.2.1"));
        assert_eq!(client(&v2(1, 0x11, &[&v4[..], &[3, 0, 1, 9]].concat())), some("192.0.2.1"), "with what it adds");
        assert_eq!(client(&v2(0, 0x11, &v4)), Ok(None), "the proxy itself");
        let mut v6 = [0; 36];
        v6[15] = 1;
        assert_eq!(client(&v2(1, 0x21, &v6)), some("::1"));
        assert_eq!(client(&v2(1, 0x31, &[0; 216])), Ok(None), "over a socket of its machine");
    }

    #[test]
    fn a_header_is_taken_once_it_is_whole_and_no_more_of_it() {
        for whole in [b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), v2(1, 0x11, &[1; 12])] {
            for cut in 0..whole.len() {
                assert_eq!(read(&whole[..cut]), Ok(None), "{cut}");
            }
            let more = [&whole[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(read(&more).map(|header| header.map(|header| header.length)), Ok(Some(whole.len())));
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = format!("PROXY TCP4 {}\r\n", "1".repeat(120));
        for bad in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            "PROXY TCP4 ::1 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
            long.as_str(),
        ] {
            assert_eq!(read(bad.as_bytes()), Err(NotProxied), "{bad:?}");
        }
        assert_eq!(read(&v2(2, 0x11, &[0; 12])), Err(NotProxied), "an unknown command");
        assert_eq!(read(&v2(1, 0x11, &[0; 8])), Err(NotProxied), "too few addresses");
        assert_eq!(read(&v2(1, 0x11, &[0; 5_000])), Err(NotProxied), "too much");
        let mut other = v2(1, 0x11, &[0; 12]);
        other[12] = 0x31;
        assert_eq!(read(&other), Err(NotProxied), "another version");
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_and_nothing_beyond_what_came_is_taken(
            start in proptest::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", SIGNATURE]),
            rest: Vec<u8>,
        ) {
            let bytes = [start, &rest].concat();
            if let Ok(Some(header)) = read(&bytes) {
                proptest::prop_assert!(header.length <= bytes.len());
            }
        }
    }
}
