//! Names of the platform's own parts, for each class of askers: instances of an environment, and everybody else.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use appbase_core::EnvironmentName;
use dns_core::v1::{PlatformNames, View};

use crate::config::{Config, Engine};

const PARTS: [&str; 4] = ["lb", "dns", "repository", "controller"];
const EVERYBODY: [&str; 2] = ["0.0.0.0/0", "::/0"];
/// Addresses that nobody has out in the world.
const NEAR: [&str; 9] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

/// The names of the platform's own parts, as each class of askers reaches them.
pub(crate) fn platform(config: &Config, networks: &BTreeMap<EnvironmentName, u8>) -> PlatformNames {
    let mut views = Vec::new();
    if config.engine == Engine::Docker {
        views.extend(networks.iter().map(|(environment, network)| instance_view(config, environment, *network)));
    }
    let everybody = View {
        name: "host".to_owned(),
        sources: EVERYBODY.map(str::to_owned).to_vec(),
        environment: None,
        forward: true,
        parts: PARTS.iter().map(|part| ((*part).to_owned(), vec![config.public_address])).collect(),
    };
    if crate::acme::reach(config).names.is_empty() {
        views.push(everybody);
    } else {
        // The world is to ask for our names. Who forwards for the world is abused by it.
        let sources = NEAR.map(str::to_owned).to_vec();
        views.push(View { sources, ..everybody.clone() });
        views.push(View { name: "world".to_owned(), forward: false, ..everybody });
    }
    PlatformNames {
        domain: config.domain.clone(),
        ttl_ms: config.name_ttl_ms,
        views,
        servers: BTreeMap::from([(config.server.clone(), vec![config.public_address])]),
    }
}

/// What instances of an environment see: the parts at their fixed addresses in the environment's own network.
fn instance_view(config: &Config, environment: &EnvironmentName, network: u8) -> View {
    let base = u32::from(config.range_base()) + (u32::from(network) << 12);
    let at = |offset: u32| vec![IpAddr::V4(Ipv4Addr::from(base + offset))];
    View {
        name: environment.to_string(),
        sources: vec![format!("{}/20", Ipv4Addr::from(base))],
        environment: Some(environment.clone()),
        forward: true,
        parts: BTreeMap::from([("lb".to_owned(), at(2)), ("dns".to_owned(), at(3)), ("repository".to_owned(), at(4))]),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        config: Config,
    }

    fn views(arguments: &[&str]) -> Vec<(String, usize, bool)> {
        let arguments = Arguments::parse_from(["controller"].iter().chain(arguments));
        let platform = platform(&arguments.config, &BTreeMap::new());
        let sections = BTreeMap::from([(
            appbase_core::SectionKey::Platform,
            dns_core::v1::NameSection::Platform(platform.clone()),
        )]);
        assert_eq!(dns_core::Table::new(&sections).err(), None, "dns takes it");
        platform.views.into_iter().map(|view| (view.name, view.sources.len(), view.forward)).collect()
    }

    #[test]
    fn nothing_is_forwarded_for_the_world_where_it_is_to_ask() {
        let engine = ["--engine", "process"];
        assert_eq!(views(&engine), [("host".to_owned(), EVERYBODY.len(), true)]);
        let both = [("host".to_owned(), NEAR.len(), true), ("world".to_owned(), EVERYBODY.len(), false)];
        assert_eq!(views(&[&engine[..], &["--acme-dns", "zone.example"]].concat()), both);
    }
}
