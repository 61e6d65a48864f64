//! One view: its nodes and the look-up of RFC 1034, section 4.3.2, for zones without delegations, aliases or wildcards.

use std::collections::BTreeMap;

use appbase_core::Prefix;

use super::private;
use crate::name::{Name, suffix_at};
use crate::record::{RecordSet, rtype};

/// The record sets of one existing name; none at all for a name that only has names below it.
pub(crate) type Node = Vec<RecordSet>;

/// What one class of askers gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(super) sources: Vec<Prefix>,
    pub(crate) forward: bool,
    pub(super) domain: Name,
    pub(super) nodes: BTreeMap<Name, Node>,
    /// Data of the SOA of every zone of ours.
    pub(crate) soa: Vec<u8>,
    pub(crate) ttl: u32,
}

/// What was found. `apex` is where in the asked name the zone begins, whose SOA goes with a negative answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'v> {
    Set(&'v RecordSet),
    /// The SOA itself was asked for.
    Soa,
    NoData {
        apex: usize,
    },
    NxDomain {
        apex: usize,
    },
    /// Not ours.
    Foreign,
}

impl View {
    /// `name` in wire form and lower case.
    pub(crate) fn look_up(&self, name: &[u8], qtype: u16) -> Found<'_> {
        let node = self.nodes.get(name);
        let apex = suffix_at(name, self.domain.wire())
            .or_else(|| private::reverse_apex_at(name))
            .or_else(|| node.map(|_| 0))
            .or_else(|| private::special_at(name));
        let Some(apex) = apex else { return Found::Foreign };
        let Some(node) = node else {
            // A private range exists even when nothing in it does.
            return if apex == 0 { Self::at_apex(qtype, apex) } else { Found::NxDomain { apex } };
        };
        // ANY gets one set, whichever comes first (RFC 8482).
        match node.iter().find(|set| set.rtype == qtype || qtype == rtype::ANY) {
            Some(set) => Found::Set(set),
            None if apex == 0 => Self::at_apex(qtype, apex),
            None => Found::NoData { apex },
        }
    }

    fn at_apex(qtype: u16, apex: usize) -> Found<'static> {
        if matches!(qtype, rtype::SOA | rtype::ANY) { Found::Soa } else { Found::NoData { apex } }
    }

    /// The address sets of a name of ours, for the additional section.
    pub(crate) fn addresses(&self, name: &[u8]) -> impl Iterator<Item = &RecordSet> {
        self.nodes.get(name).into_iter().flatten().filter(|set| set.divisible())
    }
}
