//! Counts: counters in memory, so that a test can tell which instance got which request, and how often.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Whoever sends requests decides how many keys there are; memory has an end.
const KEYS_MAX: usize = 100_000;
pub(crate) const KEY_BYTES_MAX: usize = 200;

#[derive(Debug, Default)]
pub(crate) struct Counts {
    by_key: Mutex<BTreeMap<String, u64>>,
}

impl Counts {
    /// The new count; none when there is no room for another key.
    pub(crate) fn increment(&self, key: &str) -> Option<u64> {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if by_key.len() >= KEYS_MAX && !by_key.contains_key(key) {
            return None;
        }
        let count = by_key.entry(key.to_owned()).or_default();
        *count += 1;
        Some(*count)
    }

    pub(crate) fn get(&self, key: &str) -> u64 {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or_default()
    }

    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
