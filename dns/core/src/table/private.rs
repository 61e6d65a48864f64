//! Names that never leave this server: private reverse ranges (RFC 6303, RFC 7793) and special names (RFC 6761).

use std::sync::LazyLock;

use crate::name::{Name, suffix_at};

/// Answered here, with a PTR where we have one and NXDOMAIN otherwise: nobody else may know our addresses.
static REVERSE: LazyLock<Vec<Name>> = LazyLock::new(|| {
    let mut texts: Vec<String> =
        ["0", "10", "127", "168.192", "254.169", "255.255.255.255"].map(|text| format!("{text}.in-addr.arpa")).to_vec();
    texts.extend((16..32).map(|n| format!("{n}.172.in-addr.arpa")));
    texts.extend((64..128).map(|n| format!("{n}.100.in-addr.arpa")));
    texts.extend(["d.f", "8.e.f", "9.e.f", "a.e.f", "b.e.f"].map(|text| format!("{text}.ip6.arpa")));
    texts.iter().map(|text| Name::parse(text).expect("the list holds names")).collect()
});

static ARPA: LazyLock<Name> = LazyLock::new(|| Name::parse("arpa").expect("a name"));

/// Top-level names that no upstream can know.
static SPECIAL: LazyLock<Vec<Name>> = LazyLock::new(|| {
    ["localhost", "local", "invalid", "onion"].iter().map(|text| Name::parse(text).expect("a name")).collect()
});

/// The apexes of the private reverse ranges.
pub(super) fn reverse_apexes() -> &'static [Name] {
    &REVERSE
}

/// Where the private range begins in `name` (wire form, lower case), when it is one of those.
pub(super) fn reverse_apex_at(name: &[u8]) -> Option<usize> {
    suffix_at(name, ARPA.wire())?;
    REVERSE.iter().find_map(|apex| suffix_at(name, apex.wire()))
}

/// Where the special name begins in `name`.
pub(super) fn special_at(name: &[u8]) -> Option<usize> {
    SPECIAL.iter().find_map(|apex| suffix_at(name, apex.wire()))
}

/// Domains that a platform cannot have, and why.
pub(super) fn refused_domain(name: &Name) -> Option<&'static str> {
    if suffix_at(name.wire(), ARPA.wire()).is_some() && name.to_string() != "home.arpa" {
        return Some("it belongs to reverse look-ups; use platform, or a domain of your own");
    }
    special_at(name.wire()).map(|_| "programs treat it in a way of their own; use platform, or a domain of your own")
}
