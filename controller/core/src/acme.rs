//! ACME (RFC 8555): for which hosts certificates are asked for, which is next, and how long one waits after a failure. Pure.
//!
//! Owns the choice. Refuses wildcards, which need another kind of proof, and what the local authority is for.

use std::collections::{BTreeMap, BTreeSet};

use appbase_core::{ReleaseNumber, SectionKey};

use crate::app_file::check_host;
use crate::certificates::{Uploaded, is_below, live_routes, local_domains, renewal};
use crate::v1::state::{AcmeRecord, ReleaseRecord, Run};

/// Hosts of one app in one environment that certificates are asked for.
pub const APP_HOSTS_MAX: usize = 100;
/// Of all together.
pub const HOSTS_MAX: usize = 1000;
/// Orders that begin in one minute.
pub const ORDERS_PER_MINUTE: usize = 5;
/// A host that no live route has for so long loses what is kept for it.
pub const KEEP_MS: u64 = 30 * 24 * 3_600_000;
/// After the first failure; doubled with each.
const RETRY_FIRST_MS: u64 = 60_000;
const RETRY_MAX_MS: u64 = 6 * 3_600_000;

/// Hosts that want a certificate, with the apps that have a live route for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub hosts: BTreeMap<String, BTreeSet<SectionKey>>,
    /// How many found no place.
    pub left_out: usize,
    /// All that could have one, also those that found no place.
    pub live: BTreeSet<String>,
}

impl Wanted {
    pub fn of(
        runs: &BTreeMap<SectionKey, Run>,
        releases: &BTreeMap<SectionKey, BTreeMap<ReleaseNumber, ReleaseRecord>>,
        uploaded: &Uploaded,
        domain: &str,
    ) -> Self {
        let (mut wanted, none, own) = (Self::default(), BTreeMap::new(), local_domains(domain));
        for (key, run) in runs {
            let routes = live_routes(run, releases.get(key).unwrap_or(&none)).iter();
            let hosts: BTreeSet<&str> = routes
                .filter_map(|route| route.host.as_deref())
                .filter(|host| is_public(host, &own) && !uploaded.covers(host))
                .collect();
            wanted.left_out += hosts.len().saturating_sub(APP_HOSTS_MAX);
            wanted.live.extend(hosts.iter().map(|host| (*host).to_owned()));
            for host in hosts.into_iter().take(APP_HOSTS_MAX) {
                if wanted.hosts.len() < HOSTS_MAX || wanted.hosts.contains_key(host) {
                    wanted.hosts.entry(host.to_owned()).or_default().insert(key.clone());
                } else {
                    wanted.left_out += 1;
                }
            }
        }
        wanted
    }
}

/// Whether an authority of the world could sign it, and this one proof is enough: a name with a dot and no wildcard that
/// is no address and none of the platform's own.
fn is_public(host: &str, own: &BTreeSet<String>) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    host.contains('.')
        && !host.starts_with('*')
        && check_host(host).is_ok()
        && !last.bytes().all(|byte| byte.is_ascii_digit())
        && !own.iter().any(|domain| is_below(host, domain))
}

/// What is to be written of hosts that came or went, none of which asks an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// No live route has it since now.
    Left(String),
    /// It is back before it was forgotten.
    Back(String),
    Forget(String),
}

pub fn notes(records: &BTreeMap<String, AcmeRecord>, wanted: &Wanted, now_unix_ms: u64) -> Vec<Note> {
    let note = |(host, record): (&String, &AcmeRecord)| match (wanted.live.contains(host), record.left_unix_ms) {
        (true, Some(_)) => Some(Note::Back(host.clone())),
        (true, None) => None,
        (false, None) => Some(Note::Left(host.clone())),
        (false, Some(left)) => (now_unix_ms >= left.saturating_add(KEEP_MS)).then(|| Note::Forget(host.clone())),
    };
    records.iter().filter_map(note).collect()
}

/// When the certificate of a host is to be asked for.
fn due(record: Option<&AcmeRecord>) -> u64 {
    let Some(record) = record else { return 0 };
    // An order that was begun goes on.
    let begins = match &record.certificate {
        Some(certificate) if record.order.is_none() => renewal(certificate),
        _ => 0,
    };
    begins.max(record.retry_unix_ms)
}

/// The host to ask for next, and when: one that has an order goes first, then one without a certificate.
pub fn next(records: &BTreeMap<String, AcmeRecord>, wanted: &Wanted, now_unix_ms: u64) -> Option<(String, u64)> {
    let place = |host: &&String| {
        let record = records.get(*host);
        let (has_order, has_certificate) =
            record.map_or((false, false), |record| (record.order.is_some(), record.certificate.is_some()));
        (due(record).max(now_unix_ms), !has_order, has_certificate)
    };
    let host = wanted.hosts.keys().min_by_key(place)?;
    Some((host.clone(), due(records.get(host)).max(now_unix_ms)))
}

/// How long to wait after so many failures one after the other. `draw` spreads those that failed together.
pub fn pause_ms(failures: u32, draw: u64) -> u64 {
    let doubled = RETRY_FIRST_MS.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY_MAX_MS);
    // Up to a quarter less.
    doubled - draw % (doubled / 4)
}

/// The id of what was got for a host, as people see it. No uploaded one has a `:` in its own.
pub fn acme_id(host: &str) -> String {
    format!("acme:{host}")
}

#[cfg(test)]
mod tests;
