//! Forward: a question that is not ours, as it is asked of an upstream, and what may come back.
//!
//! Owns: what of the asker's packet goes on (question, RD, AD, CD, DO; no options, so no client subnet and no cookies),
//! and which reply belongs to it. Refuses: replies with another id or question (RFC 5452).

use crate::answer::{Answered, Transport};
use crate::message::{HEADER_BYTES, Query, UDP_BYTES_MAX, Writer, flag, question_name_end, rcode, records, word};

/// One question on its way to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    id: u16,
    flags: u16,
    question: Vec<u8>,
    qtype: u16,
    /// Whether the asker speaks EDNS, and whether it wants signatures.
    edns: Option<bool>,
    transport: Transport,
    limit: u16,
}

/// Why a packet is not the reply that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("packet is not the reply to what was asked")]
pub struct Mismatch;

/// What a reply that belongs to the question means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamReply {
    /// An answer, a NXDOMAIN included: the asker gets it.
    Final { rcode: u16 },
    /// SERVFAIL, REFUSED and the like: another upstream may know better.
    TryNext { rcode: u16 },
    /// Cut to the size of UDP: all of it is there over TCP.
    Truncated,
}

impl Forward {
    pub(crate) fn of(query: &Query<'_>, transport: Transport, limit: u16) -> Self {
        Self {
            id: query.id,
            flags: query.flags & (flag::RD | flag::AD | flag::CD),
            question: query.question.to_vec(),
            qtype: query.qtype,
            edns: query.edns.map(|edns| edns.dnssec_ok),
            transport,
            limit,
        }
    }

    pub fn qtype(&self) -> u16 {
        self.qtype
    }

    /// The packet for an upstream, under an id that nobody can guess.
    pub fn query(&self, id: u16) -> Vec<u8> {
        let mut packet = Vec::with_capacity(HEADER_BYTES + self.question.len() + 11);
        packet.extend_from_slice(&id.to_be_bytes());
        packet.extend_from_slice(&self.flags.to_be_bytes());
        packet.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())]);
        packet.extend_from_slice(&self.question);
        if let Some(dnssec_ok) = self.edns {
            packet.extend_from_slice(&[0, 0, 41]);
            packet.extend_from_slice(&UDP_BYTES_MAX.to_be_bytes());
            packet.extend_from_slice(&[0, 0, if dnssec_ok { 128 } else { 0 }, 0, 0, 0]);
        }
        packet
    }

    /// Whether `reply` answers the packet made with `id`.
    pub fn accept(&self, id: u16, reply: &[u8]) -> Result<UpstreamReply, Mismatch> {
        let field = |at| word(reply, at).ok_or(Mismatch);
        let (flags, questions) = (field(2)?, field(4)?);
        let question = reply.get(HEADER_BYTES..HEADER_BYTES + self.question.len());
        let same = question.is_some_and(|question| question.eq_ignore_ascii_case(&self.question));
        if field(0)? != id || flags & flag::QR == 0 || flags & flag::OPCODE != 0 {
            return Err(Mismatch);
        }
        let rcode = flags & 15;
        // Those who cannot read a question at all send a header alone.
        let bare = questions == 0 && matches!(rcode, rcode::FORMERR | rcode::SERVFAIL | rcode::NOTIMP | rcode::REFUSED);
        if bare {
            return Ok(UpstreamReply::TryNext { rcode });
        }
        if questions != 1 || !same || question_name_end(reply).is_none() {
            return Err(Mismatch);
        }
        if flags & flag::TC != 0 {
            return Ok(UpstreamReply::Truncated);
        }
        Ok(match rcode {
            rcode::NOERROR | rcode::NXDOMAIN => UpstreamReply::Final { rcode },
            _ => UpstreamReply::TryNext { rcode },
        })
    }

    /// Whether what UDP cut is worth asking for over TCP: only for one who could get it.
    pub fn wants_all(&self) -> bool {
        self.transport == Transport::Tcp
    }

    /// An accepted reply as the asker gets it: its id and question, RA for AA, nobody else's word for AD, our own UDP
    /// size; TC alone when it is too large.
    pub fn relay(&self, mut reply: Vec<u8>) -> (Vec<u8>, Answered) {
        let end = HEADER_BYTES + self.question.len();
        let (Some(flags), true) = (word(&reply, 2), reply.len() >= end) else { return self.failure(rcode::SERVFAIL) };
        if reply.len() > usize::from(self.limit) || flags & flag::TC != 0 {
            return self.truncated(flags & 15);
        }
        let counts = [4, 6, 8, 10].map(|at| word(&reply, at).unwrap_or_default());
        if let Some((Some(edns), _)) = records(&reply, end, counts) {
            reply[edns.at + 3..edns.at + 5].copy_from_slice(&UDP_BYTES_MAX.to_be_bytes());
        }
        let flags = flags & !(flag::AA | flag::AD) | flag::RA;
        reply[..2].copy_from_slice(&self.id.to_be_bytes());
        reply[2..4].copy_from_slice(&flags.to_be_bytes());
        reply[HEADER_BYTES..end].copy_from_slice(&self.question);
        let answered = Answered { qtype: Some(self.qtype), rcode: flags & 15, truncated: false };
        (reply, answered)
    }

    /// What the asker gets when no upstream helped.
    pub fn failure(&self, rcode: u16) -> (Vec<u8>, Answered) {
        self.empty(rcode, false)
    }

    fn truncated(&self, rcode: u16) -> (Vec<u8>, Answered) {
        self.empty(rcode, true)
    }

    fn empty(&self, rcode: u16, truncated: bool) -> (Vec<u8>, Answered) {
        let packet = self.query(self.id);
        let mut out = Vec::new();
        let query = Query::parse(&packet).expect("a packet of our own making is a question");
        let mut writer = Writer::new(&mut out, &query, flag::RA, self.limit);
        if truncated {
            writer.truncate();
        }
        writer.finish(rcode);
        (out, Answered { qtype: Some(self.qtype), rcode, truncated })
    }
}
