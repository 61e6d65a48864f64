//! Member: how lb and dns follow their table. Pull, check, write durably, swap, acknowledge — written once.
//!
//! ```text
//! saved table ──► in force ◄── long poll: newer table, checked, written, swapped
//!                    │
//!                    └──► status: at each change and every 2 s
//! ```
//! Without a controller a member serves its last good table for ever, also after its own restart.
//!
//! One process of a member follows at a time. Another one may hold the same table: it reads what the following one saved.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use appbase_core::v1::{MemberKind, MemberStatus, Refusal, TableUpdate, unmet_needs};
use appbase_core::{Generation, MemberId, SectionKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::client::{Client, ClientError};
use crate::durable::{self, DurableError};
use crate::problem::chain;
use crate::{Shutdown, Tasks};

/// A status is sent at least this often: presence, counters and acknowledgement in one.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(2);
/// How long the controller may hold a poll; the request limit is above it.
pub const POLL_WAIT: Duration = Duration::from_secs(25);
/// Pause after a poll that failed, so that an absent controller is not asked in a spin.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Statuses are not sent more often than this, however often something changes.
const STATUS_PAUSE: Duration = Duration::from_millis(20);

/// The part of a member that is its own: what its table means, and what it says of itself.
pub trait Follower: Send + Sync + 'static {
    type Section: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;

    const KIND: MemberKind;

    /// Makes the whole table its inner form and checks it. Nothing changes when it answers an error.
    fn check(&self, sections: &BTreeMap<SectionKey, Self::Section>) -> Result<Self::Checked, String>;
    type Checked: Send;

    /// Puts a checked table in force: one pointer swap. `presumed` is true for the saved table read at start.
    fn swap(&self, generation: &Generation, table: Self::Checked, presumed: bool);

    /// Fills in what only it knows: health, drain, counters, live releases.
    fn report(&self, status: &mut MemberStatus);
}

/// Where a member gets its table and keeps its copy.
#[derive(Debug, Clone)]
pub struct Following {
    pub member: MemberId,
    pub controller: Client,
    /// The durable copy; none keeps nothing.
    pub saved: Option<PathBuf>,
}

/// The generation in force, and the way to say that something changed.
#[derive(Debug)]
pub struct InForce {
    generation: Mutex<Option<Generation>>,
    refused: Mutex<Option<Refusal>>,
    changed: Notify,
    boot: String,
}

impl InForce {
    pub fn generation(&self) -> Option<Generation> {
        self.generation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The follower has news (health, drain): the next status goes out now.
    pub fn changed(&self) {
        self.changed.notify_one();
    }

    /// Ends at the next news. For one that waits: while the table is followed that is the status.
    pub async fn until_changed(&self) {
        self.changed.notified().await;
    }
}

impl Default for InForce {
    fn default() -> Self {
        Self {
            generation: Mutex::default(),
            refused: Mutex::default(),
            changed: Notify::new(),
            boot: crate::random::hex::<8>(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    #[error("the saved table cannot be used")]
    Saved(#[from] DurableError),
    #[error("the saved table {path} cannot be read: {reason}")]
    Unreadable { path: PathBuf, reason: String },
}

/// Puts the saved table in force, then starts following. Answers at once; `InForce::generation` says how far it is.
pub fn follow<F: Follower>(
    follower: Arc<F>,
    following: Following,
    in_force: Arc<InForce>,
    tasks: &Tasks,
    shutdown: &Shutdown,
) -> Result<(), MemberError> {
    Table::restore(follower, following, in_force)?.follow(tasks, shutdown);
    Ok(())
}

/// The whole table in force and how it changes.
pub struct Table<F: Follower> {
    follower: Arc<F>,
    following: Following,
    whole: Option<TableUpdate<F::Section>>,
    in_force: Arc<InForce>,
}

/// A table that is followed.
pub struct Followed<F: Follower> {
    polls: JoinHandle<Option<Table<F>>>,
    reports: JoinHandle<Option<()>>,
    stop: Shutdown,
}

impl<F: Follower> Followed<F> {
    /// Stops following: when this ends, nothing changes the table and no status goes out. None: following had ended by
    /// a fault.
    pub async fn stopped(self) -> Option<Table<F>> {
        self.stop.ask();
        let _ = self.reports.await;
        self.polls.await.ok().flatten()
    }
}

impl<F: Follower> Table<F> {
    /// Puts the saved table in force, if there is one.
    pub fn restore(follower: Arc<F>, following: Following, in_force: Arc<InForce>) -> Result<Self, MemberError> {
        let mut table = Self { follower, following, whole: None, in_force };
        table.read(true)?;
        Ok(table)
    }

    /// Starts following, until shutdown or until it is stopped.
    pub fn follow(self, tasks: &Tasks, shutdown: &Shutdown) -> Followed<F> {
        let stop = shutdown.child();
        let (polling, reporting) = (stop.asked(), stop.asked());
        let (following, follower, in_force) =
            (self.following.clone(), Arc::clone(&self.follower), Arc::clone(&self.in_force));
        let mut table = self;
        let polls = tasks.spawn("member-poll", async move {
            tokio::select! { () = polling => {}, () = poll_forever(&mut table) => {} }
            table
        });
        let reports = tasks.spawn("member-status", async move {
            // Cancelling a status loses one report; presence at shutdown ends anyway.
            tokio::select! { () = reporting => {}, () = report_forever(following, follower, in_force) => {} }
        });
        Followed { polls, reports, stop }
    }

    /// Puts in force what another process of this member saved, if that is newer. `presumed`: as at start.
    pub fn read_again(&mut self, presumed: bool) -> Result<(), MemberError> {
        self.read(presumed)
    }

    fn read(&mut self, presumed: bool) -> Result<(), MemberError> {
        let Some(path) = self.following.saved.clone() else { return Ok(()) };
        let found = durable::read(&path)?;
        if matches!(found, durable::Found::Previous(_)) {
            tracing::warn!(path = %path.display(), "saved table is damaged: the copy before it serves");
        }
        let Some(bytes) = found.bytes() else { return Ok(()) };
        let unreadable = |reason: String| MemberError::Unreadable { path: path.clone(), reason };
        let whole: TableUpdate<F::Section> =
            serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        if let Some(mine) = &self.whole {
            mine.generation.admits(&whole.generation).map_err(|error| unreadable(error.to_string()))?;
            if mine.generation == whole.generation {
                return Ok(());
            }
        }
        let checked = self.follower.check(&whole.sections).map_err(unreadable)?;
        tracing::info!(generation = %whole.generation, "saved table in force");
        self.put_in_force(whole, checked, presumed);
        Ok(())
    }

    /// Checks, writes durably, swaps, acknowledges. What is refused changes nothing and is reported.
    fn take(&mut self, update: TableUpdate<F::Section>) {
        let generation = update.generation.clone();
        match self.try_take(update) {
            Ok(()) => *self.in_force.refused.lock().unwrap_or_else(PoisonError::into_inner) = None,
            Err(reason) => {
                tracing::warn!(generation = %generation, reason, "table refused");
                *self.in_force.refused.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(Refusal { generation, reason });
            }
        }
        self.in_force.changed();
    }

    fn try_take(&mut self, update: TableUpdate<F::Section>) -> Result<(), String> {
        let missing = unmet_needs(&update.needs);
        if !missing.is_empty() {
            return Err(format!(
                "table needs {}, which this release does not know: upgrade this member",
                missing.join(", ")
            ));
        }
        if let Some(mine) = &self.whole {
            mine.generation.admits(&update.generation).map_err(|error| error.to_string())?;
            if mine.generation == update.generation {
                return Ok(());
            }
        }
        let whole = self.on_base(update)?;
        let checked = self.follower.check(&whole.sections)?;
        if let Some(path) = &self.following.saved {
            let bytes = serde_json::to_vec(&whole).map_err(|error| error.to_string())?;
            durable::write(path, &bytes).map_err(|error| chain(&error))?;
        }
        tracing::debug!(generation = %whole.generation, "table in force");
        self.put_in_force(whole, checked, false);
        Ok(())
    }

    /// A delta made whole on exactly its base.
    fn on_base(&self, update: TableUpdate<F::Section>) -> Result<TableUpdate<F::Section>, String> {
        let Some(base) = &update.base else { return Ok(update) };
        let mine = self.whole.as_ref().filter(|mine| mine.generation == *base);
        let Some(mine) = mine else { return Err(format!("change is on {base}, which is not in force here")) };
        let mut sections = mine.sections.clone();
        sections.retain(|key, _| !update.removed.contains(key));
        sections.extend(update.sections);
        Ok(TableUpdate::whole(update.generation, sections))
    }

    fn put_in_force(&mut self, whole: TableUpdate<F::Section>, checked: F::Checked, presumed: bool) {
        self.follower.swap(&whole.generation, checked, presumed);
        *self.in_force.generation.lock().unwrap_or_else(PoisonError::into_inner) = Some(whole.generation.clone());
        self.whole = Some(whole);
        self.in_force.changed();
    }
}

async fn poll_forever<F: Follower>(table: &mut Table<F>) {
    let mut reachable = true;
    loop {
        match poll(table).await {
            Ok(Some(update)) => {
                let before = table.in_force.generation();
                blocking(|| table.take(update));
                if table.in_force.generation() == before {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
            Ok(None) => {}
            Err(error) => {
                if std::mem::replace(&mut reachable, false) {
                    tracing::warn!(error = %chain(&error), "controller does not answer: serving the table in force");
                }
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
        }
        if !std::mem::replace(&mut reachable, true) {
            tracing::info!("controller answers again");
        }
    }
}

/// Runs work that waits for the disk without holding up other tasks, where the runtime has other threads.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::current().runtime_flavor() {
        tokio::runtime::RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// One long poll: none when nothing newer came in time.
async fn poll<F: Follower>(table: &Table<F>) -> Result<Option<TableUpdate<F::Section>>, ClientError> {
    let after = match (&table.whole, &*table.in_force.refused.lock().unwrap_or_else(PoisonError::into_inner)) {
        // After a refusal the whole table is asked for: a delta on a lost base would be refused for ever.
        (Some(whole), None) => format!("&after={}&cluster={}", whole.generation, whole.generation.cluster),
        _ => String::new(),
    };
    let (following, wait) = (&table.following, POLL_WAIT.as_secs());
    let path = format!("/v1/members/{}/table?kind={}&wait={wait}{after}", following.member, F::KIND);
    let limit = POLL_WAIT + Duration::from_secs(5);
    following.controller.get(&path, limit).await
}

async fn report_forever<F: Follower>(following: Following, follower: Arc<F>, in_force: Arc<InForce>) {
    loop {
        let mut status = MemberStatus {
            kind: F::KIND,
            boot: in_force.boot.clone(),
            in_force: in_force.generation(),
            refused: in_force.refused.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            live: BTreeMap::new(),
            instances: BTreeMap::new(),
            counters: BTreeMap::new(),
        };
        follower.report(&mut status);
        let path = format!("/v1/members/{}/status", following.member);
        let sent: Result<serde_json::Value, ClientError> =
            following.controller.call(reqwest::Method::PUT, &path, &status, Duration::from_secs(5)).await;
        let mut pause = STATUS_INTERVAL;
        if let Err(error) = sent {
            // One that is refused would be refused for ever, and a member that cannot speak is taken for dead.
            match error {
                ClientError::Refused(_) => tracing::warn!(error = %chain(&error), "status refused"),
                _ => tracing::debug!(error = %chain(&error), "status not delivered"),
            }
            // A controller that comes back waits for it.
            pause = RETRY_PAUSE;
        }
        tokio::time::sleep(STATUS_PAUSE).await;
        let _ = tokio::time::timeout(pause, in_force.changed.notified()).await;
    }
}
