//! Addresses: how the cluster's range is cut into one subnet per environment, and who stands where in it.
//!
//! Pure. A range is cut into /20s. Within one, counted from its first address:
//!
//! | address | who |
//! | --- | --- |
//! | 1 | the gateway |
//! | 2 | lb-1 |
//! | 3 | dns |
//! | 4 | repository |
//! | 5–15 | further lbs |
//! | 16–3839 | instances; the controller gives them out |
//! | last /24 | what Docker gives out itself, to whoever joins without a fixed address |

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Prefix length of an environment's subnet: 16 environments in a /16, some 3,800 instances in each.
pub const ENVIRONMENT_PREFIX: u8 = 20;
/// First address, counted from the subnet's own, that an instance gets.
const INSTANCES_FROM: u32 = 16;
/// First address of the part that Docker gives out itself.
const DYNAMIC_FROM: u32 = 15 * 256;

/// An IPv4 network, its host bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not an IPv4 network: write it like 10.210.0.0/16, its host bits zero")]
pub struct SubnetError {
    text: String,
}

impl Subnet {
    /// None when the prefix is longer than 32 or host bits are set.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let base = u32::from(address);
        (prefix <= 32 && base & !mask(prefix) == 0).then_some(Self { base, prefix })
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.base
    }

    pub fn overlaps(self, other: Self) -> bool {
        let shorter = mask(self.prefix.min(other.prefix));
        self.base & shorter == other.base & shorter
    }

    /// The `index`th environment subnet of this range; none past its end, or when the range is smaller than one.
    pub fn environment(self, index: u32) -> Option<EnvironmentSubnet> {
        let count = 1u32.checked_shl(u32::from(ENVIRONMENT_PREFIX.checked_sub(self.prefix)?))?;
        (index < count).then(|| {
            EnvironmentSubnet(Self {
                base: self.base + (index << (32 - ENVIRONMENT_PREFIX)),
                prefix: ENVIRONMENT_PREFIX,
            })
        })
    }

    /// All environment subnets of this range, in order.
    pub fn environments(self) -> impl Iterator<Item = EnvironmentSubnet> {
        (0..).map_while(move |index| self.environment(index))
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + offset)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        text.split_once('/')
            .and_then(|(address, prefix)| Self::new(address.parse().ok()?, prefix.parse().ok()?))
            .ok_or_else(|| SubnetError { text: text.chars().take(64).collect::<String>().escape_debug().to_string() })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

/// The /20 of one environment; see the table at the top of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnvironmentSubnet(Subnet);

impl EnvironmentSubnet {
    /// None when `subnet` is not as large as an environment's.
    pub fn of(subnet: Subnet) -> Option<Self> {
        (subnet.prefix == ENVIRONMENT_PREFIX).then_some(Self(subnet))
    }

    pub fn subnet(self) -> Subnet {
        self.0
    }

    pub fn gateway(self) -> Ipv4Addr {
        self.0.at(1)
    }

    pub fn dns(self) -> Ipv4Addr {
        self.0.at(3)
    }

    pub fn repository(self) -> Ipv4Addr {
        self.0.at(4)
    }

    /// Where lbs stand, lb-1 first.
    pub fn lbs(self) -> impl Iterator<Item = Ipv4Addr> {
        std::iter::once(2).chain(5..INSTANCES_FROM).map(move |offset| self.0.at(offset))
    }

    /// The addresses that the controller gives to instances.
    pub fn instances(self) -> impl Iterator<Item = Ipv4Addr> {
        (INSTANCES_FROM..DYNAMIC_FROM).map(move |offset| self.0.at(offset))
    }

    pub fn is_for_instances(self, address: Ipv4Addr) -> bool {
        u32::from(address).checked_sub(self.0.base).is_some_and(|at| (INSTANCES_FROM..DYNAMIC_FROM).contains(&at))
    }

    /// Docker's `--ip-range`: fixed addresses lie outside it, so Docker never gives one of them away.
    pub fn dynamic(self) -> Subnet {
        Subnet { base: self.0.base + DYNAMIC_FROM, prefix: 24 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    #[test]
    fn subnets_are_read_and_refused() {
        assert_eq!(subnet("10.210.0.0/16").to_string(), "10.210.0.0/16");
        assert!(subnet("0.0.0.0/0").contains(Ipv4Addr::BROADCAST));
        for bad in ["", "10.210.0.0", "10.210.0.1/16", "10.210.0.0/33", "10.210.0/16", "::/0", "10.210.0.0/-1"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn overlap_is_seen_from_both_sides() {
        for (one, other, expect) in [
            ("10.210.0.0/16", "10.210.240.0/20", true),
            ("10.210.0.0/20", "10.210.16.0/20", false),
            ("10.0.0.0/8", "10.210.16.0/20", true),
            ("10.211.0.0/16", "10.210.0.0/16", false),
        ] {
            assert_eq!(subnet(one).overlaps(subnet(other)), expect, "{one} {other}");
            assert_eq!(subnet(other).overlaps(subnet(one)), expect, "{other} {one}");
        }
    }

    #[test]
    fn a_range_is_cut_into_environments() {
        let range = subnet("10.210.0.0/16");
        assert_eq!(range.environments().count(), 16);
        assert_eq!(subnet("10.210.0.0/24").environments().count(), 0);
        let last = range.environment(15).expect("the last");
        assert_eq!(last.subnet().to_string(), "10.210.240.0/20");
        assert_eq!(last.dynamic().to_string(), "10.210.255.0/24");
        assert_eq!(range.environment(16), None);
    }

    #[test]
    fn nobody_stands_where_another_does() {
        let environment = subnet("10.210.0.0/16").environment(1).expect("the second");
        assert_eq!(environment.dns(), Ipv4Addr::new(10, 210, 16, 3));
        let mut all: Vec<Ipv4Addr> = vec![environment.gateway(), environment.dns(), environment.repository()];
        all.extend(environment.lbs());
        assert_eq!(all[3], Ipv4Addr::new(10, 210, 16, 2));
        all.extend(environment.instances());
        assert!(environment.instances().all(|address| environment.is_for_instances(address)));
        assert!(all.iter().all(|address| !environment.dynamic().contains(*address)));
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(!environment.is_for_instances(environment.dns()));
    }
}
