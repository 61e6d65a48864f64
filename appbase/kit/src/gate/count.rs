//! Count: how many are inside of a gate, and whether it is closed; the part of a gate that is atomics alone.
//!
//! `tests/gate.rs` reads this file with the atomics of a model checker, and looks at it in every order that two cores
//! may bring it into.

use super::atomics::{AtomicBool, AtomicU64, Ordering};

#[derive(Debug)]
pub(super) struct Count {
    inside: AtomicU64,
    closed: AtomicBool,
}

impl Count {
    pub(super) fn new() -> Self {
        Self { inside: AtomicU64::new(0), closed: AtomicBool::new(false) }
    }

    /// Counted first, then the look: SeqCst on both sides, so that of an entry and a close at the same moment at least
    /// one sees the other (Dekker's pattern). False: it is closed; who was refused leaves like the others.
    pub(super) fn enter(&self) -> bool {
        self.inside.fetch_add(1, Ordering::SeqCst);
        !self.closed.load(Ordering::SeqCst)
    }

    /// True: the last one left a closed gate, and whoever waits for that is to be told.
    pub(super) fn leave(&self) -> bool {
        self.inside.fetch_sub(1, Ordering::SeqCst) == 1 && self.is_closed()
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn inside(&self) -> u64 {
        self.inside.load(Ordering::SeqCst)
    }

    /// Takes nobody, and has nobody left.
    pub(super) fn is_empty(&self) -> bool {
        self.is_closed() && self.inside() == 0
    }
}
