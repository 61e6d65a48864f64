//! Gate: counts work in flight and can be closed. Whoever enters is counted before the gate is looked at, so that a
//! close never misses one.

mod count;

use std::sync::Arc;

use tokio::sync::Notify;

use count::Count;

/// Those of the machine.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
}

#[derive(Debug)]
pub struct Gate {
    count: Count,
    left: Notify,
}

/// Being inside; leaving is dropping it.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
}

impl Gate {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { count: Count::new(), left: Notify::new() })
    }

    pub fn enter(self: &Arc<Self>) -> Option<Pass> {
        let is_open = self.count.enter();
        let pass = Pass { gate: Arc::clone(self) };
        is_open.then_some(pass)
    }

    pub fn close(&self) {
        self.count.close();
        self.left.notify_waiters();
    }

    pub fn open(&self) {
        self.count.open();
    }

    pub fn is_closed(&self) -> bool {
        self.count.is_closed()
    }

    pub fn inside(&self) -> u64 {
        self.count.inside()
    }

    /// Ends when the gate is closed and nobody is inside.
    pub async fn emptied(&self) {
        loop {
            let left = self.left.notified();
            if self.count.is_empty() {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.gate.count.leave() {
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
