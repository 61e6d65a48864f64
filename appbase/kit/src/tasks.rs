//! Tasks: every spawned task has a name and is waited for.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The tasks of one program. A panic in one is logged with its name and does not take others along.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

/// Something that is no task and is waited for like one until it is dropped: a store, say, whose directory is free only then.
#[derive(Debug)]
pub struct Awaited {
    name: &'static str,
    tasks: Tasks,
    _token: TaskTrackerToken,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.tasks.count(self.name, -1);
    }
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn spawn<F>(&self, name: &'static str, task: F) -> tokio::task::JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let tasks = self.clone();
        tasks.count(name, 1);
        let inner = tokio::spawn(task);
        self.tracker.spawn(async move {
            let outcome = inner.await;
            tasks.count(name, -1);
            match outcome {
                Ok(value) => Some(value),
                Err(error) if error.is_panic() => {
                    tracing::error!(task = name, "task panicked");
                    None
                }
                Err(_) => None,
            }
        })
    }

    pub fn awaited(&self, name: &'static str) -> Awaited {
        self.count(name, 1);
        Awaited { name, tasks: self.clone(), _token: self.tracker.token() }
    }

    /// Waits until all have ended, at most `limit`; answers the names of those that still run.
    pub async fn finish(&self, limit: Duration) -> Vec<String> {
        self.tracker.close();
        if tokio::time::timeout(limit, self.tracker.wait()).await.is_ok() {
            return Vec::new();
        }
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().filter(|(_, count)| **count > 0).map(|(name, count)| format!("{name} ({count})")).collect()
    }

    fn count(&self, name: &'static str, change: isize) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(name).or_default();
        *count = count.saturating_add_signed(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_task_is_waited_for_and_named() {
        let tasks = Tasks::new();
        let store = tasks.awaited("store");
        assert_eq!(tasks.finish(Duration::ZERO).await, ["store (1)"]);
        drop(store);
        assert!(tasks.finish(Duration::from_secs(1)).await.is_empty());
    }
}
