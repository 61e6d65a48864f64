//! What happens to one packet: dropped, answered here, or handed back to be forwarded.
//!
//! ```text
//! packet ─► readable? ─► class, version ─► view of the asker ─► look-up ─► set | no data | no name
//!             │ no                            │ none               └► not ours ─► forward, or REFUSED
//!             └► dropped, or a bare code      └► REFUSED
//! ```

use std::net::IpAddr;

use crate::forward::Forward;
use crate::message::{HEADER_BYTES, Owner, Query, Section, TCP_BYTES_MAX, Unreadable, Writer, flag, rcode, write_bare};
use crate::name::NAME_BYTES_MAX;
use crate::record::{RecordSet, rtype};
use crate::table::{Found, Table, View};

const CLASS_IN: u16 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What to do with a packet. A reply stands in the buffer that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Reply(Answered),
    Forward(Forward),
    Drop,
}

/// What was answered, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// None when no question could be read.
    pub qtype: Option<u16>,
    pub rcode: u16,
    pub truncated: bool,
}

/// Answers `packet` from `table` (SERVFAIL while there is none) into `out`. `seed` picks which address comes first.
pub fn answer(
    packet: &[u8],
    table: Option<&Table>,
    source: IpAddr,
    transport: Transport,
    seed: u64,
    out: &mut Vec<u8>,
) -> Outcome {
    let query = match Query::parse(packet) {
        Ok(query) => query,
        Err(Unreadable::Silent) => return Outcome::Drop,
        Err(Unreadable::Code { id, flags, rcode }) => {
            write_bare(out, id, flags, rcode);
            return Outcome::Reply(Answered { qtype: None, rcode, truncated: false });
        }
    };
    let limit = match transport {
        Transport::Udp => query.udp_limit(),
        Transport::Tcp => TCP_BYTES_MAX,
    };
    let mut reply = Reply { out, query: &query, limit, recursion: 0 };
    let Some(table) = table else { return reply.code(rcode::SERVFAIL) };
    let view = table.view(source);
    if view.is_some_and(|view| view.forward) {
        reply.recursion = flag::RA;
    }
    if query.edns.is_some_and(|edns| edns.version > 0) {
        return reply.code(rcode::BADVERS);
    }
    if query.qtype == rtype::OPT {
        return reply.code(rcode::FORMERR);
    }
    let Some(view) = view.filter(|_| query.class == CLASS_IN) else { return reply.code(rcode::REFUSED) };
    if matches!(query.qtype, rtype::AXFR | rtype::IXFR) {
        return reply.code(rcode::REFUSED);
    }
    let mut buffer = [0; NAME_BYTES_MAX];
    match view.look_up(query.name(&mut buffer), query.qtype) {
        Found::Set(set) => reply.set(view, set, seed),
        Found::Soa => reply.soa(view, Section::Answer, 0, rcode::NOERROR),
        Found::NoData { apex } => reply.soa(view, Section::Authority, apex, rcode::NOERROR),
        Found::NxDomain { apex } => reply.soa(view, Section::Authority, apex, rcode::NXDOMAIN),
        // Without RD nothing is asked of others, and there is no cache to look into.
        Found::Foreign if view.forward && query.flags & flag::RD != 0 => {
            Outcome::Forward(Forward::of(&query, transport, limit))
        }
        Found::Foreign => reply.code(rcode::REFUSED),
    }
}

/// One reply to be written.
struct Reply<'o, 'q> {
    out: &'o mut Vec<u8>,
    query: &'q Query<'q>,
    limit: u16,
    /// RA for askers whose other questions are forwarded.
    recursion: u16,
}

impl Reply<'_, '_> {
    fn code(self, rcode: u16) -> Outcome {
        Writer::new(self.out, self.query, self.recursion, self.limit).finish(rcode);
        self.done(rcode, false)
    }

    fn set(self, view: &View, set: &RecordSet, seed: u64) -> Outcome {
        let mut writer = Writer::new(self.out, self.query, self.recursion | flag::AA, self.limit);
        let owner = (Section::Answer, Owner::At(HEADER_BYTES));
        let target_at = set.target_at();
        let mut targets = Vec::new();
        let fits = writer.set(owner, set, view.ttl, seed, |at, data| {
            targets.extend(target_at.map(|target| (at + target, data[target..].to_vec())));
        });
        // Any address is a sound answer; and old resolver libraries cannot ask again over TCP.
        let truncated = !fits && !set.divisible();
        if truncated {
            writer.truncate();
        } else {
            // What does not fit beside the answer is left out in silence (RFC 2181, section 9).
            for (at, name) in targets {
                let owner = if at < 0x4000 { Owner::At(at) } else { Owner::Full(&name) };
                for addresses in view.addresses(&name) {
                    writer.set((Section::Additional, owner), addresses, view.ttl, seed, |_, _| {});
                }
            }
        }
        writer.finish(rcode::NOERROR);
        self.done(rcode::NOERROR, truncated)
    }

    fn soa(self, view: &View, section: Section, apex: usize, rcode: u16) -> Outcome {
        let mut writer = Writer::new(self.out, self.query, self.recursion | flag::AA, self.limit);
        let owner = Owner::At(HEADER_BYTES + apex);
        let truncated = writer.record(section, owner, rtype::SOA, view.ttl, &view.soa).is_none();
        if truncated {
            writer.truncate();
        }
        writer.finish(rcode);
        self.done(rcode, truncated)
    }

    fn done(self, rcode: u16, truncated: bool) -> Outcome {
        Outcome::Reply(Answered { qtype: Some(self.query.qtype), rcode, truncated })
    }
}
