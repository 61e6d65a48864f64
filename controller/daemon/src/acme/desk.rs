//! Desk: what is read and written of hosts, and who has a table in force. Owns no decision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use appbase_core::v1::MemberKind;
use appbase_core::{Generation, SectionKey};
use controller_core::acme::{Note, Reach, Wanted};
use controller_core::certificates::live_routes;
use controller_core::v1::state::{AcmeRecord, EventKind};

use crate::journal::About;
use crate::records::{Records, Write, lock};
use crate::run::Shared;
use crate::store::{OPERATIONS_MAX, StoreError};

/// How often one looks whether members have a table. They are asked nothing for it.
const IN_FORCE_LOOK: Duration = Duration::from_millis(100);
/// Until every member of a kind that can be reached has it.
const IN_FORCE_MAX: Duration = Duration::from_secs(60);

/// Reads and writes of the records of hosts.
pub(super) struct Desk {
    pub(super) shared: Arc<Shared>,
    pub(super) reach: Reach,
}

impl Desk {
    pub(super) fn now_unix_ms(&self) -> u64 {
        self.shared.clock.unix_ms()
    }

    pub(super) fn wanted(&self, records: &Records) -> Wanted {
        Wanted::of(&records.runs, &records.releases, &records.certificates, &records.acme, &self.reach)
    }

    pub(super) fn record(&self, host: &str) -> AcmeRecord {
        lock(&self.shared.records).acme.get(host).cloned().unwrap_or_default()
    }

    pub(super) async fn write(&self, writes: Vec<Write>) -> Result<Generation, StoreError> {
        let _pen = self.shared.pen.lock().await;
        self.commit(writes).await
    }

    /// With the pen held. The generation that is out then, with what was written in it.
    async fn commit(&self, writes: Vec<Write>) -> Result<Generation, StoreError> {
        self.shared.commit(writes).await?;
        let published = self.shared.publish().await;
        self.shared.look_again.notify_one();
        published.map(|()| self.shared.tables.generation())
    }

    /// Changes the record of a host as it stands now.
    pub(super) async fn note(
        &self,
        host: &str,
        change: impl FnOnce(&mut AcmeRecord),
    ) -> Result<Generation, StoreError> {
        let _pen = self.shared.pen.lock().await;
        let mut record = self.record(host);
        change(&mut record);
        self.commit(vec![Write::Acme(host.to_owned(), Box::new(record))]).await
    }

    pub(super) async fn take(&self, notes: &[Note], now: u64) -> Result<(), StoreError> {
        for some in notes.chunks(OPERATIONS_MAX) {
            let _pen = self.shared.pen.lock().await;
            let writes = {
                let records = lock(&self.shared.records);
                let left = |host: &String, left_unix_ms: Option<u64>| {
                    let record = records.acme.get(host)?.clone();
                    // Nobody waits for an order of one that left, and its answer has no place in a table.
                    let order = record.order.clone().filter(|_| left_unix_ms.is_none());
                    Some(Write::Acme(host.clone(), Box::new(AcmeRecord { left_unix_ms, order, ..record })))
                };
                let write = |note: &Note| match note {
                    Note::Left(host) => left(host, Some(now)),
                    Note::Back(host) => left(host, None),
                    Note::Forget(host) => Some(Write::ForgetAcme(host.clone())),
                };
                some.iter().filter_map(write).collect()
            };
            self.commit(writes).await?;
        }
        Ok(())
    }

    /// What is out now.
    pub(super) fn generation(&self) -> Generation {
        self.shared.tables.generation()
    }

    /// Waits until every member of this kind that can be reached, and one at least, has this generation; else who does
    /// not.
    pub(super) async fn until_in_force(&self, kind: MemberKind, generation: &Generation) -> Result<(), String> {
        let begun = self.shared.clock.elapsed();
        loop {
            let Some(missing) = self.missing(kind, generation) else { return Ok(()) };
            if self.shared.clock.elapsed().saturating_sub(begun) >= IN_FORCE_MAX {
                return Err(format!("{missing} in {} s", IN_FORCE_MAX.as_secs()));
            }
            tokio::time::sleep(IN_FORCE_LOOK).await;
        }
    }

    fn missing(&self, kind: MemberKind, generation: &Generation) -> Option<String> {
        let wanted = lock(&self.shared.records).members.clone();
        let members = self.shared.members.seen(&wanted, self.shared.now());
        let mut reachable =
            members.iter().filter(|(_, member)| member.kind == kind && member.is_reachable()).peekable();
        if reachable.peek().is_none() {
            let part = if kind == MemberKind::Lb { "load balancer" } else { "dns server" };
            return Some(format!("no {part} was heard"));
        }
        let late: Vec<&str> =
            reachable.filter(|(_, member)| !member.has_taken(generation)).map(|(id, _)| id.as_str()).collect();
        (!late.is_empty()).then(|| format!("{} did not take the table with the answer", late.join(", ")))
    }

    /// The apps that have a live route for this host.
    fn apps(&self, host: &str) -> BTreeSet<SectionKey> {
        let (records, none) = (lock(&self.shared.records), BTreeMap::new());
        let runs = records.runs.iter().filter(|(key, run)| {
            let routes = live_routes(run, records.releases.get(*key).unwrap_or(&none));
            routes.iter().any(|route| route.host.as_deref() == Some(host))
        });
        runs.map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn say(&self, host: &str, kind: EventKind, text: &str) {
        let about = match self.apps(host).pop_first() {
            Some(SectionKey::App { environment, app }) => {
                About { environment: Some(environment), app: Some(app), deployment: None }
            }
            _ => About::default(),
        };
        self.shared.journal.write(self.now_unix_ms(), &about, kind, text);
    }
}
