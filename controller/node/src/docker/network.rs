//! Networks: one per environment, with the platform's parts at their fixed addresses in it.
//!
//! Owns: `<project>-env-<environment>` of this cluster. Refuses: a subnet that something else on the machine uses, and
//! any network that another made under that name.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use appbase_core::EnvironmentName;
use appbase_core::v1::label;
use bollard::models::{
    ContainerSummary, ContainerSummaryStateEnum, EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, Network,
    NetworkConnectRequest, NetworkCreateRequest,
};
use bollard::query_parameters::{ListContainersOptions, ListNetworksOptions};

use super::range::{EnvironmentSubnet, Subnet};
use super::{DockerEngine, fault, labels, route};
use crate::ComputeError;

/// What compose itself writes on everything it makes.
const COMPOSE_PROJECT: &str = "com.docker.compose.project";

/// A network that exists, and where the platform's dns stands in it, when it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentNetwork {
    pub name: String,
    pub subnet: EnvironmentSubnet,
    pub dns: Option<IpAddr>,
}

/// One of the platform's own containers, as seen from one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) container: String,
    pub(crate) name: String,
    pub(crate) part: String,
    /// Its address in the network; `Some(None)` when it is connected and Docker shows none (it is not running).
    pub(crate) here: Option<Option<Ipv4Addr>>,
}

/// Which parts must still be connected, and where. What is connected stays where it is: moving it would cut its open
/// connections. Pure.
pub(crate) fn plan_joins(subnet: EnvironmentSubnet, parts: &[Part]) -> Vec<(String, Ipv4Addr)> {
    let mut taken: Vec<Ipv4Addr> = parts.iter().filter_map(|part| part.here.flatten()).collect();
    let mut absent: Vec<&Part> = parts.iter().filter(|part| part.here.is_none()).collect();
    absent.sort_by(|one, other| (&one.part, &one.name).cmp(&(&other.part, &other.name)));
    let mut joins = Vec::new();
    for part in absent {
        let free = |address: &Ipv4Addr| !taken.contains(address);
        let address = match part.part.as_str() {
            "dns" => Some(subnet.dns()).filter(free),
            "repository" => Some(subnet.repository()).filter(free),
            "lb" => subnet.lbs().find(free),
            _ => continue,
        };
        let Some(address) = address else {
            tracing::warn!(container = part.name, part = part.part, "no free address for it in the network");
            continue;
        };
        taken.push(address);
        joins.push((part.container.clone(), address));
    }
    joins
}

/// The subnet of a network, when it is one of ours in form.
fn subnet_of(network: &Network) -> Option<Subnet> {
    subnets_of(network).next()
}

fn check_address(subnet: EnvironmentSubnet, ip: Option<Ipv4Addr>) -> Result<(), String> {
    match ip.filter(|ip| !subnet.is_for_instances(*ip)) {
        None => Ok(()),
        Some(ip) => Err(format!(
            "{ip} is not an address for instances in {} (its first 16 and its last /24 are kept back)",
            subnet.subnet()
        )),
    }
}

fn subnets_of(network: &Network) -> impl Iterator<Item = Subnet> + '_ {
    let configs = network.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten());
    configs.filter_map(|config| config.subnet.as_deref()?.parse().ok())
}

impl DockerEngine {
    /// The network of an environment, made if need be, with the parts connected. `number` says which part of the range
    /// it has, and `ip`, when given, must lie in it. Without both a new one gets the first free part.
    pub async fn ensure_environment(
        &self,
        environment: &EnvironmentName,
        ip: Option<IpAddr>,
        number: Option<u8>,
    ) -> Result<EnvironmentNetwork, ComputeError> {
        let name = format!("{}-env-{environment}", self.project());
        let what = || format!("make network {name}");
        let failed = |reason: String| ComputeError::Failed { what: what(), reason };
        let ip = match ip {
            Some(IpAddr::V6(ip)) => return Err(failed(format!("{ip} is not an IPv4 address"))),
            Some(IpAddr::V4(ip)) => Some(ip),
            None => None,
        };
        // Two creates at once must not both make it: Docker allows networks of equal names.
        let _one_at_a_time = self.networks.lock().await;
        let (all, parts) = tokio::try_join!(self.list_networks(), self.list_parts(&name))?;
        let existing = all.iter().find(|network| network.name.as_deref() == Some(&name));
        let subnet = match existing {
            Some(network) => {
                let subnet = self.check_network(network).map_err(failed)?;
                self.check_number(subnet, number).map_err(failed)?;
                subnet
            }
            None => {
                let subnet = self.choose_subnet(&all, ip, number).map_err(failed)?;
                check_address(subnet, ip).map_err(failed)?;
                self.make_network(environment, &name, subnet).await?;
                subnet
            }
        };
        check_address(subnet, ip).map_err(failed)?;
        let has_dns = self.join_parts(&name, subnet, &parts).await?;
        let dns = self.config.dns.or(has_dns.then(|| IpAddr::V4(subnet.dns())));
        Ok(EnvironmentNetwork { name, subnet, dns })
    }

    /// Connects the parts to every environment network of this cluster: a part that was made anew (an upgrade) is in
    /// none of them.
    pub(crate) async fn join_all(&self) -> Result<(), ComputeError> {
        let _one_at_a_time = self.networks.lock().await;
        for network in self.list_networks().await? {
            let Ok(subnet) = self.check_network(&network) else { continue };
            if let Some(name) = &network.name {
                let parts = self.list_parts(name).await?;
                self.join_parts(name, subnet, &parts).await?;
            }
        }
        Ok(())
    }

    async fn list_networks(&self) -> Result<Vec<Network>, ComputeError> {
        let listed = self.docker.list_networks(None::<ListNetworksOptions>).await;
        listed.map_err(|error| self.fault(error, || "list networks".to_owned()))
    }

    fn check_network(&self, network: &Network) -> Result<EnvironmentSubnet, String> {
        let of = |name: &str| network.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
        if of(label::CLUSTER) != Some(self.config.cluster.as_str()) || of(label::ENVIRONMENT).is_none() {
            let owner = of(label::CLUSTER).map_or("no cluster".to_owned(), |cluster| format!("cluster {cluster}"));
            return Err(format!("a network of that name belongs to {owner}: remove it with `docker network rm`"));
        }
        let subnet = subnet_of(network).and_then(EnvironmentSubnet::of);
        subnet
            .ok_or_else(|| "its subnet is not the one the platform gave it: remove it to have it made anew".to_owned())
    }

    /// An environment's names are told to askers by their network, so it must be the recorded one.
    fn check_number(&self, subnet: EnvironmentSubnet, number: Option<u8>) -> Result<(), String> {
        let Some(number) = number else { return Ok(()) };
        let recorded = self.config.range.environment(number.into());
        if recorded == Some(subnet) {
            return Ok(());
        }
        let wanted = recorded.map_or_else(|| "outside the range".to_owned(), |subnet| subnet.subnet().to_string());
        Err(format!(
            "it is {} and should be {wanted}: stop the environment's apps and remove it with `docker network rm`",
            subnet.subnet()
        ))
    }

    fn choose_subnet(
        &self,
        all: &[Network],
        ip: Option<Ipv4Addr>,
        number: Option<u8>,
    ) -> Result<EnvironmentSubnet, String> {
        let range = self.config.range;
        let mut used: BTreeMap<Subnet, String> = route::of_this_machine();
        for network in all {
            let name = network.name.as_deref().unwrap_or("without a name");
            used.extend(subnets_of(network).map(|subnet| (subnet, format!("network {name}"))));
        }
        let user = |candidate: EnvironmentSubnet| {
            used.iter().find(|(subnet, _)| subnet.overlaps(candidate.subnet())).map(|(subnet, who)| (*subnet, who))
        };
        let chosen = match (number, ip) {
            (Some(number), _) => range.environment(number.into()),
            (None, Some(ip)) => range.environments().find(|candidate| candidate.subnet().contains(ip)),
            (None, None) => {
                return range.environments().find(|candidate| user(*candidate).is_none()).ok_or_else(|| {
                    format!(
                        "no part of the range {range} is free: give the cluster another range, or remove environments"
                    )
                });
            }
        };
        let chosen = chosen.ok_or_else(|| {
            let what = number.map_or_else(|| format!("{ip:?}"), |number| format!("network {number}"));
            format!("{what} is outside the cluster's range {range}")
        })?;
        match user(chosen) {
            None => Ok(chosen),
            Some((subnet, who)) => Err(format!(
                "{} overlaps with {subnet}, which is in use ({who}): give the cluster another range than {range}",
                chosen.subnet()
            )),
        }
    }

    async fn make_network(
        &self,
        environment: &EnvironmentName,
        name: &str,
        subnet: EnvironmentSubnet,
    ) -> Result<(), ComputeError> {
        let mut labels = self.own_labels();
        labels.insert(label::ENVIRONMENT.to_owned(), environment.to_string());
        let config = IpamConfig {
            subnet: Some(subnet.subnet().to_string()),
            ip_range: Some(subnet.dynamic().to_string()),
            gateway: Some(subnet.gateway().to_string()),
            auxiliary_addresses: None,
        };
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam { driver: None, config: Some(vec![config]), options: None }),
            labels: Some(labels.into_iter().collect()),
            ..NetworkCreateRequest::default()
        };
        let made = self.docker.create_network(request).await;
        made.map_err(|error| self.fault(error, || format!("make network {name} with {}", subnet.subnet())))?;
        tracing::info!(network = name, subnet = %subnet.subnet(), "network made");
        Ok(())
    }

    /// Answers whether a dns is there.
    async fn join_parts(&self, network: &str, subnet: EnvironmentSubnet, parts: &[Part]) -> Result<bool, ComputeError> {
        for (container, address) in plan_joins(subnet, parts) {
            let ipam = EndpointIpamConfig { ipv4_address: Some(address.to_string()), ..EndpointIpamConfig::default() };
            let endpoint_config = Some(EndpointSettings { ipam_config: Some(ipam), ..EndpointSettings::default() });
            let request = NetworkConnectRequest { container: container.clone(), endpoint_config };
            match self.docker.connect_network(network, request).await {
                Ok(()) => tracing::info!(network, container, %address, "part connected"),
                // Gone meanwhile, or connected by another: the next look sees it.
                Err(error) if fault::is_missing(&error) || error.to_string().contains("already exists in network") => {}
                Err(error) => {
                    return Err(self.fault(error, || format!("connect {container} to {network} as {address}")));
                }
            }
        }
        Ok(parts.iter().any(|part| part.part == "dns"))
    }

    async fn list_parts(&self, network: &str) -> Result<Vec<Part>, ComputeError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some([("label".to_owned(), vec![labels::PART.to_owned()])].into()),
            ..ListContainersOptions::default()
        };
        let listed = self.docker.list_containers(Some(options)).await;
        let listed = listed.map_err(|error| self.fault(error, || "list the platform's parts".to_owned()))?;
        Ok(listed.iter().filter_map(|container| self.part(container, network)).collect())
    }

    /// Ours by cluster label, or by belonging to the project that this controller belongs to.
    fn part(&self, container: &ContainerSummary, network: &str) -> Option<Part> {
        use ContainerSummaryStateEnum as State;
        let labels = container.labels.as_ref()?;
        let of = |name: &str| labels.get(name).map(String::as_str);
        let ours = of(label::CLUSTER) == Some(self.config.cluster.as_str())
            || [labels::PROJECT, COMPOSE_PROJECT].iter().any(|name| of(name) == Some(self.project()));
        let alive =
            matches!(container.state, Some(State::CREATED | State::RUNNING | State::PAUSED | State::RESTARTING));
        if !ours || !alive {
            return None;
        }
        let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        let here = networks.and_then(|networks| networks.get(network)).map(|endpoint| {
            let fixed = endpoint.ipam_config.as_ref().and_then(|ipam| ipam.ipv4_address.as_deref());
            let shown = endpoint.ip_address.as_deref().filter(|text| !text.is_empty());
            shown.or(fixed).and_then(|text| text.parse().ok())
        });
        Some(Part {
            container: container.id.clone()?,
            name: container.names.iter().flatten().next().cloned().unwrap_or_default(),
            part: of(labels::PART)?.to_owned(),
            here,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, part: &str, here: Option<&str>) -> Part {
        let here = here.map(|text| Some(text.parse().expect("an address")));
        Part { container: name.to_owned(), name: name.to_owned(), part: part.to_owned(), here }
    }

    fn check(parts: &[Part], expect: &[(&str, &str)]) {
        let range: Subnet = "10.210.0.0/16".parse().expect("a range");
        let joins = plan_joins(range.environment(0).expect("the first"), parts);
        let joins: Vec<(String, String)> = joins.into_iter().map(|(name, at)| (name, at.to_string())).collect();
        let expect: Vec<(String, String)> =
            expect.iter().map(|(name, at)| ((*name).to_owned(), (*at).to_owned())).collect();
        assert_eq!(joins, expect);
    }

    #[test]
    fn parts_get_their_places() {
        check(
            &[part("r", "repository", None), part("l2", "lb", None), part("d", "dns", None), part("l1", "lb", None)],
            &[("d", "10.210.0.3"), ("l1", "10.210.0.2"), ("l2", "10.210.0.5"), ("r", "10.210.0.4")],
        );
    }

    #[test]
    fn what_is_connected_stays_and_its_place_is_not_given_twice() {
        check(&[part("l1", "lb", Some("10.210.0.2")), part("d", "dns", Some("10.210.0.3"))], &[]);
        check(&[part("l2", "lb", Some("10.210.0.2")), part("l1", "lb", None)], &[("l1", "10.210.0.5")]);
        check(&[part("d1", "dns", Some("10.210.0.3")), part("d2", "dns", None)], &[]);
        check(&[part("c", "controller", None)], &[]);
    }
}
