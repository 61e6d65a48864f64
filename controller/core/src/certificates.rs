//! Certificates: which are shown for an app's hosts, which the local authority is to make, and when. Pure: whoever reads
//! and makes certificates says here what is in them.
//!
//! Owns the choice. Refuses to look into a certificate: names and times come in as data.

use std::collections::{BTreeMap, BTreeSet};

use appbase_core::v1::{Certificate, Route};
use appbase_core::{Digest, ReleaseNumber, SectionKey};

use crate::acme::text_name;
use crate::app_file::check_host;
use crate::v1::state::{AcmeRecord, AuthorityRecord, CertificateRecord, ReleaseRecord, Run};

/// A name that leads to the machine itself everywhere (RFC 6761): the local authority is for it whatever the domain.
pub const LOCALHOST: &str = "localhost";
/// Names in one certificate of the local authority: more make every handshake longer.
pub const LOCAL_NAMES_MAX: usize = 100;
/// Of uploaded certificates with their keys in all sections of a table: each section has its own, and lb holds the table
/// several times while it takes the next one.
pub const SHOWN_BYTES_MAX: usize = 32 << 20;
/// People are warned this long before a certificate ends.
pub const WARN_MS: u64 = 14 * DAY_MS;
/// The local authority is replaced this long before its end: what it signs ends before it does.
const AUTHORITY_REST_MS: u64 = 100 * DAY_MS;
/// One that begins later than this was made while the clock was ahead, and nobody takes it until then. What is less passes
/// by itself, and an authority is worth a wait: people have to trust the next one.
const AUTHORITY_AHEAD_MS: u64 = DAY_MS;
const DAY_MS: u64 = 86_400_000;
/// Of the digest in an id.
const ID_HEX: usize = 8;

/// The first label, and the rest without its dot.
fn split(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}

/// What is in the domain or is the domain.
pub(crate) fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The certificates that people uploaded, by id, found by name.
#[derive(Debug, Clone, Default)]
pub struct Uploaded {
    records: BTreeMap<String, CertificateRecord>,
    /// (domain, first label) → ids.
    by_name: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Uploaded {
    pub fn insert(&mut self, id: String, record: CertificateRecord) {
        self.remove(&id);
        for name in &record.certificate.names {
            self.by_name.entry(place(name)).or_default().insert(id.clone());
        }
        self.records.insert(id, record);
    }

    pub fn remove(&mut self, id: &str) {
        let Some(record) = self.records.remove(id) else { return };
        for name in &record.certificate.names {
            let place = place(name);
            let ids = self.by_name.get_mut(&place);
            if ids.is_some_and(|ids| ids.remove(id) && ids.is_empty()) {
                self.by_name.remove(&place);
            }
        }
    }

    pub fn records(&self) -> &BTreeMap<String, CertificateRecord> {
        &self.records
    }

    /// Whether one of them is good for all of `host`.
    pub(crate) fn covers(&self, host: &str) -> bool {
        let (label, domain) = split(host);
        let has = |label: &str| self.by_name.contains_key(&(domain.to_owned(), label.to_owned()));
        has(label) || (!domain.is_empty() && has("*"))
    }

    /// Those good for all of `host` or, where it begins with `*.`, for some of it.
    fn for_host(&self, host: &str) -> BTreeSet<&str> {
        let (label, domain) = split(host);
        let at = |label: &str| self.by_name.get(&(domain.to_owned(), label.to_owned()));
        let ids: Vec<&BTreeSet<String>> = if label == "*" {
            let below = self.by_name.range((domain.to_owned(), String::new())..);
            below.take_while(|((other, _), _)| other == domain).map(|(_, ids)| ids).collect()
        } else {
            let wild = (!domain.is_empty()).then(|| at("*")).flatten();
            at(label).into_iter().chain(wild).collect()
        };
        ids.into_iter().flatten().map(String::as_str).collect()
    }
}

fn place(name: &str) -> (String, String) {
    let (label, domain) = split(name);
    (domain.to_owned(), label.to_owned())
}

/// What there is to show for one app in one environment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offer<'a> {
    pub uploaded: Option<&'a Uploaded>,
    /// The local authority's, for this app in this environment.
    pub local: Option<&'a CertificateRecord>,
    /// By host, what authorities of the world made or are asked for.
    pub acme: Option<&'a BTreeMap<String, AcmeRecord>>,
}

impl Offer<'_> {
    /// Ids of the uploaded ones that are shown for these routes, the one that lasts longest first. A route for every
    /// host shows all.
    pub fn chosen(&self, routes: &[Route]) -> Vec<&str> {
        let Some(uploaded) = self.uploaded.filter(|uploaded| !uploaded.records.is_empty()) else { return Vec::new() };
        let mut ids: BTreeSet<&str> = BTreeSet::new();
        if routes.iter().any(|route| route.host.is_none()) {
            ids.extend(uploaded.records.keys().map(String::as_str));
        } else {
            ids.extend(hosts(routes).into_iter().flat_map(|host| uploaded.for_host(host)));
        }
        let mut ids: Vec<&str> = ids.into_iter().collect();
        ids.sort_by_key(|id| (std::cmp::Reverse(uploaded.records[*id].until_unix_ms), *id));
        ids
    }

    /// What the uploaded ones weigh that are shown for these routes.
    pub fn uploaded_bytes(&self, routes: &[Route]) -> usize {
        let record = |id| self.uploaded.and_then(|uploaded| uploaded.records.get(id));
        self.chosen(routes).into_iter().filter_map(record).map(|record| record.certificate.bytes()).sum()
    }

    /// Names of the local one that nothing uploaded covers.
    fn local_names(&self, routes: &[Route]) -> BTreeSet<String> {
        let Some(local) = self.local else { return BTreeSet::new() };
        let covered = |host: &str| self.uploaded.is_some_and(|uploaded| uploaded.covers(host));
        let own = hosts(routes).into_iter().filter(|host| local.certificate.names.contains(*host) && !covered(host));
        own.map(str::to_owned).collect()
    }

    pub fn shows_local(&self, routes: &[Route]) -> bool {
        !self.local_names(routes).is_empty()
    }

    fn acme(&self, routes: &[Route]) -> impl Iterator<Item = (String, &AcmeRecord)> {
        let own: BTreeSet<&str> = routes.iter().filter_map(|route| route.host.as_deref()).collect();
        own.into_iter().filter_map(|host| Some((host.to_owned(), self.acme?.get(host)?)))
    }

    /// Hosts of these routes for which a certificate of an authority of the world is shown: nothing uploaded covers them.
    pub fn acme_hosts(&self, routes: &[Route]) -> Vec<String> {
        let covered = |host: &str| self.uploaded.is_some_and(|uploaded| uploaded.covers(host));
        let got = self.acme(routes).filter(|(host, record)| record.certificate.is_some() && !covered(host));
        got.map(|(host, _)| host).collect()
    }

    /// What lb answers those authorities for the hosts of these routes.
    pub fn challenges(&self, routes: &[Route]) -> BTreeMap<String, String> {
        let orders = self.acme(routes).filter_map(|(_, record)| record.order.as_ref());
        orders.flat_map(|order| order.challenges.clone()).collect()
    }

    /// What dns answers them: name → texts.
    pub fn texts(&self, routes: &[Route]) -> BTreeMap<String, BTreeSet<String>> {
        let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (host, record) in self.acme(routes) {
            let own = record.order.iter().flat_map(|order| &order.texts).cloned();
            let mut own = own.peekable();
            if own.peek().is_some() {
                // A host and the wildcard below it are shown at one name.
                texts.entry(text_name(&host)).or_default().extend(own);
            }
        }
        texts
    }

    /// What lb shows them in a handshake.
    pub fn handshakes(&self, routes: &[Route]) -> Vec<Certificate> {
        self.acme(routes).filter_map(|(_, record)| record.order.as_ref()?.handshake.clone()).collect()
    }

    /// What lb is given for these routes: uploaded first, local last, since of two for one name the first is taken.
    pub fn shown(&self, routes: &[Route]) -> Vec<Certificate> {
        let ids = self.chosen(routes).into_iter();
        let records = ids.filter_map(|id| self.uploaded?.records.get(id));
        let mut shown: Vec<Certificate> = records.map(|record| record.certificate.clone()).collect();
        for host in self.acme_hosts(routes) {
            let record = self.acme.and_then(|records| records.get(&host));
            shown.extend(record.and_then(|record| Some(record.certificate.as_ref()?.certificate.clone())));
        }
        let names = self.local_names(routes);
        if let Some(local) = self.local.filter(|_| !names.is_empty()) {
            shown.push(Certificate { names, ..local.certificate.clone() });
        }
        shown
    }
}

/// Every host is `localhost` as well: that is what people type on the machine itself.
fn hosts(routes: &[Route]) -> BTreeSet<&str> {
    routes.iter().map(|route| route.host.as_deref().unwrap_or(LOCALHOST)).collect()
}

/// The domains of the local authority.
pub fn local_domains(domain: &str) -> BTreeSet<String> {
    BTreeSet::from([LOCALHOST.to_owned(), domain.to_owned()])
}

/// Whether a new authority is to be made: none is there, it is for other domains, it ends, or it is dated in the future.
pub fn is_authority_due(authority: Option<&AuthorityRecord>, domain: &str, now_unix_ms: u64) -> bool {
    authority.is_none_or(|authority| {
        authority.domains != local_domains(domain)
            || authority.until_unix_ms < now_unix_ms + AUTHORITY_REST_MS
            || authority.from_unix_ms > now_unix_ms + AUTHORITY_AHEAD_MS
    })
}

/// The names of a certificate of the local authority for one app, and how many found no place in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalNames {
    pub names: BTreeSet<String>,
    pub left_out: usize,
}

/// Hosts of all releases in a slot, so that neither a flip nor a rollback waits for a certificate.
pub fn local_names(
    run: &Run,
    releases: &BTreeMap<ReleaseNumber, ReleaseRecord>,
    domains: &BTreeSet<String>,
) -> LocalNames {
    let records = run.slots.values().filter_map(|number| releases.get(number));
    let hosts = records.flat_map(|record| hosts(&record.release.traffic.routes));
    let own = |host: &&str| domains.iter().any(|domain| is_below(host, domain)) && check_host(host).is_ok();
    let all: BTreeSet<&str> = hosts.filter(own).collect();
    LocalNames {
        names: all.iter().take(LOCAL_NAMES_MAX).map(|host| (*host).to_owned()).collect(),
        left_out: all.len().saturating_sub(LOCAL_NAMES_MAX),
    }
}

/// What the local authority is to do for one app in one environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// A certificate for these names, in place of the one that is there.
    Issue(BTreeSet<String>),
    /// It has no name left that the authority is for.
    Forget,
}

/// A certificate is made when there is none, when its names or its authority changed, when two thirds of its life are
/// over, and when it is dated in the future, since the clock was once ahead; never otherwise, so that the same records give the same table.
pub fn due(
    leaf: Option<&CertificateRecord>,
    names: &BTreeSet<String>,
    authority: &Digest,
    now_unix_ms: u64,
) -> Option<Due> {
    let fits = |leaf: &CertificateRecord| {
        leaf.certificate.names == *names && leaf.authority.as_ref() == Some(authority) && !is_aging(leaf, now_unix_ms)
    };
    match leaf {
        _ if names.is_empty() => leaf.map(|_| Due::Forget),
        Some(leaf) if fits(leaf) => None,
        _ => Some(Due::Issue(names.clone())),
    }
}

fn is_aging(record: &CertificateRecord, now_unix_ms: u64) -> bool {
    now_unix_ms >= renewal(record) || record.from_unix_ms > now_unix_ms
}

/// When two thirds of its life are over.
pub(crate) fn renewal(record: &CertificateRecord) -> u64 {
    let life = record.until_unix_ms.saturating_sub(record.from_unix_ms);
    record.from_unix_ms + life / 3 * 2
}

/// Whether people are to be told that it ends.
pub fn ends_soon(until_unix_ms: u64, now_unix_ms: u64) -> bool {
    until_unix_ms < now_unix_ms.saturating_add(WARN_MS)
}

/// Whether people are to be told that one which is renewed by itself was not: half of the time that is left for that is
/// over, or it ends as soon as others are told of.
pub fn is_overdue(record: &CertificateRecord, now_unix_ms: u64) -> bool {
    let life = record.until_unix_ms.saturating_sub(record.from_unix_ms);
    record.until_unix_ms < now_unix_ms.saturating_add(WARN_MS.min(life / 6))
}

/// The id of an uploaded certificate: its first exact name and a part of the digest of all. Whoever uploads one with the
/// same names replaces it.
pub fn id(names: &BTreeSet<String>) -> String {
    let first = names.iter().find(|name| !name.starts_with("*.")).or(names.first());
    let first = first.map_or("none", String::as_str).replacen('*', "wildcard", 1);
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    format!("{first}-{}", &Digest::of(all.join(" ").as_bytes()).hex()[..ID_HEX])
}

/// The routes whose hosts need certificates now.
pub fn live_routes<'a>(run: &Run, releases: &'a BTreeMap<ReleaseNumber, ReleaseRecord>) -> &'a [Route] {
    let live = crate::render::live_release(run).and_then(|live| releases.get(&live));
    live.map_or(&[], |record| record.release.traffic.routes.as_slice())
}

/// The id of what the local authority made for an app, as people see it. No uploaded one has a `:` in its own.
pub fn local_id(key: &SectionKey) -> String {
    format!("local:{key}")
}

#[cfg(test)]
mod tests;
