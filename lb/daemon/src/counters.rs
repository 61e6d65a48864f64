//! Counters: what was answered, by section and release, since lb started.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use appbase_core::v1::Counters;
use appbase_core::v1::status::DURATION_BUCKETS_MS;

/// Cumulative numbers of one release. Read without a lock, so they may be one request apart from each other.
#[derive(Debug, Default)]
pub(crate) struct ReleaseCounters {
    requests: AtomicU64,
    failed: AtomicU64,
    app_errors: AtomicU64,
    durations: [AtomicU64; DURATION_BUCKETS_MS.len() + 1],
    duration_us: AtomicU64,
    /// By first digit of the status; 0 for requests that got no answer.
    classes: [AtomicU64; 6],
    copies: AtomicU64,
    copies_failed: AtomicU64,
}

/// How one request ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// What the client got; none when it got nothing.
    pub(crate) status: Option<u16>,
    /// lb answered with an error, or the answer broke off.
    pub(crate) failed: bool,
    /// lb answered itself: whatever that says, the app did not.
    pub(crate) by_lb: bool,
    pub(crate) took: Duration,
}

impl ReleaseCounters {
    pub(crate) fn count(&self, outcome: &Outcome) {
        let add = |counter: &AtomicU64, value: u64| counter.fetch_add(value, Ordering::Relaxed);
        add(&self.requests, 1);
        let bucket = DURATION_BUCKETS_MS.iter().position(|limit| outcome.took <= Duration::from_millis(*limit));
        add(&self.durations[bucket.unwrap_or(DURATION_BUCKETS_MS.len())], 1);
        add(&self.duration_us, u64::try_from(outcome.took.as_micros()).unwrap_or(u64::MAX));
        let class = outcome.status.map_or(0, |status| usize::from(status / 100));
        add(&self.classes[class.min(5)], 1);
        if outcome.failed {
            add(&self.failed, 1);
        } else if class == 5 && !outcome.by_lb {
            add(&self.app_errors, 1);
        }
    }

    /// A copy of a request was answered, or not, and nobody waited for it.
    pub(crate) fn count_copy(&self, fine: bool) {
        self.copies.fetch_add(1, Ordering::Relaxed);
        self.copies_failed.fetch_add(u64::from(!fine), Ordering::Relaxed);
    }

    pub(crate) fn report(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let durations: Vec<u64> = self.durations.iter().map(read).collect();
        Counters {
            requests: read(&self.requests),
            failed: read(&self.failed),
            app_errors: read(&self.app_errors),
            copies: read(&self.copies),
            copies_failed: read(&self.copies_failed),
            durations: if durations.iter().any(|count| *count > 0) { durations } else { Vec::new() },
        }
    }

    /// Answers by class of status, `none` first.
    pub(crate) fn classes(&self) -> [(&'static str, u64); 6] {
        let names = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
        std::array::from_fn(|at| (names[at], self.classes[at].load(Ordering::Relaxed)))
    }

    pub(crate) fn duration_seconds(&self) -> f64 {
        Duration::from_micros(self.duration_us.load(Ordering::Relaxed)).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_once_in_its_bucket() {
        let counters = ReleaseCounters::default();
        let count = |status, failed, ms| {
            counters.count(&Outcome { status, failed, by_lb: false, took: Duration::from_millis(ms) });
        };
        count(Some(200), false, 1);
        count(Some(500), false, 2);
        count(Some(502), true, 60_000);
        count(None, true, 3);
        let report = counters.report();
        assert_eq!((report.requests, report.failed, report.app_errors), (4, 2, 1));
        assert_eq!(report.durations, [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(counters.classes().map(|(_, count)| count), [1, 0, 1, 0, 0, 2]);
    }
}
