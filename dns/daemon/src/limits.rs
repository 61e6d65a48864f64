//! Limits: how much one source and all together may have in flight.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug)]
pub(crate) struct Limits {
    each_max: usize,
    total_max: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    total: usize,
    /// Holds no more entries than `total`.
    each: BTreeMap<IpAddr, usize>,
}

/// A place within the limits; leaving is dropping it.
#[derive(Debug)]
pub(crate) struct Place {
    limits: Arc<Limits>,
    source: IpAddr,
}

impl Limits {
    pub(crate) fn new(each_max: usize, total_max: usize) -> Arc<Self> {
        Arc::new(Self { each_max, total_max, inside: Mutex::default() })
    }

    pub(crate) fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = inside.each.get(&source).copied().unwrap_or(0);
        if inside.total >= self.total_max || mine >= self.each_max {
            return None;
        }
        inside.total += 1;
        inside.each.insert(source, mine + 1);
        Some(Place { limits: Arc::clone(self), source })
    }

    pub(crate) fn inside(&self) -> usize {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.limits.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.total -= 1;
        match inside.each.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                inside.each.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_a_share() {
        let limits = Limits::new(2, 3);
        let (one, other): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let places = (limits.enter(one).expect("free"), limits.enter(one).expect("free"));
        assert!(limits.enter(one).is_none(), "its share is used");
        let third = limits.enter(other).expect("free");
        assert!(limits.enter(other).is_none(), "all is used");
        drop(places);
        assert!(limits.enter(other).is_some());
        drop(third);
        assert_eq!(limits.inside(), 0);
        assert!(limits.inside.lock().expect("not poisoned").each.is_empty());
    }
}
