//! Hold: requests that wait, bounded in number, bytes and time, until a table ends the hold or a first probe decides.
//!
//! They wait in a line, first come, first served. When it moves, so many go at once as an app that just came back can take;
//! each answer, or a second without one, lets the next one go. One that finds that it has to wait still keeps its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::refusal::Refusal;

/// Per app. Bodies are not read meanwhile, so each costs a connection and its head.
const WAITING_MAX: usize = 1_000;
/// Of heads, per app.
const BYTES_MAX: usize = 8 << 20;
const WAIT_LIMIT: Duration = Duration::from_secs(30);
/// So many of those that waited are with the app at once.
const GOING_MAX: usize = 64;
/// One that is with the app longer than this no longer keeps others waiting.
const GOING_LIMIT: Duration = Duration::from_secs(1);

/// The requests of one app that wait.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Places in it, whether they wait or go; read without the lock by whoever has nothing to do when there are none.
    places: AtomicUsize,
    /// Whoever was told to wait by an older snapshot may go.
    version: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: usize,
    /// The number of the next to come.
    next: u64,
    /// By number: which snapshot told it to wait, and how it is called.
    waiting: BTreeMap<u64, (u64, oneshot::Sender<()>)>,
    /// Called, and not answered yet: by number.
    going: BTreeSet<u64>,
}

impl Queue {
    fn call(&mut self, version: u64) {
        while self.going.len() < GOING_MAX {
            let Some((&number, _)) = self.waiting.iter().find(|(_, (seen, _))| *seen < version) else { return };
            if let Some((_, waiter)) = self.waiting.remove(&number) {
                // One that is gone meanwhile ends its place itself.
                let _ = waiter.send(());
                self.going.insert(number);
            }
        }
    }
}

impl Line {
    pub(crate) fn places(&self) -> usize {
        self.places.load(Ordering::SeqCst)
    }

    /// A snapshot is in force that may let them go.
    pub(crate) fn let_go(&self, version: u64) {
        // First this, then whether anybody is there: who comes in between finds it.
        self.version.fetch_max(version, Ordering::SeqCst);
        if self.places() > 0 {
            self.queue().call(version);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a line, and until when it is kept.
#[derive(Debug)]
pub(crate) struct Place {
    line: Arc<Line>,
    number: u64,
    bytes: usize,
    until: Instant,
}

impl Place {
    /// At the end of the line. `bytes`: what the request keeps in memory.
    pub(crate) fn take(line: &Arc<Line>, bytes: usize) -> Result<Self, Refusal> {
        let mut queue = line.queue();
        if line.places() >= WAITING_MAX || queue.bytes + bytes > BYTES_MAX {
            return Err(Refusal::hold_full());
        }
        line.places.fetch_add(1, Ordering::SeqCst);
        queue.bytes += bytes;
        let number = queue.next;
        queue.next += 1;
        drop(queue);
        Ok(Self { line: Arc::clone(line), number, bytes, until: Instant::now() + WAIT_LIMIT })
    }

    /// Keeps it while the app works, for a moment at most.
    pub(crate) async fn during<T>(self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        match tokio::time::timeout(GOING_LIMIT, work.as_mut()).await {
            Ok(done) => done,
            Err(_) => {
                drop(self);
                work.await
            }
        }
    }

    pub(crate) fn is_in(&self, line: &Arc<Line>) -> bool {
        Arc::ptr_eq(&self.line, line)
    }

    /// Waits until it is called: by a snapshot after number `seen`.
    pub(crate) async fn wait(&self, seen: u64) -> Result<(), Refusal> {
        let (call, called) = oneshot::channel();
        {
            let mut queue = self.line.queue();
            queue.going.remove(&self.number);
            queue.waiting.insert(self.number, (seen, call));
            // A snapshot that came in between calls nobody else.
            queue.call(self.line.version.load(Ordering::SeqCst));
        }
        match tokio::time::timeout_at(self.until, called).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Refusal::hold_timeout()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.line.queue();
        queue.waiting.remove(&self.number);
        queue.going.remove(&self.number);
        queue.bytes -= self.bytes;
        self.line.places.fetch_sub(1, Ordering::SeqCst);
        queue.call(self.line.version.load(Ordering::SeqCst));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(queue: &Line) -> Vec<u64> {
        queue.queue().going.iter().copied().collect()
    }

    /// Joins the line without being polled any further.
    fn stand(line: &Line, place: &Place, seen: u64) -> oneshot::Receiver<()> {
        let (call, called) = oneshot::channel();
        let mut queue = line.queue();
        queue.going.remove(&place.number);
        queue.waiting.insert(place.number, (seen, call));
        queue.call(line.version.load(Ordering::SeqCst));
        called
    }

    #[test]
    fn first_come_first_served_so_many_at_once() {
        let line = Arc::new(Line::default());
        let mut places: Vec<_> = (0..GOING_MAX + 3).map(|_| Place::take(&line, 10).expect("room")).collect();
        let _calls: Vec<_> = places.iter().rev().map(|place| stand(&line, place, 1)).collect();
        line.let_go(1);
        assert!(called(&line).is_empty(), "they were told by this one to wait");
        line.let_go(2);
        assert_eq!(called(&line), (0..GOING_MAX as u64).collect::<Vec<_>>());
        // The tenth is answered, the eleventh has to wait again and keeps its place.
        drop(places.remove(10));
        let _call = stand(&line, &places[10], 2);
        let going = called(&line);
        assert!(!going.contains(&10) && !going.contains(&11), "{going:?}");
        assert_eq!(going.last(), Some(&(GOING_MAX as u64 + 1)));
        line.let_go(3);
        drop(places.remove(0));
        assert!(called(&line).contains(&11), "before whoever came after it");
        places.clear();
        assert_eq!((line.places(), line.queue().bytes), (0, 0));
        assert!(called(&line).is_empty() && line.queue().waiting.is_empty());
    }

    #[test]
    fn a_line_has_its_bounds() {
        let line = Arc::new(Line::default());
        let full = (0..=WAITING_MAX).map_while(|_| Place::take(&line, 0).ok()).collect::<Vec<_>>();
        assert_eq!(full.len(), WAITING_MAX);
        drop(full);
        let large = (0..100).map_while(|_| Place::take(&line, BYTES_MAX / 10).ok()).collect::<Vec<_>>();
        assert_eq!(large.len(), 10);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_called_goes_and_who_is_not_is_told() {
        let line = Arc::new(Line::default());
        line.let_go(2);
        let first = Place::take(&line, 0).expect("room");
        assert_eq!(first.wait(1).await, Ok(()), "a newer snapshot came before it was in the line");
        drop(first);
        let line = Arc::new(Line::default());
        let place = Place::take(&line, 0).expect("room");
        let mut late = Place::take(&line, 0).expect("room");
        late.until = Instant::now();
        assert_eq!(late.wait(1).await, Err(Refusal::hold_timeout()));
        let (waits, other) = (place.wait(1), Arc::clone(&line));
        let (gone, ()) = tokio::join!(waits, async move { other.let_go(2) });
        assert_eq!(gone, Ok(()));
        assert_eq!(place.wait(1).await, Ok(()), "a newer snapshot is there already");
    }
}
