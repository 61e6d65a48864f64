//! Counters, with labels that no asker can make more of.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use dns_core::{Answered, Transport, rcode, rtype};

/// Types that are counted by name; all others are one.
const TYPES: [(u16, &str); 9] = [
    (rtype::A, "A"),
    (rtype::AAAA, "AAAA"),
    (rtype::SRV, "SRV"),
    (rtype::PTR, "PTR"),
    (rtype::TXT, "TXT"),
    (rtype::SOA, "SOA"),
    (rtype::NS, "NS"),
    (rtype::HTTPS, "HTTPS"),
    (rtype::ANY, "ANY"),
];
const CODES: [(u16, &str); 7] = [
    (rcode::NOERROR, "NOERROR"),
    (rcode::FORMERR, "FORMERR"),
    (rcode::SERVFAIL, "SERVFAIL"),
    (rcode::NXDOMAIN, "NXDOMAIN"),
    (rcode::NOTIMP, "NOTIMP"),
    (rcode::REFUSED, "REFUSED"),
    (rcode::BADVERS, "BADVERS"),
];
const TRANSPORTS: [&str; 2] = ["udp", "tcp"];

type PerCode = [AtomicU64; CODES.len() + 1];

#[derive(Debug, Default)]
pub(crate) struct Counters {
    queries: [[PerCode; TYPES.len() + 1]; TRANSPORTS.len()],
    /// Replies that said TC.
    pub(crate) truncated: AtomicU64,
    /// Packets that get no reply: replies themselves, scraps, replies that the socket did not take.
    pub(crate) dropped: AtomicU64,
    /// Connections refused for one of the limits.
    pub(crate) connections_refused: AtomicU64,
    pub(crate) forwarded: AtomicU64,
    /// Forwarded questions that no upstream answered in time.
    pub(crate) forward_failures: AtomicU64,
    /// Questions not forwarded because too many already were.
    pub(crate) forward_refused: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn count(&self, transport: Transport, answered: Answered) {
        let index = |list: &[(u16, &str)], value| list.iter().position(|(known, _)| *known == value);
        let kind = answered.qtype.and_then(|qtype| index(&TYPES, qtype)).unwrap_or(TYPES.len());
        let code = index(&CODES, answered.rcode).unwrap_or(CODES.len());
        let transport = usize::from(transport == Transport::Tcp);
        add(&self.queries[transport][kind][code]);
        if answered.truncated {
            add(&self.truncated);
        }
    }

    /// Prometheus text; what was never counted is left out.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from("# TYPE platform_dns_queries_total counter\n");
        let label = |list: &[(u16, &'static str)], at: usize| list.get(at).map_or("other", |(_, name)| name);
        for (transport, kinds) in TRANSPORTS.iter().zip(&self.queries) {
            for (at, codes) in kinds.iter().enumerate() {
                for (code, count) in codes.iter().enumerate() {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        let (kind, code) = (label(&TYPES, at), label(&CODES, code));
                        let _ = writeln!(
                            text,
                            "platform_dns_queries_total{{transport=\"{transport}\",qtype=\"{kind}\",rcode=\"{code}\"}} {count}"
                        );
                    }
                }
            }
        }
        for (name, counter) in [
            ("truncated", &self.truncated),
            ("dropped", &self.dropped),
            ("connections_refused", &self.connections_refused),
            ("forwarded", &self.forwarded),
            ("forward_failures", &self.forward_failures),
            ("forward_refused", &self.forward_refused),
        ] {
            let count = counter.load(Ordering::Relaxed);
            let _ = writeln!(text, "# TYPE platform_dns_{name}_total counter\nplatform_dns_{name}_total {count}");
        }
        text
    }
}
