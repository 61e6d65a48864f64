//! Table: the route table in its checked form. A value of this type has no conflicts and nothing to look up twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use appbase_core::v1::{Certificate, Probe};
use appbase_core::{Digest, InstanceId, ProcessName, ReleaseNumber, SectionKey};

use crate::rule::{self, Rule};
use crate::v1::{PoolInstance, RouteSection};
use crate::{cohort, host};

/// Why a table is refused. Nothing of it is used then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("section {key} is not of an app: a route table has sections of apps only")]
    NotAnApp { key: SectionKey },
    #[error("section {key} says it is {says}: both must be the same")]
    OtherKey { key: SectionKey, says: SectionKey },
    #[error("route {route} is of {first} and of {second}: take it from one of them")]
    RouteConflict { route: String, first: SectionKey, second: SectionKey },
    #[error(
        "route of {key} has host \"{host}\", which is not a name: give example.org, *.example.org for one more label, or none"
    )]
    RouteHost { key: SectionKey, host: String },
    #[error("route of {key}: {reason}")]
    Route { key: SectionKey, reason: String },
    #[error("instance {instance} stands in {first} and in {second}: it can be in one pool only")]
    InstanceTwice { instance: InstanceId, first: String, second: String },
    #[error("instance {instance} of {key} is of process {process}, which has no probe in release {release}: add one")]
    NoProbe { key: SectionKey, instance: InstanceId, process: ProcessName, release: ReleaseNumber },
    #[error("cohort {number} of {key}: {reason}")]
    Cohort { key: SectionKey, number: usize, reason: String },
    #[error("{what} of {key}: {reason}")]
    Move { key: SectionKey, what: &'static str, reason: String },
    #[error("tls of {key}: {reason}")]
    Tls { key: SectionKey, reason: String },
    #[error("probe of process {process} in release {release} of {key}: {reason}")]
    Probe { key: SectionKey, process: ProcessName, release: ReleaseNumber, reason: &'static str },
}

/// What one app in one environment published, under its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub key: SectionKey,
    pub published: RouteSection,
    /// The notice as it stands in a header: percent-encoded.
    pub notice: Option<Arc<str>>,
}

impl Section {
    pub(crate) fn new(key: &SectionKey, published: &RouteSection) -> Self {
        let notice = published.notice.as_deref().map(|notice| percent_encoded(notice).into());
        Self { key: key.clone(), published: published.clone(), notice }
    }

    /// Whether some requests get this release whatever its weight is.
    pub fn addresses(&self, release: ReleaseNumber) -> bool {
        let RouteSection { cohorts, preview, mirror, .. } = &self.published;
        cohorts.iter().any(|cohort| cohort.release == release)
            || mirror.is_some_and(|mirror| mirror.release == release)
            || preview.as_ref().is_some_and(|preview| preview.slots.values().any(|shown| *shown == release))
    }
}

/// As in a URL: whatever is no letter, digit, `-`, `.`, `_` or `~`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// A sound table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub(crate) exact: BTreeMap<String, Vec<Arc<Rule>>>,
    /// By the domain after `*.`.
    pub(crate) wildcard: BTreeMap<String, Vec<Arc<Rule>>>,
    pub(crate) any: Vec<Arc<Rule>>,
    /// By the SHA-256 of their secret.
    pub(crate) previews: BTreeMap<Digest, Arc<Section>>,
    /// Of sections with a preview, whatever the host: the most special first.
    previewed: BTreeMap<SectionKey, Vec<Arc<Rule>>>,
    sections: BTreeMap<SectionKey, Arc<Section>>,
    /// By token, the sections that answer it.
    pub(crate) challenges: BTreeMap<String, Vec<Arc<Section>>>,
}

impl Table {
    /// Checks everything; the first thing wrong is the error.
    pub fn new(sections: &BTreeMap<SectionKey, RouteSection>) -> Result<Self, TableError> {
        let mut table = Self::default();
        let mut seen = BTreeMap::new();
        for (key, published) in sections {
            check_key(key, published)?;
            check_pools(key, published, &mut seen)?;
            check_moves(key, published)?;
            check_tls(published).map_err(|reason| TableError::Tls { key: key.clone(), reason })?;
            let section = Arc::new(Section::new(key, published));
            table.add_routes(&section)?;
            table.add_preview(&section)?;
            for token in published.tls.challenges.keys() {
                table.challenges.entry(token.clone()).or_default().push(Arc::clone(&section));
            }
            table.sections.insert(key.clone(), section);
        }
        let Self { exact, wildcard, any, previewed, .. } = &mut table;
        for rules in exact.values_mut().chain(wildcard.values_mut()).chain(previewed.values_mut()).chain([any]) {
            rules.sort_by_cached_key(|rule| rule.rank());
        }
        Ok(table)
    }

    pub fn sections(&self) -> impl Iterator<Item = &Arc<Section>> {
        self.sections.values()
    }

    pub fn section(&self, key: &SectionKey) -> Option<&Arc<Section>> {
        self.sections.get(key)
    }

    fn add_routes(&mut self, section: &Arc<Section>) -> Result<(), TableError> {
        for published in &section.published.routes {
            rule::check(published).map_err(|reason| TableError::Route { key: section.key.clone(), reason })?;
            let rules = self.rules_of(&section.key, published.host.as_deref())?;
            let mut route = published.clone();
            route.host = route.host.map(|host| host.to_ascii_lowercase());
            if route.path.len() > 1 && !route.exact {
                route.path.truncate(route.path.trim_end_matches('/').len());
            }
            if let Some(other) = rules.iter().find(|rule| rule.route.is_for_the_same(&route)) {
                let (first, second) = (other.section.key.clone(), section.key.clone());
                let route = format!("{}{}", route.host.as_deref().unwrap_or("(every host)"), route.path);
                return Err(TableError::RouteConflict { route, first, second });
            }
            let rule = Arc::new(Rule::new(route, section));
            rules.push(Arc::clone(&rule));
            // One that leads to another host would lead out of the preview.
            let leads_away = rule.route.redirect.as_ref().is_some_and(|redirect| !redirect.to.starts_with('/'));
            if section.published.preview.is_some() && !leads_away {
                self.previewed.entry(section.key.clone()).or_default().push(rule);
            }
        }
        Ok(())
    }

    fn add_preview(&mut self, section: &Arc<Section>) -> Result<(), TableError> {
        let Some(preview) = &section.published.preview else { return Ok(()) };
        match self.previews.insert(preview.secret, Arc::clone(section)) {
            None => Ok(()),
            Some(other) => Err(TableError::Move {
                key: section.key.clone(),
                what: "preview",
                reason: format!("its secret is that of {}", other.key),
            }),
        }
    }

    /// The rules of a section with a preview, whatever the host.
    pub fn previewed(&self, key: &SectionKey) -> &[Arc<Rule>] {
        self.previewed.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn has_previews(&self) -> bool {
        !self.previews.is_empty()
    }

    /// The list a route belongs to, by its kind of host.
    fn rules_of(&mut self, key: &SectionKey, host: Option<&str>) -> Result<&mut Vec<Arc<Rule>>, TableError> {
        let Some(text) = host else { return Ok(&mut self.any) };
        let bad = || TableError::RouteHost { key: key.clone(), host: text.to_owned() };
        if let Some(domain) = text.strip_prefix("*.") {
            if !host::is_name(domain) {
                return Err(bad());
            }
            return Ok(self.wildcard.entry(domain.to_ascii_lowercase()).or_default());
        }
        let canonical = host::canonical(text).map_err(|_| bad())?;
        if canonical.len() != text.len() {
            // A port or a dot at the end: such a route would match less than its author thinks.
            return Err(bad());
        }
        Ok(self.exact.entry(canonical).or_default())
    }
}

fn check_key(key: &SectionKey, published: &RouteSection) -> Result<(), TableError> {
    if *key == SectionKey::Platform {
        return Err(TableError::NotAnApp { key: key.clone() });
    }
    let says = SectionKey::app(&published.environment, &published.app);
    if says != *key {
        return Err(TableError::OtherKey { key: key.clone(), says });
    }
    Ok(())
}

/// A notice is a line of text.
const NOTICE_BYTES_MAX: usize = 512;

fn check_moves(key: &SectionKey, published: &RouteSection) -> Result<(), TableError> {
    let wrong = |what, reason: String| Err(TableError::Move { key: key.clone(), what, reason });
    for (number, cohort) in (1..).zip(&published.cohorts) {
        cohort::check(&cohort.conditions).map_err(|reason| TableError::Cohort { key: key.clone(), number, reason })?;
    }
    if published.cohorts.len() > cohort::COHORTS_MAX {
        return wrong("cohorts", format!("at most {}", cohort::COHORTS_MAX));
    }
    if published.mirror.is_some_and(|mirror| !(1..=100).contains(&mirror.percent)) {
        return wrong("mirror", "its percent must be from 1 to 100".to_owned());
    }
    check_notice(published.notice.as_deref().unwrap_or_default()).or_else(|reason| wrong("notice", reason))
}

/// What the certificates themselves say is not looked at here.
fn check_tls(published: &RouteSection) -> Result<(), String> {
    for Certificate { names, .. } in &published.tls.certificates {
        if names.is_empty() {
            return Err("a certificate has no names: give those it is shown for".to_owned());
        }
        let is_lower = |name: &str| !name.bytes().any(|byte| byte.is_ascii_uppercase());
        let is_name = |name: &&String| is_lower(name) && host::is_name(name.strip_prefix("*.").unwrap_or(name));
        if let Some(name) = names.iter().find(|name| !is_name(name)) {
            return Err(format!(
                "\"{name}\" is no name of a certificate: give example.org or *.example.org, lower case"
            ));
        }
    }
    Ok(())
}

/// Why it cannot be used.
pub fn check_notice(notice: &str) -> Result<(), String> {
    match notice.len() > NOTICE_BYTES_MAX || notice.chars().any(char::is_control) {
        true => Err(format!("a notice is one line of at most {NOTICE_BYTES_MAX} bytes")),
        false => Ok(()),
    }
}

fn check_pools(
    key: &SectionKey,
    published: &RouteSection,
    seen: &mut BTreeMap<InstanceId, String>,
) -> Result<(), TableError> {
    for (&release, pool) in &published.pools {
        for (process, probe) in &pool.probes {
            check_probe(probe).map_err(|reason| TableError::Probe {
                key: key.clone(),
                process: process.clone(),
                release,
                reason,
            })?;
        }
        for (instance, PoolInstance { process, .. }) in &pool.instances {
            if !pool.probes.contains_key(process) {
                let (instance, process) = (instance.clone(), process.clone());
                return Err(TableError::NoProbe { key: key.clone(), instance, process, release });
            }
            let place = format!("release {release} of {key}");
            if let Some(first) = seen.insert(instance.clone(), place.clone()) {
                return Err(TableError::InstanceTwice { instance: instance.clone(), first, second: place });
            }
        }
    }
    Ok(())
}

fn check_probe(probe: &Probe) -> Result<(), &'static str> {
    if probe.interval_ms == 0 || probe.timeout_ms == 0 {
        return Err("its interval and its timeout must be more than 0 ms");
    }
    if probe.rise == 0 || probe.fall == 0 {
        return Err("its rise and its fall must be at least 1");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use appbase_core::v1::{Route, Tls};
    use appbase_core::{AppName, EnvironmentName};

    use super::*;
    use crate::v1::{Cohort, Drain, InstanceState, Mirror, Pool};

    /// A section with one route per (host, path) and one active instance in release 1.
    pub(crate) fn section(app: &str, routes: &[(Option<&str>, &str)]) -> (SectionKey, RouteSection) {
        let app = AppName::parse(app).expect("a name");
        let environment = EnvironmentName::default_name();
        let web = ProcessName::default_name();
        let route = |(host, path): &(Option<&str>, &str)| {
            Route::new(host.map(str::to_owned), *path, ProcessName::default_name())
        };
        let instance = PoolInstance {
            process: web.clone(),
            address: "127.0.0.1:1".parse().expect("an address"),
            state: InstanceState::Active,
        };
        let id = InstanceId::parse(&format!("{app}-1")).expect("a name");
        let pool = Pool {
            weight: 1,
            probes: BTreeMap::from([(web, Probe::default())]),
            balance: BTreeMap::new(),
            protocols: BTreeMap::new(),
            instances: BTreeMap::from([(id, instance)]),
        };
        let key = SectionKey::app(&environment, &app);
        let section = RouteSection {
            environment,
            app,
            live: Some(1),
            routes: routes.iter().map(route).collect(),
            pools: BTreeMap::from([(1, pool)]),
            hold: false,
            maintenance: None,
            drain: Drain { requests_ms: 1000, streams_ms: 1000 },
            cohorts: Vec::new(),
            preview: None,
            mirror: None,
            notice: None,
            tls: Tls::default(),
        };
        (key, section)
    }

    #[test]
    fn certificates_are_for_names() {
        for (names, sound) in [
            (&["a.example", "*.a.example"][..], true),
            (&[], false),
            (&["A.example"], false),
            (&["*"], false),
            (&["a.*.example"], false),
            (&["*.*.example"], false),
            (&["a.example."], false),
        ] {
            let (key, mut published) = section("one", &[]);
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let key_text = appbase_core::v1::PrivateKey(String::new());
            published.tls.certificates = vec![Certificate { names, chain: String::new(), key: key_text }];
            assert_eq!(Table::new(&BTreeMap::from([(key, published)])).is_ok(), sound);
        }
    }

    #[test]
    fn conflicts_name_both_apps() {
        for (one, two) in [
            ((Some("a.example"), "/"), (Some("A.example"), "/")),
            ((Some("*.example"), "/x"), (Some("*.EXAMPLE"), "/x/")),
            ((None, "/"), (None, "/")),
        ] {
            let error = Table::new(&BTreeMap::from([section("one", &[one]), section("two", &[two])]));
            let text = error.expect_err("a conflict").to_string();
            assert!(text.contains("production/one") && text.contains("production/two"), "{text}");
        }
        let sound = BTreeMap::from([section("one", &[(None, "/")]), section("two", &[(Some("a.example"), "/")])]);
        assert!(Table::new(&sound).is_ok());
    }

    #[test]
    fn unsound_tables_are_refused_with_what_and_where() {
        let refused = |change: fn(&mut RouteSection), word: &str| {
            let (key, mut published) = section("one", &[(None, "/")]);
            change(&mut published);
            let text = Table::new(&BTreeMap::from([(key, published)])).expect_err(word).to_string();
            assert!(text.contains(word), "{text}");
        };
        refused(|section| section.app = AppName::parse("other").expect("a name"), "production/other");
        refused(|section| section.routes[0].path = "/a/../b".to_owned(), "segment");
        refused(|section| section.routes[0].path = "/a//b".to_owned(), "write it as /a/b");
        refused(|section| section.routes[0].host = Some("a.example:80".to_owned()), "a.example:80");
        refused(|section| section.routes[0].host = Some("*".to_owned()), "\"*\"");
        refused(|section| pool(section).probes.clear(), "no probe");
        refused(|section| probe(section).rise = 0, "rise");
        refused(|section| section.mirror = Some(Mirror { release: 1, percent: 101 }), "percent");
        refused(|section| section.notice = Some("two\nlines".to_owned()), "notice");
        refused(|section| section.cohorts.push(Cohort::default()), "cohort 1");
        refused(|section| drop(section.pools.insert(2, section.pools[&1].clone())), "one-1");

        let (_, published) = section("one", &[]);
        assert!(Table::new(&BTreeMap::from([(SectionKey::Platform, published)])).is_err());
    }

    fn pool(section: &mut RouteSection) -> &mut Pool {
        section.pools.get_mut(&1).expect("release 1")
    }

    fn probe(section: &mut RouteSection) -> &mut Probe {
        pool(section).probes.values_mut().next().expect("a probe")
    }
}
