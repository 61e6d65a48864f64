//! Gate: counts work in flight and can be closed. Whoever enters is counted before the gate is looked at, so that a
//! close never misses one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct Gate {
    inside: AtomicU64,
    closed: AtomicBool,
    left: Notify,
}

/// Being inside; leaving is dropping it.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
}

impl Gate {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Counted first, then the look: SeqCst on both sides, so that of an entry and a close at the same moment at least
    /// one sees the other (Dekker's pattern).
    pub fn enter(self: &Arc<Self>) -> Option<Pass> {
        self.inside.fetch_add(1, Ordering::SeqCst);
        let pass = Pass { gate: Arc::clone(self) };
        (!self.closed.load(Ordering::SeqCst)).then_some(pass)
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.left.notify_waiters();
    }

    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub fn inside(&self) -> u64 {
        self.inside.load(Ordering::SeqCst)
    }

    /// Ends when the gate is closed and nobody is inside.
    pub async fn emptied(&self) {
        loop {
            let left = self.left.notified();
            if self.is_closed() && self.inside() == 0 {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.gate.inside.fetch_sub(1, Ordering::SeqCst) == 1 && self.gate.is_closed() {
            self.gate.left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn closed_gates_refuse_and_empty() {
        let gate = Gate::new();
        let first = gate.enter().expect("open");
        gate.close();
        assert!(gate.enter().is_none());
        assert_eq!(gate.inside(), 1, "a refused entry does not stay counted");
        let waiting = gate.clone();
        let emptied = tokio::time::timeout(std::time::Duration::from_secs(5), async move { waiting.emptied().await });
        drop(first);
        emptied.await.expect("emptied once the last one left");
    }
}
