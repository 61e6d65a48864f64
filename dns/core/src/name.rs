//! A domain name in wire form, lower case: what nodes are keyed by and what questions are compared with.

use std::borrow::Borrow;
use std::fmt;
use std::net::IpAddr;

/// Octets of a name on the wire, its last zero included (RFC 1035).
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// Octets of one label.
const LABEL_BYTES_MAX: usize = 63;

/// Why a text is not a domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("\"{0}\" is not a name part: use 1 to 63 of a-z, 0-9, '-' and '_'")]
    Label(String),
    #[error("name below \"{0}\" is longer than 255 octets: shorten the domain")]
    TooLong(String),
}

/// Labels with their lengths and the root's zero. Ordered by bytes, which is any order, but always the same one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    pub fn root() -> Self {
        Self(vec![0])
    }

    /// Takes `a.b.c`, with or without a dot at the end, in any case.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        text.strip_suffix('.').unwrap_or(text).rsplit('.').try_fold(Self::root(), |name, label| name.child(label))
    }

    /// `<label>.<self>`.
    pub fn child(&self, label: &str) -> Result<Self, NameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let length =
            u8::try_from(label.len()).ok().filter(|length| (1..=LABEL_BYTES_MAX).contains(&usize::from(*length)));
        let (Some(length), true) = (length, label.bytes().all(allowed)) else {
            return Err(NameError::Label(label.chars().take(LABEL_BYTES_MAX + 8).collect()));
        };
        if label.len() + 1 + self.0.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong(self.to_string()));
        }
        let mut wire = Vec::with_capacity(label.len() + 1 + self.0.len());
        wire.push(length);
        wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
        wire.extend_from_slice(&self.0);
        Ok(Self(wire))
    }

    /// The name whose PTR record names this address.
    pub fn reverse(address: IpAddr) -> Self {
        let (labels, suffix): (Vec<String>, _) = match address {
            IpAddr::V4(v4) => (v4.octets().iter().map(u8::to_string).collect(), "in-addr.arpa"),
            IpAddr::V6(v6) => {
                let nibbles = v6.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
                (nibbles.map(|nibble| format!("{nibble:x}")).collect(), "ip6.arpa")
            }
        };
        let apex = Self::parse(suffix).expect("the suffixes are names");
        labels.iter().fold(apex, |name, label| name.child(label).expect("an address is at most 73 octets as a name"))
    }

    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// One label less; none at the root.
    pub fn parent(&self) -> Option<Self> {
        let length = usize::from(self.0[0]);
        (length > 0).then(|| Self(self.0[length + 1..].to_vec()))
    }
}

/// Where in `name` the name `suffix` begins, when `name` is at or below it. Both in lower-case wire form.
pub(crate) fn suffix_at(name: &[u8], suffix: &[u8]) -> Option<usize> {
    let wanted = name.len().checked_sub(suffix.len())?;
    let mut at = 0;
    while at < wanted {
        at += usize::from(name[at]) + 1;
    }
    (at == wanted && &name[at..] == suffix).then_some(at)
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// `a.b.c`, as people write it; the root is `.`.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &self.0[..];
        if rest == [0] {
            return f.write_str(".");
        }
        while rest[0] != 0 {
            let length = usize::from(rest[0]);
            f.write_str(&String::from_utf8_lossy(&rest[1..=length]))?;
            rest = &rest[length + 1..];
            if rest[0] != 0 {
                f.write_str(".")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_rules() {
        let name = Name::parse("Hello.Platform.").expect("a name");
        assert_eq!(name.wire(), b"\x05hello\x08platform\0");
        assert_eq!(name.to_string(), "hello.platform");
        for bad in ["", "a..b", "ä", "a b", &"a".repeat(64)] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
        let long = vec!["a".repeat(63); 4].join(".");
        assert!(matches!(Name::parse(&long), Err(NameError::TooLong(_))));
    }

    #[test]
    fn suffixes_begin_at_labels() {
        let at = |name: &str, suffix: &str| {
            suffix_at(Name::parse(name).expect("a name").wire(), Name::parse(suffix).expect("a name").wire())
        };
        assert_eq!(at("a.platform", "platform"), Some(2));
        assert_eq!(at("platform", "platform"), Some(0));
        assert_eq!(at("xplatform", "platform"), None);
        assert_eq!(at("a.b", "platform"), None);
    }

    #[test]
    fn addresses_have_reverse_names() {
        let name = Name::reverse("10.210.3.4".parse().expect("an address"));
        assert_eq!(name.to_string(), "4.3.210.10.in-addr.arpa");
        let name = Name::reverse("fd00::1".parse().expect("an address"));
        assert!(name.to_string().starts_with("1.0.0.0.") && name.to_string().ends_with(".0.0.d.f.ip6.arpa"), "{name}");
    }
}
