//! Addresses: which one a new instance gets. The engine reuses them at once, so the controller assigns them, and gives
//! one again only when its last holder is long gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use appbase_core::EnvironmentName;

use crate::time::Now;

/// An address is not given again before this time has passed since it was freed.
pub const COOLING: Duration = Duration::from_secs(600);

/// Offset of the first instance in an environment's network.
const INSTANCES_FROM: u32 = 16;

/// Where instances' addresses come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// Ports on 127.0.0.1, from and to (both included): the process engine.
    Ports { first: u16, last: u16 },
    /// One network of 4,096 addresses per environment inside a /16: Docker. The first 16 are the parts', the last 256
    /// Docker's own to give.
    Networks { base: Ipv4Addr },
}

impl Range {
    /// Networks of environments are numbered from 1; more do not fit into a /16.
    pub const NETWORKS_MAX: u8 = 15;

    pub const PROCESS: Self = Self::Ports { first: 20_000, last: 29_999 };

    /// How many instances fit.
    fn size(&self) -> u32 {
        match self {
            Self::Ports { first, last } => u32::from(last - first) + 1,
            Self::Networks { .. } => 3_840 - INSTANCES_FROM,
        }
    }

    fn address(&self, network: u8, index: u32, port: u16) -> SocketAddr {
        match self {
            Self::Ports { first, .. } => {
                let port = first + u16::try_from(index).expect("an index is below the range's size");
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
            }
            Self::Networks { base } => {
                let base = u32::from(*base) + (u32::from(network) << 12) + INSTANCES_FROM;
                SocketAddr::new(IpAddr::V4(Ipv4Addr::from(base + index)), port)
            }
        }
    }
}

/// Who has which address. Rebuilt from the run records at start; only the cooling times live in memory.
#[derive(Debug, Clone)]
pub struct Addresses {
    range: Range,
    /// Network of each environment within the range.
    pub networks: BTreeMap<EnvironmentName, u8>,
    /// What records held at the last look.
    held: BTreeSet<(IpAddr, u16)>,
    /// Taken since: nobody's yet, and free again at once if no record is written of it.
    taken: BTreeSet<(IpAddr, u16)>,
    cooling: BTreeMap<(IpAddr, u16), Duration>,
    next: u32,
}

impl Addresses {
    pub fn new(range: Range, networks: BTreeMap<EnvironmentName, u8>) -> Self {
        Self { range, networks, held: BTreeSet::new(), taken: BTreeSet::new(), cooling: BTreeMap::new(), next: 0 }
    }

    /// What identifies an address in this range: on Docker the IP alone.
    fn key(&self, address: SocketAddr) -> (IpAddr, u16) {
        match self.range {
            Range::Ports { .. } => (address.ip(), address.port()),
            Range::Networks { .. } => (address.ip(), 0),
        }
    }

    /// Says which addresses records hold now; what is no longer held begins to cool.
    pub fn held(&mut self, held: impl Iterator<Item = SocketAddr>, now: Now) {
        let held: BTreeSet<_> = held.map(|address| self.key(address)).collect();
        for freed in self.held.difference(&held) {
            self.cooling.insert(*freed, now.elapsed);
        }
        self.cooling.retain(|_, since| now.elapsed.saturating_sub(*since) < COOLING);
        self.held = held;
        self.taken.clear();
    }

    /// The next free address, going round; none when all are held or cooling.
    pub fn take(&mut self, environment: &EnvironmentName, port: u16) -> Option<SocketAddr> {
        let network = match self.range {
            Range::Ports { .. } => 0,
            Range::Networks { .. } => *self.networks.get(environment)?,
        };
        let size = self.range.size();
        let found = (0..size).map(|step| (self.next + step) % size).find(|index| {
            let key = self.key(self.range.address(network, *index, port));
            !self.held.contains(&key) && !self.taken.contains(&key) && !self.cooling.contains_key(&key)
        })?;
        self.next = (found + 1) % size;
        let address = self.range.address(network, found, port);
        self.taken.insert(self.key(address));
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_addresses_cool() {
        let mut addresses = Addresses::new(Range::Ports { first: 20_000, last: 20_002 }, BTreeMap::new());
        let environment = EnvironmentName::default_name();
        let at = |seconds| Now { unix_ms: 0, elapsed: Duration::from_secs(seconds) };
        let take = |addresses: &mut Addresses| addresses.take(&environment, 80);
        let (one, two) = (take(&mut addresses).expect("free"), take(&mut addresses).expect("free"));
        addresses.held([one, two].into_iter(), at(0));
        addresses.held([two].into_iter(), at(10));
        let three = take(&mut addresses).expect("free");
        assert_eq!([one.port(), two.port(), three.port()], [20_000, 20_001, 20_002]);
        assert_eq!(take(&mut addresses), None, "the freed one cools");
        addresses.held([two, three].into_iter(), at(610));
        assert_eq!(take(&mut addresses), Some(one));
    }

    #[test]
    fn what_was_taken_for_nothing_is_free_at_once() {
        let mut addresses = Addresses::new(Range::Ports { first: 20_000, last: 20_001 }, BTreeMap::new());
        let environment = EnvironmentName::default_name();
        for second in 0..10 {
            addresses.held([].into_iter(), Now { unix_ms: 0, elapsed: Duration::from_secs(second) });
            assert!(addresses.take(&environment, 80).is_some(), "the record of the last one was never written");
        }
    }

    #[test]
    fn environments_have_their_own_network() {
        let staging = EnvironmentName::parse("staging").expect("a name");
        let networks = [(EnvironmentName::default_name(), 1), (staging.clone(), 2)].into();
        let mut addresses = Addresses::new(Range::Networks { base: Ipv4Addr::new(10, 210, 0, 0) }, networks);
        let first = addresses.take(&EnvironmentName::default_name(), 8080).expect("free");
        assert_eq!(first.to_string(), "10.210.16.16:8080");
        assert_eq!(addresses.take(&staging, 80).expect("free").to_string(), "10.210.32.17:80");
        let unknown = EnvironmentName::parse("unknown").expect("a name");
        assert_eq!(addresses.take(&unknown, 80), None, "never in another's network");
    }
}
