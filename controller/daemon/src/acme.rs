//! ACME: asks an authority of the world for certificates (RFC 8555, HTTP-01), one host after the other.
//!
//! A task of its own, so that nobody waits for an authority. It looks at the records and does what is due: a restart, or
//! a look more or less, changes nothing. Which hosts and when is `controller_core::acme`; lb answers the challenges from
//! its table.

mod http;
mod order;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use appbase_core::SectionKey;
use appbase_core::v1::PrivateKey;
use controller_core::acme::{self, Note, ORDERS_PER_MINUTE, Wanted};
use controller_core::v1::state::{AcmeAccount, AcmeRecord, EventKind};
use instant_acme::{Account, NewAccount};

use self::http::Https;
use self::order::OrderError;
use crate::config::Config;
use crate::journal::About;
use crate::records::{Records, Write, lock};
use crate::run::Shared;
use crate::store::{OPERATIONS_MAX, StoreError};

/// Without any change the records are looked at after this time.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// While something that passes by itself is in the way.
const LOOK_SOON: Duration = Duration::from_secs(1);
/// Changes that come together are looked at together.
const GATHER: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_secs(60);
/// A certificate that is old when it comes is not renewed at once.
const REST_MS: u64 = 3_600_000;
/// Of what an authority says, so much is kept.
const PROBLEM_CHARS_MAX: usize = 500;

#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    #[error("ACME: {0}")]
    Directory(String),
    #[error("ACME: the file of roots {path}: {reason}")]
    Roots { path: String, reason: String },
}

/// Reads and writes of the records of hosts.
struct Desk {
    shared: Arc<Shared>,
}

pub(crate) struct Acme {
    desk: Desk,
    directory: String,
    email: Option<String>,
    http: Https,
    account: Option<Account>,
    /// When the last orders began.
    begun: VecDeque<Duration>,
    /// Hosts without a place, as the log has them.
    left_out: usize,
}

/// How an authority is reached, checked; none: there is none.
pub(crate) fn settings(config: &Config) -> Result<Option<(String, Https)>, AcmeError> {
    let Some(directory) = config.acme_directory.as_ref().filter(|directory| !directory.is_empty()) else {
        return Ok(None);
    };
    http::check(directory).map_err(AcmeError::Directory)?;
    let roots = config.acme_ca_file.as_ref().filter(|path| !path.as_os_str().is_empty()).map(|path| {
        let failed = |reason: String| AcmeError::Roots { path: path.display().to_string(), reason };
        let pem = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        Https::new(Some(&pem)).map_err(failed)
    });
    let https = roots.unwrap_or_else(|| Https::new(None).map_err(AcmeError::Directory))?;
    Ok(Some((directory.clone(), https)))
}

impl Acme {
    pub(crate) fn new(shared: Arc<Shared>, (directory, http): (String, Https)) -> Self {
        let email = shared.config.acme_email.clone().filter(|email| !email.is_empty());
        Self { desk: Desk { shared }, directory, email, http, account: None, begun: VecDeque::new(), left_out: 0 }
    }

    /// Runs until it is dropped: what counts is in the store.
    pub(crate) async fn forever(mut self) {
        let mut changes = self.desk.shared.tables.changes();
        loop {
            let pause = self.look().await;
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Does what is due. How long nothing is, unless something changes.
    async fn look(&mut self) -> Duration {
        let shared = Arc::clone(&self.desk.shared);
        if !shared.decides.load(Ordering::Relaxed) || shared.is_older().is_some() {
            return LOOK_SOON;
        }
        let now = shared.clock.unix_ms();
        let (notes, next, left_out) = {
            let records = lock(&shared.records);
            let wanted = self.desk.wanted(&records);
            (acme::notes(&records.acme, &wanted, now), acme::next(&records.acme, &wanted, now), wanted.left_out)
        };
        if std::mem::replace(&mut self.left_out, left_out) < left_out {
            tracing::warn!(left_out, "more hosts than certificates are asked for");
        }
        if let Err(error) = self.desk.take(&notes, now).await {
            tracing::error!(%error, "not recorded which hosts left");
        }
        let Some((host, at)) = next else { return LOOK_EVERY };
        if at > now {
            return LOOK_EVERY.min(Duration::from_millis(at - now));
        }
        if !self.desk.is_in_force(&lock(&shared.records), &host) {
            return LOOK_SOON;
        }
        if let Some(pause) = self.pace(shared.clock.elapsed()) {
            return pause;
        }
        self.order(&host).await;
        Duration::ZERO
    }

    /// How long to wait until another order may begin; it begins now when there is nothing to wait for.
    fn pace(&mut self, now: Duration) -> Option<Duration> {
        self.begun.retain(|at| now.saturating_sub(*at) < MINUTE);
        if self.begun.len() < ORDERS_PER_MINUTE {
            self.begun.push_back(now);
            return None;
        }
        self.begun.front().map(|first| (*first + MINUTE).saturating_sub(now))
    }

    async fn order(&mut self, host: &str) {
        let known = lock(&self.desk.shared.records).acme.get(host).and_then(|record| record.order.clone());
        let carried = match self.account().await {
            Ok(account) => order::carry(&self.desk, &account, host, known).await,
            Err(error) => Err(error),
        };
        let noted = match carried {
            Ok(certificate) => {
                let not_before = self.desk.now_unix_ms() + REST_MS;
                let noted = self.desk.note(host, |record| {
                    let certificate = Some(certificate);
                    *record = AcmeRecord { certificate, retry_unix_ms: not_before, ..AcmeRecord::default() };
                });
                let noted = noted.await;
                if noted.is_ok() {
                    self.desk.say(host, EventKind::CertificateIssued, &format!("certificate for {host} got"));
                }
                noted
            }
            Err(error) => self.failed(host, &error).await,
        };
        if let Err(error) = noted {
            tracing::error!(%error, host, "not recorded what became of an order");
            // The store is what is in the way: the authority is not asked meanwhile.
            tokio::time::sleep(MINUTE).await;
        }
    }

    async fn failed(&mut self, host: &str, error: &OrderError) -> Result<(), StoreError> {
        // Its addresses may be others by now.
        self.account = None;
        if error.is_of_account() {
            self.desk.write(vec![Write::ForgetAcmeAccount]).await?;
        }
        let text = kit::problem::chain(error);
        let text: String = text.chars().filter(|c| !c.is_control()).take(PROBLEM_CHARS_MAX).collect();
        let now = self.desk.now_unix_ms();
        let draw = u64::from_ne_bytes(kit::random::bytes());
        let mut is_news = false;
        self.desk
            .note(host, |record| {
                is_news = record.problem.as_ref() != Some(&text);
                record.failures = record.failures.saturating_add(1);
                record.retry_unix_ms = now + acme::pause_ms(record.failures, draw);
                record.problem = Some(text.clone());
                if error.is_final() {
                    record.order = None;
                }
            })
            .await?;
        if is_news {
            self.desk.say(host, EventKind::CertificateFailed, &format!("no certificate for {host}: {text}"));
        }
        Ok(())
    }

    /// Who the platform is at the authority; a new account where there is none.
    async fn account(&mut self) -> Result<Account, OrderError> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let known = lock(&self.desk.shared.records).acme_account.clone();
        let contact = self.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        let account = match known.filter(|known| known.directory == self.directory) {
            Some(known) => {
                let credentials = serde_json::from_str(&known.credentials.0).map_err(OrderError::Account)?;
                let account = builder.from_credentials(credentials).await?;
                if known.email != self.email {
                    account.update_contacts(&contact).await?;
                    self.keep(known.credentials).await?;
                }
                account
            }
            None => {
                // Who sets the directory agrees: docs/reference/tls.md says so.
                let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
                let (account, credentials) = builder.create(&new, self.directory.clone(), None).await?;
                let credentials = serde_json::to_string(&credentials).map_err(OrderError::Account)?;
                self.keep(PrivateKey(credentials)).await?;
                account
            }
        };
        self.account = Some(account.clone());
        Ok(account)
    }

    async fn keep(&self, credentials: PrivateKey) -> Result<(), StoreError> {
        let (directory, email) = (self.directory.clone(), self.email.clone());
        self.desk.write(vec![Write::AcmeAccount(Box::new(AcmeAccount { directory, email, credentials }))]).await
    }
}

impl Desk {
    fn now_unix_ms(&self) -> u64 {
        self.shared.clock.unix_ms()
    }

    fn wanted(&self, records: &Records) -> Wanted {
        Wanted::of(&records.runs, &records.releases, &records.certificates, &self.shared.config.domain)
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let _pen = self.shared.pen.lock().await;
        self.commit(writes).await
    }

    /// With the pen held. What it changes of the tables is published before anything else is decided.
    async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.shared.commit(writes).await?;
        if let Err(error) = self.shared.publish().await {
            tracing::error!(%error, "tables not published; the loop tries again");
        }
        self.shared.look_again.notify_one();
        Ok(())
    }

    /// Changes the record of a host as it stands now.
    async fn note(&self, host: &str, change: impl FnOnce(&mut AcmeRecord)) -> Result<(), StoreError> {
        let _pen = self.shared.pen.lock().await;
        let mut record = lock(&self.shared.records).acme.get(host).cloned().unwrap_or_default();
        change(&mut record);
        self.commit(vec![Write::Acme(host.to_owned(), Box::new(record))]).await
    }

    async fn take(&self, notes: &[Note], now: u64) -> Result<(), StoreError> {
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

    /// Whether every lb that can be reached, and one at least, has what the records say of the apps with this host.
    fn is_in_force(&self, records: &Records, host: &str) -> bool {
        let apps = self.apps(records, host);
        if apps.is_empty() {
            // Nobody has the host any more.
            return false;
        }
        let mut apps = apps.iter().filter_map(|key| match key {
            SectionKey::App { environment, app } => Some((environment, app)),
            SectionKey::Platform => None,
        });
        apps.all(|(environment, app)| self.shared.is_in_force(records, environment, app))
    }

    async fn until_in_force(&self, host: &str, limit: Duration) -> Option<()> {
        self.shared.until(limit, |records| self.is_in_force(records, host)).await
    }

    fn apps(&self, records: &Records, host: &str) -> BTreeSet<SectionKey> {
        self.wanted(records).hosts.remove(host).unwrap_or_default()
    }

    fn say(&self, host: &str, kind: EventKind, text: &str) {
        let app = self.apps(&lock(&self.shared.records), host).pop_first();
        let about = match app {
            Some(SectionKey::App { environment, app }) => {
                About { environment: Some(environment), app: Some(app), deployment: None }
            }
            _ => About::default(),
        };
        self.shared.journal.write(self.now_unix_ms(), &about, kind, text);
    }
}

#[cfg(test)]
mod tests;
