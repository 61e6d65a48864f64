//! Packets: one question read with byte-level limits before anything is kept, one reply written within a size.
//!
//! Refuses to follow compression pointers: a question needs none, and what stands behind it is only measured.

use crate::name::NAME_BYTES_MAX;
use crate::record::{RecordSet, rtype};

/// Largest UDP message either way (RFC 9715): larger ones are lost in fragments.
pub const UDP_BYTES_MAX: u16 = 1232;
/// Largest UDP reply to one who does not speak EDNS.
const PLAIN_UDP_BYTES_MAX: u16 = 512;
/// What the length before a TCP message can say.
pub const TCP_BYTES_MAX: u16 = u16::MAX;
/// Records behind a question that are measured; a question has one or two.
const RECORDS_MAX: usize = 64;
/// Header, and the place of the question behind it.
pub(crate) const HEADER_BYTES: usize = 12;
/// Our OPT record: root, type, size, extended code, version and flags, no options.
const OPT_BYTES: usize = 11;

/// Response codes; those above 15 need EDNS.
pub mod rcode {
    pub const NOERROR: u16 = 0;
    pub const FORMERR: u16 = 1;
    pub const SERVFAIL: u16 = 2;
    pub const NXDOMAIN: u16 = 3;
    pub const NOTIMP: u16 = 4;
    pub const REFUSED: u16 = 5;
    pub const BADVERS: u16 = 16;
}

/// Bits of the second header word.
pub(crate) mod flag {
    pub(crate) const QR: u16 = 1 << 15;
    pub(crate) const OPCODE: u16 = 15 << 11;
    pub(crate) const AA: u16 = 1 << 10;
    pub(crate) const TC: u16 = 1 << 9;
    pub(crate) const RD: u16 = 1 << 8;
    pub(crate) const RA: u16 = 1 << 7;
    pub(crate) const AD: u16 = 1 << 5;
    pub(crate) const CD: u16 = 1 << 4;
}

/// What an OPT record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edns {
    /// Where the record begins in the packet.
    pub(crate) at: usize,
    pub(crate) payload: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
}

/// The header and the one question.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<'p> {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// Name, type and class as they came: a reply repeats these bytes.
    pub(crate) question: &'p [u8],
    pub(crate) qtype: u16,
    pub(crate) class: u16,
    pub(crate) edns: Option<Edns>,
}

/// Why there is no question to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Nothing may be sent back: too short to have a sender's id, or a reply itself.
    Silent,
    /// A header alone goes back, with this code.
    Code { id: u16, flags: u16, rcode: u16 },
}

pub(crate) fn word(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?))
}

impl<'p> Query<'p> {
    pub(crate) fn parse(packet: &'p [u8]) -> Result<Self, Unreadable> {
        let header = |at| word(packet, at).ok_or(Unreadable::Silent);
        let (id, flags) = (header(0)?, header(2)?);
        let counts = [header(4)?, header(6)?, header(8)?, header(10)?];
        if flags & flag::QR != 0 {
            return Err(Unreadable::Silent);
        }
        let refused = |rcode| Unreadable::Code { id, flags, rcode };
        if flags & flag::OPCODE != 0 {
            return Err(refused(rcode::NOTIMP));
        }
        if counts[0] != 1 {
            return Err(refused(rcode::FORMERR));
        }
        let body = Self::parse_body(packet, id, flags, counts);
        body.ok_or_else(|| refused(rcode::FORMERR))
    }

    fn parse_body(packet: &'p [u8], id: u16, flags: u16, counts: [u16; 4]) -> Option<Self> {
        let name_end = question_name_end(packet)?;
        let question = packet.get(HEADER_BYTES..name_end + 4)?;
        let (qtype, class) = (word(packet, name_end)?, word(packet, name_end + 2)?);
        let (edns, end) = records(packet, name_end + 4, counts)?;
        (end == packet.len()).then_some(Self { id, flags, question, qtype, class, edns })
    }

    /// The asked name in lower case, written over `name`.
    pub(crate) fn name<'n>(&self, name: &'n mut [u8; NAME_BYTES_MAX]) -> &'n [u8] {
        let asked = &self.question[..self.question.len() - 4];
        let name = &mut name[..asked.len()];
        name.copy_from_slice(asked);
        // Lengths are below 64 and therefore never letters.
        name.make_ascii_lowercase();
        name
    }

    /// How large a reply over UDP may be.
    pub(crate) fn udp_limit(&self) -> u16 {
        self.edns.map_or(PLAIN_UDP_BYTES_MAX, |edns| edns.payload.clamp(PLAIN_UDP_BYTES_MAX, UDP_BYTES_MAX))
    }
}

/// Where the question's name ends: labels only, no pointer, at most 255 octets.
pub(crate) fn question_name_end(packet: &[u8]) -> Option<usize> {
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1 + length;
        if length > 63 || at - HEADER_BYTES > NAME_BYTES_MAX {
            return None;
        }
        if length == 0 {
            return Some(at);
        }
    }
}

/// Measures the records from `at` on; answers the one OPT record among the last `counts[3]`, and where all end.
pub(crate) fn records(packet: &[u8], mut at: usize, counts: [u16; 4]) -> Option<(Option<Edns>, usize)> {
    let [_, answers, authorities, additionals] = counts.map(usize::from);
    let mut edns = None;
    if answers + authorities + additionals > RECORDS_MAX {
        return None;
    }
    for number in 0..answers + authorities + additionals {
        let begin = at;
        at = skip_name(packet, at)?;
        let (kind, class) = (word(packet, at)?, word(packet, at + 2)?);
        let (extended, flags) = (word(packet, at + 4)?, word(packet, at + 6)?);
        at += 10 + usize::from(word(packet, at + 8)?);
        if at > packet.len() {
            return None;
        }
        if kind == rtype::OPT {
            let lone = edns.is_none() && packet[begin] == 0 && number >= answers + authorities;
            if !lone {
                return None;
            }
            let version = extended.to_be_bytes()[1];
            edns = Some(Edns { at: begin, payload: class, version, dnssec_ok: flags & (1 << 15) != 0 });
        }
    }
    Some((edns, at))
}

fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += usize::from(length) + 1,
            192..=255 => return packet.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

/// A header alone: what is said to a packet whose question could not be read.
pub(crate) fn write_bare(out: &mut Vec<u8>, id: u16, flags: u16, rcode: u16) {
    out.clear();
    out.extend_from_slice(&id.to_be_bytes());
    let kept = flags & (flag::OPCODE | flag::RD);
    out.extend_from_slice(&(flag::QR | kept | rcode & 15).to_be_bytes());
    out.extend_from_slice(&[0; 8]);
}

/// The owner of a record that is written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner<'n> {
    /// What stands at this place of the packet.
    At(usize),
    Full(&'n [u8]),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

/// Writes one reply. What does not fit is not written, and the caller is told.
pub(crate) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    limit: usize,
    flags: u16,
    counts: [u16; 3],
    question_end: usize,
    edns: Option<Edns>,
}

impl<'o> Writer<'o> {
    /// Header and question; `flags` beyond those that every reply has.
    pub(crate) fn new(out: &'o mut Vec<u8>, query: &Query<'_>, flags: u16, limit: u16) -> Self {
        out.clear();
        out.extend_from_slice(&query.id.to_be_bytes());
        out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(query.question);
        let reserved = if query.edns.is_some() { OPT_BYTES } else { 0 };
        let flags = flag::QR | query.flags & (flag::RD | flag::CD) | flags;
        let (limit, question_end) = (usize::from(limit) - reserved, out.len());
        Self { out, limit, flags, counts: [0; 3], question_end, edns: query.edns }
    }

    /// One record, when it fits. Answers where its data begins.
    pub(crate) fn record(
        &mut self,
        section: Section,
        owner: Owner<'_>,
        rtype: u16,
        ttl: u32,
        data: &[u8],
    ) -> Option<usize> {
        let owner_bytes = match owner {
            Owner::At(at) if at < 0x4000 => 2,
            Owner::At(_) => return None,
            Owner::Full(name) => name.len(),
        };
        let length = u16::try_from(data.len()).ok()?;
        if self.out.len() + owner_bytes + 10 + data.len() > self.limit {
            return None;
        }
        match owner {
            Owner::At(at) => {
                let pointer = 0xC000 | u16::try_from(at).expect("checked above");
                self.out.extend_from_slice(&pointer.to_be_bytes());
            }
            Owner::Full(name) => self.out.extend_from_slice(name),
        }
        for number in [rtype, 1] {
            self.out.extend_from_slice(&number.to_be_bytes());
        }
        self.out.extend_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(&length.to_be_bytes());
        let begin = self.out.len();
        self.out.extend_from_slice(data);
        self.counts[section as usize] += 1;
        Some(begin)
    }

    /// The records of a set, beginning with the one that `start` picks. Tells `each` where the data of each stands;
    /// false when one did not fit.
    pub(crate) fn set(
        &mut self,
        (section, owner): (Section, Owner<'_>),
        set: &RecordSet,
        ttl: u32,
        start: u64,
        mut each: impl FnMut(usize, &[u8]),
    ) -> bool {
        let count = set.data.len();
        let start = usize::try_from(start % count.max(1) as u64).expect("less than a length");
        for data in set.data[start..].iter().chain(&set.data[..start]) {
            match self.record(section, owner, set.rtype, ttl, data) {
                Some(at) => each(at, data),
                None => return false,
            }
        }
        true
    }

    /// Takes all records back and says TC: ask again over TCP.
    pub(crate) fn truncate(&mut self) {
        self.out.truncate(self.question_end);
        self.counts = [0; 3];
        self.flags |= flag::TC;
    }

    /// Adds OPT where the question had one, and the header's numbers.
    pub(crate) fn finish(mut self, rcode: u16) {
        if let Some(edns) = self.edns {
            self.out.extend_from_slice(&[0, 0]);
            self.out.extend_from_slice(&rtype::OPT.to_be_bytes()[1..]);
            self.out.extend_from_slice(&UDP_BYTES_MAX.to_be_bytes());
            let extended = (rcode >> 4).to_be_bytes()[1];
            let dnssec_ok = if edns.dnssec_ok { 128 } else { 0 };
            self.out.extend_from_slice(&[extended, 0, dnssec_ok, 0, 0, 0]);
            self.counts[2] += 1;
        }
        let flags = self.flags | rcode & 15;
        self.out[2..4].copy_from_slice(&flags.to_be_bytes());
        for (at, count) in [6, 8, 10].into_iter().zip(self.counts) {
            self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
    }
}
