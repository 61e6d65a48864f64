//! ACME (RFC 8555): for which hosts certificates are asked for, how each is proved, which is next, and how long one waits
//! after a failure. Pure.
//!
//! Owns the choice. Refuses wildcards and what the local authority is for, unless dns answers the world for their domain.

use std::collections::{BTreeMap, BTreeSet};

use appbase_core::{ReleaseNumber, SectionKey};

use crate::app_file::check_host;
use crate::certificates::{LOCALHOST, Uploaded, is_below, live_routes, renewal};
use crate::v1::state::{AcmeRecord, AcmeRenewal, CertificateRecord, ReleaseRecord, Run};

/// Hosts of one app in one environment that certificates are asked for.
pub const APP_HOSTS_MAX: usize = 100;
/// Of all together.
pub const HOSTS_MAX: usize = 1000;
/// Orders that begin in one minute. An authority that wants fewer says so, and is listened to.
pub const ORDERS_PER_MINUTE: usize = 20;
/// Orders under way at once: each mostly waits, for lb and for the authority.
pub const ORDERS_AT_ONCE: usize = 5;
/// A host that no live route has for so long loses what is kept for it.
pub const KEEP_MS: u64 = 30 * 24 * 3_600_000;
/// After the first failure; doubled with each.
const RETRY_FIRST_MS: u64 = 60_000;
const RETRY_MAX_MS: u64 = 6 * 3_600_000;
/// An authority that wants a longer wait is asked once a day all the same.
const ASKED_MAX_MS: u64 = 24 * 3_600_000;
/// Renewal is not put off further than to this part of a certificate's life, whatever the authority suggests.
const LATEST: (u64, u64) = (5, 6);

/// How the world reaches what is here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// The platform's, which the local authority is for.
    pub domain: String,
    /// In these domains dns answers the world for `_acme-challenge`.
    pub names: BTreeSet<String>,
    /// Port 443 leads to lb, and port 80 is not to be asked.
    pub by_handshake: bool,
}

/// How it is shown that a host is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// lb answers over HTTP (HTTP-01), or where the authority does not ask so, in a handshake.
    Http,
    /// dns answers (DNS-01).
    Names,
    /// lb answers in a handshake (TLS-ALPN-01).
    Handshake,
}

impl Reach {
    /// None: there is no way to show it.
    pub fn proof(&self, host: &str) -> Option<Proof> {
        let name = host.strip_prefix("*.").unwrap_or(host);
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_public = name.contains('.')
            && check_host(host).is_ok()
            && !last.bytes().all(|byte| byte.is_ascii_digit())
            && !is_below(name, LOCALHOST);
        if !is_public {
            return None;
        }
        if self.names.iter().any(|domain| is_below(name, domain)) {
            return Some(Proof::Names);
        }
        let is_own = name != host || is_below(name, &self.domain);
        (!is_own).then_some(if self.by_handshake { Proof::Handshake } else { Proof::Http })
    }
}

/// The name at which dns answers for a host (RFC 8555, section 8.4).
pub fn text_name(host: &str) -> String {
    format!("_acme-challenge.{}", host.strip_prefix("*.").unwrap_or(host))
}

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
    /// Where places are few, hosts that are known come before others: what is served stays served.
    pub fn of(
        runs: &BTreeMap<SectionKey, Run>,
        releases: &BTreeMap<SectionKey, BTreeMap<ReleaseNumber, ReleaseRecord>>,
        uploaded: &Uploaded,
        records: &BTreeMap<String, AcmeRecord>,
        reach: &Reach,
    ) -> Self {
        let (mut wanted, none, mut places) = (Self::default(), BTreeMap::new(), Vec::new());
        for (key, run) in runs {
            let routes = live_routes(run, releases.get(key).unwrap_or(&none)).iter();
            let hosts: BTreeSet<&str> = routes
                .filter_map(|route| route.host.as_deref())
                .filter(|host| reach.proof(host).is_some() && !uploaded.covers(host))
                .collect();
            wanted.live.extend(hosts.iter().map(|host| (*host).to_owned()));
            let mut hosts: Vec<(bool, &str)> =
                hosts.into_iter().map(|host| (!records.contains_key(host), host)).collect();
            hosts.sort_unstable();
            wanted.left_out += hosts.len().saturating_sub(APP_HOSTS_MAX);
            places.extend(hosts.into_iter().take(APP_HOSTS_MAX).map(|(is_new, host)| (is_new, host, key)));
        }
        places.sort_by_key(|(is_new, ..)| *is_new);
        for (_, host, key) in places {
            if wanted.hosts.len() < HOSTS_MAX || wanted.hosts.contains_key(host) {
                wanted.hosts.entry(host.to_owned()).or_default().insert(key.clone());
            } else {
                wanted.left_out += 1;
            }
        }
        wanted
    }
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
        // The clock was ahead when it left.
        (false, Some(left)) if left > now_unix_ms => Some(Note::Left(host.clone())),
        (false, None) => Some(Note::Left(host.clone())),
        (false, Some(left)) => (now_unix_ms >= left.saturating_add(KEEP_MS)).then(|| Note::Forget(host.clone())),
    };
    records.iter().filter_map(note).collect()
}

/// When the certificate of a host is to be asked for.
fn due(record: Option<&AcmeRecord>, now_unix_ms: u64) -> u64 {
    let Some(record) = record else { return 0 };
    // An order that was begun goes on.
    let begins = match &record.certificate {
        Some(certificate) if record.order.is_none() => renewal_of(certificate, record.renewal.as_ref()),
        _ => 0,
    };
    // Nobody waits longer than that: the clock was ahead when the host failed.
    let waits = Some(record.retry_unix_ms).filter(|retry| *retry <= now_unix_ms + ASKED_MAX_MS);
    begins.max(waits.unwrap_or(0))
}

/// When the authority wants it, but while there is time to try again; without its word at two thirds of its life.
fn renewal_of(certificate: &CertificateRecord, suggested: Option<&AcmeRenewal>) -> u64 {
    let life = certificate.until_unix_ms.saturating_sub(certificate.from_unix_ms);
    let latest = certificate.from_unix_ms + life / LATEST.1 * LATEST.0;
    suggested.map_or_else(|| renewal(certificate), |suggested| suggested.at_unix_ms.min(latest))
}

/// The host to ask for next, and when, without those that are asked for already. Hosts that did not fail come before those
/// that did, so that these hold nobody up; of the first an order that was begun goes before a host without a certificate,
/// and that before a renewal; of the others a renewal goes first.
pub fn next(
    records: &BTreeMap<String, AcmeRecord>,
    wanted: &Wanted,
    under_way: &BTreeSet<String>,
    now_unix_ms: u64,
) -> Option<(String, u64)> {
    let place = |host: &&String| {
        let record = records.get(*host);
        let (has_order, has_certificate, failed) = record.map_or((false, false, false), |record| {
            (record.order.is_some(), record.certificate.is_some(), record.failures > 0)
        });
        let due = due(record, now_unix_ms);
        (due.max(now_unix_ms), failed, !has_order, has_certificate != failed, due)
    };
    let host = wanted.hosts.keys().filter(|host| !under_way.contains(*host)).min_by_key(place)?;
    Some((host.clone(), due(records.get(host), now_unix_ms).max(now_unix_ms)))
}

/// A host whose authority is to be asked when it wants the certificate renewed, and when. `asked` were since the start,
/// with the time of the next look where the authority said nothing that is kept.
pub fn next_look(
    records: &BTreeMap<String, AcmeRecord>,
    wanted: &Wanted,
    asked: &BTreeMap<String, u64>,
    now_unix_ms: u64,
) -> Option<(String, u64)> {
    let look = |host: &String| {
        let record = records.get(host).filter(|record| record.certificate.is_some() && record.order.is_none())?;
        let said = record.renewal.as_ref().map_or(0, |renewal| renewal.look_unix_ms);
        let at = said.max(asked.get(host).copied().unwrap_or(0));
        // The clock was ahead then.
        Some((host.clone(), if at > now_unix_ms + ASKED_MAX_MS { now_unix_ms } else { at.max(now_unix_ms) }))
    };
    wanted.hosts.keys().filter_map(look).min_by_key(|(_, at)| *at)
}

/// The authority's word on a renewal, as it is kept. A window that it said before keeps its moment; `draw` spreads others.
pub fn renewal_in(window: (u64, u64), look_unix_ms: u64, before: Option<&AcmeRenewal>, draw: u64) -> AcmeRenewal {
    let (from, until) = (window.0, window.1.max(window.0));
    let known = before.filter(|before| before.window_unix_ms == window).map(|before| before.at_unix_ms);
    let at_unix_ms = known.unwrap_or_else(|| from + draw % (until - from).max(1));
    AcmeRenewal { window_unix_ms: window, at_unix_ms, look_unix_ms }
}

/// How long to wait after so many failures one after the other, and not less than the authority asked for. `draw` spreads
/// those that failed together.
pub fn pause_ms(failures: u32, asked_ms: Option<u64>, draw: u64) -> u64 {
    let doubled = RETRY_FIRST_MS.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY_MAX_MS);
    // Up to a quarter less.
    let own = doubled - draw % (doubled / 4);
    own.max(asked_ms.unwrap_or(0).min(ASKED_MAX_MS))
}

/// The id of what was got for a host, as people see it. No uploaded one has a `:` in its own.
pub fn acme_id(host: &str) -> String {
    format!("acme:{host}")
}

#[cfg(test)]
mod tests;
