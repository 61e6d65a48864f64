//! Record sets: the data of one type at one name, in wire form.

use std::net::IpAddr;

use crate::name::Name;

/// Record types by number, as far as this server treats any of them in its own way.
pub mod rtype {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const HTTPS: u16 = 65;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
}

/// One type's records at one name. Data without compression, as RFC 3597 and RFC 2782 want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordSet {
    pub(crate) rtype: u16,
    pub(crate) data: Vec<Vec<u8>>,
}

impl RecordSet {
    /// Whether any part of the set is a sound answer (addresses), so that one that is too large is cut and not refused.
    pub(crate) fn divisible(&self) -> bool {
        matches!(self.rtype, rtype::A | rtype::AAAA)
    }

    /// Where in one record's data the name begins whose addresses belong beside the answer.
    pub(crate) fn target_at(&self) -> Option<usize> {
        match self.rtype {
            rtype::SRV => Some(6),
            rtype::NS => Some(0),
            _ => None,
        }
    }
}

/// The type and data of an address record.
pub(crate) fn address(address: IpAddr) -> (u16, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (rtype::A, v4.octets().to_vec()),
        IpAddr::V6(v6) => (rtype::AAAA, v6.octets().to_vec()),
    }
}

/// Priority and weight are equal for all: whoever is in the answer may be used.
pub(crate) fn srv(port: u16, target: &Name) -> Vec<u8> {
    let mut data = vec![0, 0, 0, 1];
    data.extend_from_slice(&port.to_be_bytes());
    data.extend_from_slice(target.wire());
    data
}

/// One character string; longer than 255 octets is cut, which no caller needs.
pub(crate) fn txt(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(255)];
    let mut data = vec![u8::try_from(text.len()).unwrap_or(u8::MAX)];
    data.extend_from_slice(text);
    data
}

/// `mname rname serial refresh retry expire minimum`. The minimum is the negative TTL (RFC 2308).
pub(crate) fn soa(mname: &Name, rname: &Name, serial: u32, minimum: u32) -> Vec<u8> {
    let mut data = Vec::with_capacity(mname.wire().len() + rname.wire().len() + 20);
    data.extend_from_slice(mname.wire());
    data.extend_from_slice(rname.wire());
    for number in [serial, 7200, 1800, 86_400, minimum] {
        data.extend_from_slice(&number.to_be_bytes());
    }
    data
}

/// How far from the end of SOA data its serial stands.
pub(crate) const SERIAL_FROM_END: usize = 20;
