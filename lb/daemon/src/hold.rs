//! Hold: requests that wait, bounded in number and time, until a table ends the hold or a first probe decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::balancer::Balancer;
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;

/// Per app. Their bodies are not read meanwhile, so each costs a connection and its head.
const WAITING_MAX: usize = 1_000;
const WAIT_LIMIT: Duration = Duration::from_secs(30);

/// A place among those that wait, and until when it is kept.
pub(crate) struct Place {
    held: Arc<AtomicUsize>,
    until: Instant,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits for a snapshot newer than `seen`. The place is kept over several of them.
pub(crate) async fn wait(
    balancer: &Balancer,
    held: &Arc<AtomicUsize>,
    seen: &Arc<Snapshot>,
    place: &mut Option<Place>,
) -> Result<(), Refusal> {
    let until = match place {
        Some(place) => place.until,
        None => {
            let before = held.fetch_add(1, Ordering::SeqCst);
            let taken = Place { held: Arc::clone(held), until: Instant::now() + WAIT_LIMIT };
            if before >= WAITING_MAX {
                return Err(Refusal::hold_full());
            }
            place.insert(taken).until
        }
    };
    let mut version = balancer.version.subscribe();
    // Subscribed first, then compared: a snapshot that came in between is seen by one of both.
    if !Arc::ptr_eq(&balancer.snapshot.load(), seen) {
        return Ok(());
    }
    tokio::time::timeout_at(until, version.changed()).await.map(|_| ()).map_err(|_| Refusal::hold_timeout())
}
