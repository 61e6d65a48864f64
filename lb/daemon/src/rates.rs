//! Rates: when those who are counted may come again: one number each, shared by all data threads, because a client's
//! connections are spread over them.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use appbase_core::v1::Rate;
use dashmap::DashMap;
use lb_core::guard;

/// Who is counted, over all routes. When there are more, newcomers are counted together.
const COUNTED_MAX: usize = 100_000;
const FORGET_EVERY_MS: u64 = 1_000;

/// A route, and whose requests count together; none: all of them.
type Key = (u64, Option<IpAddr>);

#[derive(Default)]
pub(crate) struct Rates {
    due: DashMap<Key, Duration>,
    /// How many there are; asking the map itself looks at all its parts.
    count: AtomicUsize,
    /// When those were forgotten that are as good as new; 0: never.
    forgot_ms: AtomicU64,
}

impl Rates {
    /// Lets a request through, or says when one may come.
    pub(crate) fn pass(&self, route: u64, rate: &Rate, client: IpAddr, now: Duration) -> Result<(), Duration> {
        let key = (route, guard::counted(rate.of, client));
        if let Some(mut due) = self.due.get_mut(&key) {
            return guard::pass(rate, &mut due, now);
        }
        if self.count.load(Ordering::Relaxed) >= COUNTED_MAX && self.may_forget(now) {
            self.forget(now);
        }
        let is_full = self.count.load(Ordering::Relaxed) >= COUNTED_MAX;
        let key = if is_full { (route, Some(Ipv6Addr::UNSPECIFIED.into())) } else { key };
        let mut due = self.due.entry(key).or_insert_with(|| {
            self.count.fetch_add(1, Ordering::Relaxed);
            Duration::ZERO
        });
        guard::pass(rate, &mut due, now)
    }

    /// One that was let through does not count.
    pub(crate) fn give_back(&self, route: u64, rate: &Rate, client: IpAddr) {
        if let Some(mut due) = self.due.get_mut(&(route, guard::counted(rate.of, client))) {
            *due = due.saturating_sub(guard::pace(rate));
        }
    }

    /// It looks at all of them: once a second is enough.
    fn may_forget(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let last = self.forgot_ms.load(Ordering::Relaxed);
        let is_due = last == 0 || now.saturating_sub(last) >= FORGET_EVERY_MS;
        is_due && self.forgot_ms.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whoever may send a whole burst again is as good as new.
    fn forget(&self, now: Duration) {
        self.due.retain(|_, due| *due > now);
        self.count.store(self.due.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use appbase_core::v1::RateOf;

    use super::*;

    #[test]
    fn who_is_counted_is_bounded_and_who_was_long_ago_is_forgotten() {
        let (rates, second) = (Rates::default(), Duration::from_secs(1));
        let rate = Rate { requests: 1, seconds: 10, burst: None, of: RateOf::Client };
        let client = |number: usize| IpAddr::from([10, (number >> 16) as u8, (number >> 8) as u8, number as u8]);
        for number in 0..COUNTED_MAX {
            assert_eq!(rates.pass(1, &rate, client(number), second), Ok(()));
        }
        assert!(rates.pass(1, &rate, client(7), second).is_err());
        assert_eq!(rates.pass(1, &rate, client(COUNTED_MAX), second), Ok(()), "the first of all others");
        assert!(rates.pass(1, &rate, client(COUNTED_MAX + 1), second).is_err(), "counted with it");
        assert!(rates.due.len() <= COUNTED_MAX + 1);
        assert_eq!(rates.pass(1, &rate, client(COUNTED_MAX + 1), 12 * second), Ok(()));
        assert_eq!((rates.due.len(), rates.count.load(Ordering::Relaxed)), (1, 1));
        assert_eq!(rates.pass(2, &rate, client(COUNTED_MAX + 1), 12 * second), Ok(()), "another route");
    }

    #[test]
    fn what_is_given_back_was_never_counted() {
        let (rates, now, client) = (Rates::default(), Duration::from_secs(100), IpAddr::from([10, 0, 0, 1]));
        let rate = Rate { requests: 2, seconds: 10, burst: None, of: RateOf::Client };
        for _ in 0..5 {
            assert_eq!(rates.pass(1, &rate, client, now), Ok(()));
            rates.give_back(1, &rate, client);
        }
        let passed = (0..5).filter(|_| rates.pass(1, &rate, client, now).is_ok()).count();
        assert_eq!(passed, 2);
        rates.give_back(2, &rate, client);
    }
}
