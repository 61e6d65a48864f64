//! Tasks: every spawned task has a name and is waited for.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::task::TaskTracker;

/// The tasks of one program. A panic in one is logged with its name and does not take others along.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
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
