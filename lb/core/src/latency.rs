//! Latency: how long an instance takes to answer, as a mean that forgets (peak EWMA).
//!
//! The mean halves in [`HALF_LIFE`] as long as nothing new comes, so that one that was slow is tried again. An answer that
//! took longer than the mean is believed at once, a quicker one by and by: being slow is noticed by the next request. A
//! failure counts as an answer after [`FAILURE`], by and by as well: one among thousands changes little, and an instance
//! that fails quickly does not look like a quick one.

use std::time::Duration;

/// Until half of what is known is forgotten.
pub const HALF_LIFE: Duration = Duration::from_secs(7);
/// What a failure counts as, unless it took longer.
pub const FAILURE: Duration = Duration::from_secs(1);

/// The mean as of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    pub mean: Duration,
    pub at: Duration,
}

impl Latency {
    /// After an answer that took so long; `known`: what was known before.
    pub fn answered(known: Option<Self>, took: Duration, now: Duration) -> Self {
        let mean = match known {
            Some(known) if took < known.at(now) => known.mixed(took, now),
            _ => took,
        };
        Self { mean, at: now }
    }

    pub fn failed(known: Option<Self>, took: Duration, now: Duration) -> Self {
        let took = took.max(FAILURE);
        Self { mean: known.map_or(took, |known| known.mixed(took, now)), at: now }
    }

    /// The mean at a later moment.
    pub fn at(&self, now: Duration) -> Duration {
        self.mean.mul_f64(self.left(now))
    }

    /// Of what was known, this share is not forgotten.
    fn left(&self, now: Duration) -> f64 {
        let lives = now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        (-lives).exp2()
    }

    fn mixed(&self, took: Duration, now: Duration) -> Duration {
        let left = self.left(now);
        self.mean.mul_f64(left) + took.mul_f64(1.0 - left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_slow_answer_is_believed_at_once_and_a_quick_one_by_and_by() {
        let first = Latency::answered(None, MS(10), MS(0));
        assert_eq!(first.at(MS(0)), MS(10));
        let slow = Latency::answered(Some(first), MS(500), MS(1));
        assert_eq!(slow.at(MS(1)), MS(500));
        let quick = Latency::answered(Some(slow), MS(10), MS(101)).at(MS(101));
        assert!((MS(490)..MS(500)).contains(&quick), "{quick:?}");
        let later = Latency::answered(Some(slow), MS(10), MS(1) + HALF_LIFE).at(MS(1) + HALF_LIFE);
        assert_eq!(later, MS(255));
    }

    #[test]
    fn it_forgets() {
        let known = Latency::answered(None, MS(800), MS(0));
        assert_eq!(known.at(HALF_LIFE), MS(400));
        assert_eq!(known.at(HALF_LIFE * 3), MS(100));
        assert_eq!(known.at(Duration::from_secs(86_400)), Duration::ZERO);
    }

    #[test]
    fn who_fails_quickly_is_slow_and_one_failure_among_many_answers_is_little() {
        let failing = (0..20).fold(None, |known, second| Some(Latency::failed(known, MS(1), MS(1_000 * second))));
        assert_eq!(failing.map(|known| known.mean), Some(FAILURE));
        let busy = (0..1_000).fold(None, |known, ms| Some(Latency::answered(known, MS(2), MS(ms))));
        let failed = Latency::failed(busy, MS(1), MS(1_000)).mean;
        assert!((MS(2)..MS(3)).contains(&failed), "{failed:?}");
        assert_eq!(Latency::failed(None, MS(5_000), MS(0)).mean, MS(5_000));
    }
}
