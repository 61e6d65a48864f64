//! Routes of this machine, so that no environment gets a subnet that hides one of them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::range::Subnet;

/// Each routed network but the default, with the words that say who uses it. Within a container these are the
/// container's own routes; `make up` looks at the machine's.
pub(crate) fn of_this_machine() -> BTreeMap<Subnet, String> {
    // A machine without this file has no routes to look at.
    parse(&std::fs::read_to_string("/proc/net/route").unwrap_or_default())
}

/// The kernel's table: a head line, then `interface destination gateway … mask …`, addresses as little-endian hex.
fn parse(table: &str) -> BTreeMap<Subnet, String> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let interface = fields.next()?;
        let destination = hex(fields.next()?)?;
        let mask = hex(fields.nth(5)?)?;
        let prefix = u8::try_from(mask.leading_ones()).ok()?;
        let subnet = Subnet::new(Ipv4Addr::from(destination), prefix)?;
        (prefix > 0).then(|| (subnet, format!("route by {interface}")))
    };
    table.lines().skip(1).filter_map(line).collect()
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok().map(u32::swap_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     wg0\t0000D20A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                     broken\n";
        let routes: Vec<String> = parse(table).iter().map(|(subnet, who)| format!("{subnet} {who}")).collect();
        assert_eq!(routes, ["10.210.0.0/16 route by wg0"]);
    }
}
