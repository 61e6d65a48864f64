//! From sections to views: which names exist and what stands there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use appbase_core::{Prefix, ProcessName, SectionKey};

use super::view::{Node, View};
use super::{NODES_MAX, Table, TableError, VIEWS_MAX, private};
use crate::name::{Name, NameError, suffix_at};
use crate::record::{self, RecordSet, rtype};
use crate::v1::{self, AppNames, NameSection, NamedInstance, PlatformNames};

/// Octets of the domain on the wire: leaves room for the longest name of an instance below it.
const DOMAIN_BYTES_MAX: usize = 120;
/// A TTL above a week is a mistake.
const TTL_SECONDS_MAX: u64 = 604_800;
/// What `dns-version.<domain>` says: the version of this scheme of names.
const SCHEME_VERSION: &str = "1";

pub(super) fn table(sections: &BTreeMap<SectionKey, NameSection>) -> Result<Table, TableError> {
    let Some(NameSection::Platform(platform)) = sections.get(&SectionKey::Platform) else {
        return Err(TableError::NoPlatform);
    };
    let apps = apps(sections)?;
    check_level(platform, &apps)?;
    if platform.views.len() > VIEWS_MAX {
        return Err(TableError::Views { count: platform.views.len() });
    }
    let domain = domain(&platform.domain)?;
    let views =
        platform.views.iter().map(|view| build_view(platform, &domain, view, &apps)).collect::<Result<_, _>>()?;
    let live = apps.iter().filter_map(|(key, app)| Some(((*key).clone(), app.live?))).collect();
    Ok(Table { views, live })
}

type Apps<'s> = Vec<(&'s SectionKey, &'s AppNames)>;

fn apps(sections: &BTreeMap<SectionKey, NameSection>) -> Result<Apps<'_>, TableError> {
    let mut apps = Vec::new();
    for (key, section) in sections {
        match section {
            NameSection::App(app) if *key == SectionKey::app(&app.environment, &app.app) => {
                check_instances(key, app)?;
                apps.push((key, app));
            }
            NameSection::App(app) => {
                let found = SectionKey::app(&app.environment, &app.app).to_string();
                return Err(TableError::Key { key: key.clone(), found });
            }
            NameSection::Platform(_) if *key == SectionKey::Platform => {}
            NameSection::Platform(_) => {
                return Err(TableError::Key { key: key.clone(), found: "the platform".to_owned() });
            }
        }
    }
    Ok(apps)
}

/// Two instances under one name would answer for one another.
fn check_instances(key: &SectionKey, app: &AppNames) -> Result<(), TableError> {
    let mut seen = BTreeSet::new();
    for instance in app.instances.values() {
        if !seen.insert((&instance.process, instance.release, instance.number)) {
            let process = instance.process.to_string();
            return Err(TableError::Twice { key: key.clone(), process, number: instance.number });
        }
    }
    Ok(())
}

/// Parts, apps and environments share the level below the domain.
fn check_level(platform: &PlatformNames, apps: &Apps<'_>) -> Result<(), TableError> {
    let environments: BTreeSet<&str> = apps.iter().map(|(_, app)| app.environment.as_str()).collect();
    let parts: BTreeSet<&str> = platform.views.iter().flat_map(|view| view.parts.keys().map(String::as_str)).collect();
    let collision = |name: &str, first, second| Err(TableError::Collision { name: name.to_owned(), first, second });
    for (_, app) in apps {
        let name = app.app.as_str();
        if environments.contains(name) {
            return collision(name, "an app", "an environment");
        }
        if parts.contains(name) {
            return collision(name, "an app", "a part of the platform");
        }
    }
    match environments.intersection(&parts).next() {
        Some(name) => collision(name, "an environment", "a part of the platform"),
        None => Ok(()),
    }
}

fn domain(text: &str) -> Result<Name, TableError> {
    let refused = |reason: String| TableError::Domain { domain: text.chars().take(280).collect(), reason };
    let domain = Name::parse(text).map_err(|error| refused(error.to_string()))?;
    if domain.wire().len() > DOMAIN_BYTES_MAX {
        return Err(refused(format!("it is longer than {DOMAIN_BYTES_MAX} octets")));
    }
    match private::refused_domain(&domain) {
        Some(reason) => Err(refused(reason.to_owned())),
        None => Ok(domain),
    }
}

fn build_view(platform: &PlatformNames, domain: &Name, view: &v1::View, apps: &Apps<'_>) -> Result<View, TableError> {
    let bad_source = |text: &String| TableError::Source { view: view.name.clone(), source_text: text.clone() };
    let sources = view.sources.iter().map(|text| Prefix::parse(text).ok_or_else(|| bad_source(text)));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let ttl = platform.ttl_ms.div_ceil(1000).min(TTL_SECONDS_MAX);
    let ttl = u32::try_from(ttl).expect("a week of seconds fits");

    let mut names = Names { nodes: BTreeMap::new() };
    let platform_key = |source| TableError::Name { key: SectionKey::Platform, source };
    let soa = names.platform(platform, domain, view, ttl).map_err(platform_key)?;
    let balancers = view.parts.get("lb").map_or(&[][..], Vec::as_slice);
    for (key, app) in apps {
        if view.environment.as_ref().is_none_or(|seen| *seen == app.environment) {
            names.app(domain, app, balancers).map_err(|source| TableError::Name { key: (*key).clone(), source })?;
        }
        if names.nodes.len() > NODES_MAX {
            return Err(TableError::TooLarge { view: view.name.clone() });
        }
    }
    Ok(View { sources, forward: view.forward, domain: domain.clone(), nodes: names.finish(domain), soa, ttl })
}

/// The nodes of one view while they are made.
struct Names {
    nodes: BTreeMap<Name, Node>,
}

impl Names {
    /// The apex, the parts, the version of the scheme, and, where all is seen, the servers. Answers the SOA's data.
    fn platform(
        &mut self,
        platform: &PlatformNames,
        domain: &Name,
        view: &v1::View,
        ttl: u32,
    ) -> Result<Vec<u8>, NameError> {
        let server = domain.child("dns")?;
        for apex in private::reverse_apexes() {
            self.node(apex);
        }
        self.add(domain, rtype::NS, server.wire().to_vec());
        self.add(&domain.child("dns-version")?, rtype::TXT, record::txt(SCHEME_VERSION));
        for (part, addresses) in &view.parts {
            self.addresses(&domain.child(part)?, addresses.iter().copied());
        }
        if view.environment.is_none() {
            for (name, addresses) in &platform.servers {
                let server = domain.child("core")?.child(name.as_str())?;
                self.addresses(&server, addresses.iter().copied());
            }
        }
        Ok(record::soa(&server, &domain.child("hostmaster")?, 1, ttl))
    }

    fn app(&mut self, domain: &Name, app: &AppNames, balancers: &[IpAddr]) -> Result<(), NameError> {
        let full = domain.child(app.environment.as_str())?.child(app.app.as_str())?;
        self.app_under(&full, app, balancers)?;
        if app.default_environment {
            self.app_under(&domain.child(app.app.as_str())?, app, balancers)?;
        }
        for (name, texts) in &app.texts {
            let name = Name::parse(name)?;
            texts.iter().for_each(|text| self.add(&name, rtype::TXT, record::txt(text)));
        }
        for instance in app.instances.values() {
            // On the process engine all instances share the loopback address: a name for it would be any of them.
            if !instance.address.is_loopback() && !instance.address.is_unspecified() {
                let name = instance_name(&full, instance)?;
                self.add(&Name::reverse(instance.address.to_canonical()), rtype::PTR, name.wire().to_vec());
            }
        }
        Ok(())
    }

    /// All names of an app below one of the names it has.
    fn app_under(&mut self, base: &Name, app: &AppNames, balancers: &[IpAddr]) -> Result<(), NameError> {
        if app.routed {
            self.addresses(base, balancers.iter().copied());
        } else {
            let active = app.instances.values().filter(|instance| instance.active);
            self.addresses(base, active.map(|instance| instance.address));
        }
        for instance in app.instances.values() {
            let version = base.child(&format!("v{}", instance.version.label()))?;
            self.addresses(&version, [instance.address]);
            let name = instance_name(base, instance)?;
            self.addresses(&name, [instance.address]);
            let Some(port) = instance.port else { continue };
            let web = instance.process == ProcessName::default_name();
            let services = [Some(format!("_{}", instance.process)), web.then(|| "_http".to_owned())];
            for service in services.into_iter().flatten() {
                let service = base.child("_tcp")?.child(&service)?;
                self.node(&service);
                if instance.active {
                    self.add(&service, rtype::SRV, record::srv(port, &name));
                }
            }
        }
        Ok(())
    }

    fn addresses(&mut self, name: &Name, addresses: impl IntoIterator<Item = IpAddr>) {
        self.node(name);
        for address in addresses {
            let (rtype, data) = record::address(address.to_canonical());
            self.add(name, rtype, data);
        }
    }

    fn add(&mut self, name: &Name, rtype: u16, data: Vec<u8>) {
        let node = self.node(name);
        match node.iter_mut().find(|set| set.rtype == rtype) {
            Some(set) => set.data.push(data),
            None => node.push(RecordSet { rtype, data: vec![data] }),
        }
    }

    fn node(&mut self, name: &Name) -> &mut Node {
        self.nodes.entry(name.clone()).or_default()
    }

    /// Sets in a fixed order without repeats, and the names in between that exist because something is below them.
    fn finish(mut self, domain: &Name) -> BTreeMap<Name, Node> {
        for set in self.nodes.values_mut().flatten() {
            set.data.sort_unstable();
            set.data.dedup();
        }
        let names: Vec<Name> = self.nodes.keys().cloned().collect();
        let ours = |name: &Name| {
            suffix_at(name.wire(), domain.wire()).is_some() || private::reverse_apex_at(name.wire()).is_some()
        };
        for name in names {
            let mut above = name.parent();
            while let Some(name) = above.filter(ours) {
                above = name.parent();
                self.nodes.entry(name).or_default();
            }
        }
        self.nodes
    }
}

/// `<n>.<process>.r<release>.<base>`.
fn instance_name(base: &Name, instance: &NamedInstance) -> Result<Name, NameError> {
    let release = base.child(&format!("r{}", instance.release))?;
    release.child(instance.process.as_str())?.child(&instance.number.to_string())
}
