//! Names of the platform's own parts, for each class of askers: instances of an environment, and everybody else.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use appbase_core::EnvironmentName;
use dns_core::v1::{PlatformNames, View};

use crate::config::{Config, Engine};

/// The names of the platform's own parts, as each class of askers reaches them.
pub(crate) fn platform(config: &Config, networks: &BTreeMap<EnvironmentName, u8>) -> PlatformNames {
    let mut views = Vec::new();
    if config.engine == Engine::Docker {
        views.extend(networks.iter().map(|(environment, network)| instance_view(config, environment, *network)));
    }
    let parts = ["lb", "dns", "repository", "controller"];
    views.push(View {
        name: "host".to_owned(),
        sources: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
        environment: None,
        forward: true,
        parts: parts.iter().map(|part| ((*part).to_owned(), vec![config.public_address])).collect(),
    });
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
