//! Prefixes: ranges of addresses.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// An address range in CIDR form, with its host bits ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// `10.210.0.0/20`, `::/0`, or one address without a length.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse::<IpAddr>().ok()?, Some(bits.parse::<u8>().ok()?)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        (bits <= width).then_some(Self { address, bits })
    }

    /// Whether `address` is in it. IPv4 lies within IPv6 as `::ffff:0:0/96`, so `::/0` covers everybody.
    pub fn contains(&self, address: IpAddr) -> bool {
        let differ = mapped(self.address) ^ mapped(address);
        let bits = if self.address.is_ipv4() { u32::from(self.bits) + 96 } else { u32::from(self.bits) };
        differ.leading_zeros() >= bits
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.bits)
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
            .ok_or_else(|| format!("\"{text}\" is no address range: give 10.0.0.0/8, fd00::/8 or one address"))
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_contain_what_they_say() {
        let contains = |prefix: &str, address: &str| {
            Prefix::parse(prefix).expect("a prefix").contains(address.parse().expect("an address"))
        };
        assert!(contains("10.210.0.0/20", "10.210.15.255") && !contains("10.210.0.0/20", "10.210.16.0"));
        assert!(contains("0.0.0.0/0", "255.1.2.3") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "fd00::1") && contains("fd00::/8", "fdff::1") && !contains("fd00::/8", "fe00::1"));
        assert!(contains("::/0", "10.1.2.3") && !contains("fd00::/8", "10.1.2.3"));
        assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        for bad in ["", "10.0.0.0/33", "::/129", "a/8", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert!(Prefix::parse(bad).is_none(), "{bad}");
        }
    }
}
