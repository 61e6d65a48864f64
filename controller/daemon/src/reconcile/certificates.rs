//! Certificates, as a step of the loop: makes what the core says is due, and tells people of what ends. It looks at the
//! records alone, so that a pass more or less changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use appbase_core::SectionKey;
use controller_core::acme::acme_id;
use controller_core::certificates::{Due, due, ends_soon, is_authority_due, is_overdue, local_names};
use controller_core::v1::state::{AuthorityRecord, CertificateRecord, EventKind};

use crate::authority;
use crate::journal::About;
use crate::records::{Records, Write, lock};
use crate::run::Shared;
use crate::store::{OPERATIONS_MAX, StoreError};

/// Made in one pass; what is more comes with the next, so that the loop goes on meanwhile.
const PASS_MAX: usize = 4 * OPERATIONS_MAX;

const DAY_MS: u64 = 86_400_000;

pub(super) struct Certificates {
    shared: Arc<Shared>,
    /// Until when those last that people were told about.
    told: BTreeMap<String, u64>,
    /// Apps with more names than fit, as the log has them.
    crowded: BTreeSet<SectionKey>,
    /// Why something could not be made, as the log has it.
    failures: BTreeSet<String>,
}

impl Certificates {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, told: BTreeMap::new(), crowded: BTreeSet::new(), failures: BTreeSet::new() }
    }

    /// With the pen held by the caller. Whether anything was written.
    pub(super) async fn keep(&mut self) -> Result<bool, StoreError> {
        let now = self.shared.clock.unix_ms();
        self.tell(now);
        let mut changed = self.keep_authority(now).await?;
        let Some(authority) = lock(&self.shared.records).authority.clone() else { return Ok(changed) };
        let due = self.due(&authority, now);
        for some in due.chunks(OPERATIONS_MAX) {
            let writes: Vec<Write> =
                some.iter().filter_map(|(key, due)| self.write(&authority, key, due, now)).collect();
            if !writes.is_empty() {
                self.shared.commit(writes.clone()).await?;
                changed = true;
            }
            writes.iter().for_each(|write| self.say(write, now));
        }
        Ok(changed)
    }

    async fn keep_authority(&mut self, now: u64) -> Result<bool, StoreError> {
        let (cluster, known) = {
            let records = lock(&self.shared.records);
            if !is_authority_due(records.authority.as_ref(), &self.shared.config.domain, now) {
                return Ok(false);
            }
            (records.cluster.id.clone(), records.authority.is_some())
        };
        let made = authority::new(&cluster, &self.shared.config.domain, now);
        let Some(record) = self.made(made) else { return Ok(false) };
        let domains = record.domains.iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
        self.shared.commit(vec![Write::Authority(Box::new(record))]).await?;
        let text = match known {
            false => format!("local authority for {domains} made: platformctl cert trust"),
            true => format!("another local authority for {domains} made, to be trusted again: platformctl cert trust"),
        };
        self.shared.journal.write(now, &About::default(), EventKind::CertificateIssued, &text);
        Ok(true)
    }

    fn due(&mut self, authority: &AuthorityRecord, now: u64) -> Vec<(SectionKey, Due)> {
        let (records, none) = (lock(&self.shared.records), BTreeMap::new());
        let mut all = Vec::new();
        for (key, run) in &records.runs {
            let wanted = local_names(run, records.releases.get(key).unwrap_or(&none), &authority.domains);
            if wanted.left_out == 0 {
                self.crowded.remove(key);
            } else if self.crowded.insert(key.clone()) {
                let (count, names) = (wanted.left_out, wanted.names.len());
                tracing::warn!(section = %key, names, left_out = count, "more local hosts than fit into one certificate");
            }
            let due = due(records.leaves.get(key), &wanted.names, &authority.fingerprint, now);
            all.extend(due.map(|due| (key.clone(), due)));
            if all.len() == PASS_MAX {
                break;
            }
        }
        all
    }

    fn write(&mut self, authority: &AuthorityRecord, key: &SectionKey, due: &Due, now: u64) -> Option<Write> {
        match due {
            Due::Forget => Some(Write::ForgetLeaf(key.clone())),
            Due::Issue(names) => {
                let record = self.made(authority::issue(authority, key, names, now))?;
                Some(Write::Leaf(key.clone(), Box::new(record)))
            }
        }
    }

    /// What was made. Why something could not be made is said once; the next pass tries again.
    fn made<T>(&mut self, made: Result<T, rcgen::Error>) -> Option<T> {
        if let Err(error) = &made
            && self.failures.insert(error.to_string())
        {
            tracing::error!(%error, "a certificate cannot be made");
        }
        made.ok()
    }

    fn say(&self, write: &Write, now: u64) {
        let Write::Leaf(SectionKey::App { environment, app }, record) = write else { return };
        let about = About { environment: Some(environment.clone()), app: Some(app.clone()), deployment: None };
        let text = format!("certificate of the local authority for {}", in_words(&record.certificate.names));
        self.shared.journal.write(now, &about, EventKind::CertificateIssued, &text);
    }

    /// Says of each that ends soon, and is not replaced by itself, that it does, once in the controller's life.
    fn tell(&mut self, now: u64) {
        let ending: Vec<_> = ending(&lock(&self.shared.records), now).collect();
        for (id, until, text) in ending {
            if self.told.insert(id, until) != Some(until) {
                self.shared.journal.write(now, &About::default(), EventKind::CertificateEnds, &text);
            }
        }
    }
}

/// Of each that ends and is not replaced by itself: its id, until when it lasts, and what people are told.
fn ending(records: &Records, now: u64) -> impl Iterator<Item = (String, u64, String)> {
    let uploaded = records.certificates.records().iter();
    let uploaded = uploaded.filter(move |(_, record)| ends_soon(record.until_unix_ms, now)).map(move |(id, record)| {
        let text = format!("certificate {id} {}; a newer one: platformctl cert add CHAIN KEY", when(record, now));
        (id.clone(), record.until_unix_ms, text)
    });
    let renewed = records.acme.iter().filter(|(_, record)| record.left_unix_ms.is_none());
    let late = renewed.filter_map(move |(host, record)| {
        let certificate = record.certificate.as_ref().filter(|certificate| is_overdue(certificate, now))?;
        let reason = record.problem.as_deref().unwrap_or("no authority was asked");
        let text = format!(
            "certificate for {host} {} and was not renewed ({reason}): platformctl cert retry {host}",
            when(certificate, now)
        );
        Some((acme_id(host), certificate.until_unix_ms, text))
    });
    uploaded.chain(late)
}

fn when(record: &CertificateRecord, now: u64) -> String {
    match record.until_unix_ms.checked_sub(now) {
        Some(left) if left < 2 * DAY_MS => format!("ends in {} h", left / 3_600_000),
        Some(left) => format!("ends in {} d", left / DAY_MS),
        None => "has ended".to_owned(),
    }
}

/// What of certificates is wrong now, one line each.
pub(crate) fn problems(records: &Records, now: u64) -> Vec<String> {
    let missing = records.acme.iter().filter(|(_, record)| record.left_unix_ms.is_none());
    let missing = missing.filter(|(_, record)| record.certificate.is_none()).filter_map(|(host, record)| {
        let problem = record.problem.as_ref()?;
        Some(format!("no certificate for {host}: {problem}"))
    });
    let all: Vec<String> = missing.chain(ending(records, now).map(|(_, _, text)| text)).collect();
    let more = all.len().saturating_sub(PROBLEMS_SHOWN);
    let more = (more > 0).then(|| format!("{more} certificates more: platformctl cert ls"));
    all.into_iter().take(PROBLEMS_SHOWN).chain(more).collect()
}

/// Of the status, where all of the platform stands: what is more is in a list of its own.
const PROBLEMS_SHOWN: usize = 10;

/// The first of some names, and how many more there are.
pub(crate) fn in_words(names: &BTreeSet<String>) -> String {
    const SHOWN: usize = 3;
    let mut words = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        words.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    words
}

#[cfg(test)]
mod tests;
