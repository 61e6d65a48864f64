//! Eject: an instance that fails requests is left out for a while, whatever its probes say.
//!
//! Gateway failures in a row do it: 502, 503 and 504 of the app, answers that break off or are none, connections that fail.
//! An app's 500 says something of a request, not of an instance. It is out for 10 s, twice as long each time again, at most
//! 5 minutes; then the first probe that passes lets it in. Having been in for 5 minutes makes the next time the first.
//! Of the instances of a release at most half are out, so the last one never is.

use std::time::Duration;

pub const OUT_FIRST: Duration = Duration::from_secs(10);
pub const OUT_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ejection {
    times: u32,
    until: Option<Duration>,
    came_back: Duration,
}

impl Ejection {
    pub fn is_out(&self) -> bool {
        self.until.is_some()
    }

    /// Until when at least.
    pub fn until(&self) -> Option<Duration> {
        self.until
    }

    /// Leaves it out from now on; answers for how long.
    pub fn eject(&mut self, now: Duration) -> Duration {
        if now.saturating_sub(self.came_back) >= OUT_MAX {
            self.times = 0;
        }
        let out = OUT_FIRST.saturating_mul(1 << self.times.min(16)).min(OUT_MAX);
        self.times = self.times.saturating_add(1);
        self.until = Some(now + out);
        out
    }

    /// A probe passed. True when that lets it in again.
    pub fn passed(&mut self, now: Duration) -> bool {
        let is_over = self.until.is_some_and(|until| now >= until);
        if is_over {
            self.until = None;
            self.came_back = now;
        }
        is_over
    }
}

/// Whether one more of a release may be left out. `taking`: instances that take requests now; `out`: left out already.
pub fn may_eject(taking: usize, out: usize) -> bool {
    taking > out + 1
}

/// Whether a status says that the instance, not the request, is at fault.
pub fn is_gateway_failure(status: u16) -> bool {
    matches!(status, 502..=504)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn each_time_is_twice_as_long_and_a_probe_ends_it() {
        let mut ejection = Ejection::default();
        let mut now = SECONDS(1_000);
        for expect in [10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(ejection.eject(now), SECONDS(expect));
            assert!(!ejection.passed(now + SECONDS(expect - 1)), "not yet");
            assert!(ejection.is_out());
            now += SECONDS(expect);
            assert!(ejection.passed(now));
            assert!(!ejection.is_out() && !ejection.passed(now), "it is in already");
            now += SECONDS(1);
        }
        assert_eq!(ejection.eject(now + OUT_MAX), OUT_FIRST, "it was in for long");
    }

    #[test]
    fn never_more_than_half_and_never_the_last() {
        for (all, expect) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
            let mut out = 0;
            while may_eject(all - out, out) {
                out += 1;
            }
            assert_eq!(out.min(all), expect.min(all), "of {all}");
        }
    }
}
