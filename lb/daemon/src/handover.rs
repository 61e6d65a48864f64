//! Handover: a newer lb takes over from an older one, without a connection that is refused.
//!
//! ```text
//!   newer (`predecessor`)                      older (`successor`)
//!   take ─────────────────────────────────►    still serves
//!        ◄──────────────────────── listeners   the descriptors themselves, not others on the same port
//!   reads the saved table, probes
//!   stand still ──────────────────────────►    follows no table, sends no status
//!        ◄──────────────────────────── still   with the table that holds
//!   reads the saved table again, accepts
//!   serve ────────────────────────────────►    accepts no more
//!        ◄───────────────────────────── left   what it still carries, again and again, until it ends
//!   follows; its status is that of both
//!   table saved ──────────────────────────►    reads it
//! ```
//! Owns: that one process of a member follows at a time, and that its status holds for every process that carries
//! requests. If the newer one is gone before it serves, the older one goes on; if the older one is, the newer one serves.
//! Refuses: another user's process, other versions of these words.

mod channel;
mod predecessor;
mod successor;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use appbase_core::Generation;
use appbase_core::v1::MemberStatus;
use lb_core::v1::handover::Left;
use tokio::net::UnixListener;
use tokio::sync::Notify;

use channel::ChannelError;
pub(crate) use predecessor::Predecessor;
pub(crate) use successor::{Estate, Listeners, await_successor};

/// Names of listeners.
pub(crate) const HTTP: &str = "http";
pub(crate) const HTTPS: &str = "https";
pub(crate) const ADMIN: &str = "admin";
const SOCKET: &str = "handover";

#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("the load balancer that serves here refuses: {0}")]
    Refused(String),
    #[error("the load balancer that serves here could not be taken over from: {0}")]
    Broken(String),
    #[error("the load balancer that serves here has table {theirs} in force, and the one that is saved is {mine}")]
    OtherTable { theirs: Generation, mine: String },
}

impl From<ChannelError> for HandoverError {
    fn from(error: ChannelError) -> Self {
        Self::Broken(error.to_string())
    }
}

/// What the processes before this one still carry, as far as is known here. A status is that of all of them.
#[derive(Default)]
pub(crate) struct Remaining {
    left: Mutex<Option<Left>>,
    /// A newer table is saved.
    saved: Notify,
}

impl Remaining {
    pub(crate) fn left(&self) -> Option<Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, left: Option<Left>) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = left;
    }

    pub(crate) fn table_saved(&self) {
        self.saved.notify_one();
    }

    /// Nothing is drained that a process before this one uses, or may still begin to use for want of the table.
    pub(crate) fn add_to(&self, status: &mut MemberStatus) {
        let Some(left) = self.left() else { return };
        let is_behind = is_older(left.in_force.as_ref(), status.in_force.as_ref());
        for (id, report) in &mut status.instances {
            let inside = left.instances.get(id).copied().unwrap_or_default();
            report.in_flight += inside.in_flight;
            report.streams += inside.streams;
            report.cut += inside.cut;
            report.drained &= !is_behind && inside.in_flight + inside.streams == 0;
        }
        if is_behind {
            status.in_force = left.in_force;
        }
    }

    pub(crate) fn add_to_left(&self, all: &mut Left) {
        let Some(left) = self.left() else { return };
        all.connections += left.connections;
        for (id, inside) in left.instances {
            let sum = all.instances.entry(id).or_default();
            sum.in_flight += inside.in_flight;
            sum.streams += inside.streams;
            sum.cut += inside.cut;
        }
        if is_older(left.in_force.as_ref(), all.in_force.as_ref()) {
            all.in_force = left.in_force;
        }
    }
}

fn is_older(one: Option<&Generation>, other: Option<&Generation>) -> bool {
    let place = |generation: &Generation| (generation.epoch, generation.number);
    one.map(place) < other.map(place)
}

/// Which network namespace this is. Listeners work in that alone in which they were made, and end with it.
fn network() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/net").ok().map(|namespace| namespace.ino())
}

/// Where a newer lb is waited for. None: it cannot be had, which is no reason not to serve.
pub(crate) fn listen(path: &Path) -> Option<UnixListener> {
    match bind(path) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(path = %path.display(), error = %error, "no newer lb can take over from this one");
            None
        }
    }
}

/// Made under another name first: nobody finds it before it is its user's alone, and it takes the place of one whose
/// process was killed.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use appbase_core::v1::{InstanceReport, MemberKind};
    use appbase_core::{ClusterId, InstanceId};
    use lb_core::v1::handover::Inside;

    use super::*;

    fn generation(number: u64) -> Generation {
        Generation { cluster: ClusterId::parse("test").expect("a name"), epoch: 1, number }
    }

    /// The status of an lb with table 7 and two drained instances, beside an older one.
    fn status(table: u64, one_in_flight: u64) -> MemberStatus {
        let id = |name| InstanceId::parse(name).expect("a name");
        let drained = InstanceReport { drained: true, ..InstanceReport::default() };
        let mut status = MemberStatus {
            kind: MemberKind::Lb,
            boot: String::new(),
            in_force: Some(generation(7)),
            refused: None,
            live: BTreeMap::new(),
            instances: BTreeMap::from([(id("one"), drained.clone()), (id("two"), drained)]),
            counters: BTreeMap::new(),
        };
        let inside = Inside { in_flight: one_in_flight, ..Inside::default() };
        let instances = BTreeMap::from([(id("one"), inside)]);
        let remaining = Remaining::default();
        remaining.set(Some(Left { in_force: Some(generation(table)), instances, ..Left::default() }));
        remaining.add_to(&mut status);
        status
    }

    fn drained(status: &MemberStatus) -> Vec<bool> {
        status.instances.values().map(|report| report.drained).collect()
    }

    #[test]
    fn nothing_is_drained_that_an_older_process_uses_or_may_use() {
        let same = status(7, 1);
        assert_eq!((drained(&same), same.in_force), (vec![false, true], Some(generation(7))));
        let behind = status(6, 0);
        assert_eq!((drained(&behind), behind.in_force), (vec![false, false], Some(generation(6))));
        let ahead = status(8, 0);
        assert_eq!((drained(&ahead), ahead.in_force), (vec![true, true], Some(generation(7))));
    }
}
