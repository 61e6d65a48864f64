//! ACME: asks an authority of the world for certificates (RFC 8555), some hosts at once.
//!
//! A task of its own, so that nobody waits for an authority. It looks at the records and does what is due: a restart, or
//! a look more or less, changes nothing. Which hosts, when and how each is proved is `controller_core::acme`; lb and dns
//! answer the authority from their tables.
//!
//! ```text
//! look ─► who is due? ─► order, a task ─► ended: kept, or why not and when again ─► look
//!            └► whose renewal is to be asked for? ─► a task (RFC 9773) ─┘
//! ```

mod desk;
mod http;
mod office;
mod order;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use controller_core::acme::{self, ORDERS_AT_ONCE, ORDERS_PER_MINUTE, Proof, Reach, Wanted};
use controller_core::app_file::check_host;
use controller_core::v1::state::{AcmeRecord, CertificateRecord, EventKind};
use futures_util::stream::{FuturesUnordered, StreamExt};
use instant_acme::Error;

use self::desk::Desk;
use self::http::{Https, listening};
use self::office::Office;
use self::order::OrderError;
use crate::config::Config;
use crate::records::lock;
use crate::run::Shared;
use crate::store::StoreError;

/// Without any change the records are looked at after this time.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Until the loop has decided anything.
const LOOK_SOON: Duration = Duration::from_secs(1);
/// Changes that come together are looked at together.
const GATHER: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_secs(60);
/// One order, from the first question to the certificate. What is under way at the authority is gone on with later.
const ORDER_MAX: Duration = Duration::from_secs(600);
/// A certificate that is old when it comes is not renewed at once.
const REST_MS: u64 = 3_600_000;
/// An authority that was asked in vain when to renew is asked again then.
const LOOK_AGAIN_MS: u64 = 6 * 3_600_000;
/// How soon and how late it is asked, whatever it says.
const LOOK_MS: (u64, u64) = (60_000, 24 * 3_600_000);
/// Of what an authority says, so much is kept.
const PROBLEM_CHARS_MAX: usize = 500;

#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    #[error("ACME: {0}")]
    Directory(String),
    #[error("ACME: the file of roots {path}: {reason}")]
    Roots { path: String, reason: String },
    #[error("PLATFORMER_ACME_DNS: {domain}: {reason}")]
    Names { domain: String, reason: String },
}

pub(crate) struct Acme {
    desk: Arc<Desk>,
    office: Arc<Office>,
    jobs: FuturesUnordered<Job>,
    /// Hosts with an order that runs here.
    under_way: BTreeSet<String>,
    /// Whether an authority is being asked when to renew.
    is_looking: bool,
    /// By host, when that is asked next, where nothing of it is kept.
    looks: BTreeMap<String, u64>,
    /// When the last orders began.
    begun: VecDeque<Duration>,
    /// No order begins before: what failed last stands in the way of all.
    quiet: Duration,
    /// Hosts without a place, as the log has them.
    left_out: usize,
}

type Job = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// What became of a task. None: it broke off.
enum Ended {
    Order { host: String, pause: Option<Option<Duration>> },
    Look { host: String, again_unix_ms: Option<u64> },
}

/// How an authority is reached, checked; none: there is none.
pub(crate) fn settings(config: &Config) -> Result<Option<(String, Https)>, AcmeError> {
    for domain in &reach(config).names {
        let refused = |reason: String| AcmeError::Names { domain: domain.clone(), reason };
        check_host(domain).map_err(refused)?;
        if domain.starts_with('*') {
            return Err(refused("a domain stands for all in it, without a wildcard".to_owned()));
        }
    }
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
    Ok(Some((directory.clone(), https.of(directory))))
}

/// How the world reaches what is here, as the settings say.
pub(crate) fn reach(config: &Config) -> Reach {
    let names = config.acme_dns.iter().filter(|domain| !domain.is_empty());
    Reach {
        domain: config.domain.clone(),
        names: names.map(|domain| domain.trim().to_ascii_lowercase()).collect(),
        by_handshake: config.acme_challenge == "tls-alpn-01",
    }
}

impl Acme {
    pub(crate) fn new(shared: Arc<Shared>, (directory, http): (String, Https)) -> Self {
        let email = shared.config.acme_email.clone().filter(|email| !email.is_empty());
        let reach = reach(&shared.config);
        Self {
            desk: Arc::new(Desk { shared, reach }),
            office: Arc::new(Office::new(directory, email, http)),
            jobs: FuturesUnordered::new(),
            under_way: BTreeSet::new(),
            is_looking: false,
            looks: BTreeMap::new(),
            begun: VecDeque::new(),
            quiet: Duration::ZERO,
            left_out: 0,
        }
    }

    /// Runs until it is dropped: what counts is in the store.
    pub(crate) async fn forever(mut self) {
        let shared = Arc::clone(&self.desk.shared);
        let mut changes = shared.tables.changes();
        loop {
            let pause = self.look().await;
            tokio::select! {
                Some(ended) = self.jobs.next() => self.ended(ended),
                _ = changes.changed() => tokio::time::sleep(GATHER).await,
                () = shared.acme_again.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Begins what is due. How long nothing is, unless something changes.
    async fn look(&mut self) -> Duration {
        let shared = Arc::clone(&self.desk.shared);
        if !shared.decides.load(Ordering::Relaxed) || shared.is_older().is_some() {
            return LOOK_SOON;
        }
        let now = shared.clock.unix_ms();
        let (notes, wanted) = {
            let records = lock(&shared.records);
            let wanted = self.desk.wanted(&records);
            (acme::notes(&records.acme, &wanted, now), wanted)
        };
        if std::mem::replace(&mut self.left_out, wanted.left_out) < wanted.left_out {
            tracing::warn!(left_out = wanted.left_out, "more hosts than certificates are asked for");
        }
        if let Err(error) = self.desk.take(&notes, now).await {
            tracing::error!(%error, "not recorded which hosts left");
        }
        self.begin_orders(&wanted, now).min(self.begin_look(&wanted, now))
    }

    fn begin_orders(&mut self, wanted: &Wanted, now: u64) -> Duration {
        while self.under_way.len() < ORDERS_AT_ONCE {
            let next = acme::next(&lock(&self.desk.shared.records).acme, wanted, &self.under_way, now);
            let Some((host, at)) = next else { break };
            if at > now {
                return LOOK_EVERY.min(Duration::from_millis(at - now));
            }
            if let Some(pause) = self.pace(self.desk.shared.clock.elapsed(), &host) {
                return pause;
            }
            let Some(proof) = self.desk.reach.proof(&host) else { break };
            self.under_way.insert(host.clone());
            let work = order(Arc::clone(&self.desk), Arc::clone(&self.office), host.clone(), proof);
            let job = self.spawn("acme-order", work);
            self.jobs.push(Box::pin(async move { Ended::Order { host, pause: job.await } }));
        }
        LOOK_EVERY
    }

    /// One at a time: there is no hurry.
    fn begin_look(&mut self, wanted: &Wanted, now: u64) -> Duration {
        if self.is_looking {
            return LOOK_EVERY;
        }
        let next = acme::next_look(&lock(&self.desk.shared.records).acme, wanted, &self.looks, now);
        let Some((host, at)) = next else { return LOOK_EVERY };
        if at > now {
            return LOOK_EVERY.min(Duration::from_millis(at - now));
        }
        self.is_looking = true;
        let work = look(Arc::clone(&self.desk), Arc::clone(&self.office), host.clone());
        let job = self.spawn("acme-renewal", work);
        self.jobs.push(Box::pin(async move { Ended::Look { host, again_unix_ms: job.await } }));
        LOOK_EVERY
    }

    /// A task that ends with the program; what it was about is gone on with by the next start.
    fn spawn<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send + 'static {
        let shared = &self.desk.shared;
        let stop = shared.shutdown.asked();
        let task = shared.tasks.spawn(name, async move {
            tokio::select! { () = stop => None, done = work => Some(done) }
        });
        async move { task.await.ok().flatten().flatten() }
    }

    /// How long to wait until another order may begin; it begins now when there is nothing to wait for.
    fn pace(&mut self, now: Duration, host: &str) -> Option<Duration> {
        // A person who says that it is tried again does not wait for others.
        let is_asked = || {
            let record = self.desk.record(host);
            record.failures > 0 && record.retry_unix_ms == 0
        };
        if now < self.quiet && !is_asked() {
            return Some(self.quiet - now);
        }
        self.begun.retain(|at| now.saturating_sub(*at) < MINUTE);
        if self.begun.len() < ORDERS_PER_MINUTE {
            self.begun.push_back(now);
            return None;
        }
        self.begun.front().map(|first| (*first + MINUTE).saturating_sub(now))
    }

    fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Order { host, pause } => {
                self.under_way.remove(&host);
                // One that broke off has no word in the records: it is not begun again at once.
                let pause = pause.unwrap_or(Some(MINUTE)).unwrap_or_default();
                self.quiet = self.quiet.max(self.desk.shared.clock.elapsed() + pause);
            }
            Ended::Look { host, again_unix_ms } => {
                self.is_looking = false;
                let again = again_unix_ms.unwrap_or_else(|| self.desk.now_unix_ms() + LOOK_AGAIN_MS);
                self.looks.insert(host, again);
            }
        }
    }
}

/// One order, and what becomes of it in the records. How long all others wait, where what failed is in their way too.
async fn order(desk: Arc<Desk>, office: Arc<Office>, host: String, proof: Proof) -> Option<Duration> {
    let carried = listening(tokio::time::timeout(ORDER_MAX, carried(&desk, &office, &host, proof)));
    let (carried, asked_s) = carried.await;
    let (noted, pause) = match carried.unwrap_or(Err(OrderError::Late)) {
        Ok(certificate) => (got(&desk, &host, certificate).await, None),
        Err(error) => {
            if !error.is_final() {
                office.close().await;
            }
            let pause = error.is_common().then(|| asked_s.map_or(MINUTE, Duration::from_secs).min(MINUTE));
            (failed(&desk, &host, &error, asked_s).await, pause)
        }
    };
    if let Err(error) = noted {
        tracing::error!(%error, host, "not recorded what became of an order");
        // The store is what is in the way: the authority is not asked meanwhile.
        return Some(MINUTE);
    }
    pause
}

async fn carried(desk: &Desk, office: &Office, host: &str, proof: Proof) -> Result<CertificateRecord, OrderError> {
    // What lb has no route for yet, and what a member that takes no table answers, is not worth an order.
    desk.until_in_force(order::member(proof), &desk.generation()).await.map_err(OrderError::NotInForce)?;
    let account = office.account(desk).await?;
    let carried = order::carry(desk, &account, host, proof, desk.record(host)).await;
    match carried {
        Err(error) if error.may_be_of_account() && office.is_closed(desk, &account).await? => {
            Err(OrderError::AccountClosed)
        }
        carried => carried,
    }
}

async fn got(desk: &Desk, host: &str, certificate: CertificateRecord) -> Result<(), StoreError> {
    let not_before = desk.now_unix_ms() + REST_MS;
    let noted = desk.note(host, |record| {
        let certificate = Some(certificate);
        *record = AcmeRecord { certificate, retry_unix_ms: not_before, ..AcmeRecord::default() };
    });
    noted.await?;
    desk.say(host, EventKind::CertificateIssued, &format!("certificate for {host} got"));
    Ok(())
}

async fn failed(desk: &Desk, host: &str, error: &OrderError, asked_s: Option<u64>) -> Result<(), StoreError> {
    let text = kit::problem::chain(error);
    let text: String = text.chars().filter(|c| !c.is_control()).take(PROBLEM_CHARS_MAX).collect();
    let now = desk.now_unix_ms();
    let draw = u64::from_ne_bytes(kit::random::bytes());
    let asked_ms = asked_s.map(|seconds| seconds.saturating_mul(1000));
    let mut is_news = false;
    let noted = desk.note(host, |record| {
        is_news = record.problem.as_ref() != Some(&text);
        record.failures = record.failures.saturating_add(1);
        record.retry_unix_ms = now + acme::pause_ms(record.failures, asked_ms, draw);
        record.problem = Some(text.clone());
        if error.is_final() {
            record.order = None;
        }
    });
    noted.await?;
    if is_news {
        desk.say(host, EventKind::CertificateFailed, &format!("no certificate for {host}: {text}"));
    }
    Ok(())
}

/// Asks the authority when it wants the certificate of a host renewed (RFC 9773). When it is to be asked again.
async fn look(desk: Arc<Desk>, office: Arc<Office>, host: String) -> u64 {
    let (now, known) = (desk.now_unix_ms(), desk.record(&host));
    let Some(certificate) = known.certificate else { return now + LOOK_AGAIN_MS };
    let Some(identifier) = crate::x509::identifier(&certificate.certificate.chain) else { return now + LOOK_MS.1 };
    let said = match office.account(&desk).await {
        Ok(account) => account.renewal_info(&identifier).await.map_err(OrderError::Acme),
        Err(error) => Err(error),
    };
    let (info, delay) = match said {
        Ok(said) => said,
        // Then two thirds of its life count.
        Err(OrderError::Acme(Error::Unsupported(_))) => return now + LOOK_MS.1,
        Err(error) => {
            tracing::debug!(host, error = kit::problem::chain(&error), "when to renew was not said");
            return now + LOOK_AGAIN_MS;
        }
    };
    let unix_ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    let window = &info.suggested_window;
    let window = (unix_ms(window.start.unix_timestamp()), unix_ms(window.end.unix_timestamp()));
    let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).clamp(LOOK_MS.0, LOOK_MS.1);
    let draw = u64::from_ne_bytes(kit::random::bytes());
    let renewal = acme::renewal_in(window, now + delay, known.renewal.as_ref(), draw);
    let noted = desk.note(&host, |record| {
        let is_same = record.certificate.as_ref().map(|own| own.fingerprint) == Some(certificate.fingerprint);
        if is_same && record.order.is_none() {
            record.renewal = Some(renewal);
        }
    });
    if let Err(error) = noted.await {
        tracing::error!(%error, host, "not recorded when to renew");
    }
    now + delay
}

#[cfg(test)]
mod tests;
