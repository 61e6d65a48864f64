//! Latency: how long an instance takes to answer, as a mean that forgets (peak EWMA).
//!
//! The mean halves in [`HALF_LIFE`] as long as nothing new comes, so that one that was slow is tried again. An answer that
//! took longer than the mean is believed at once, a quicker one by and by: being slow is noticed by the next request. How
//! quickly an instance fails says nothing of how quick it is; that it fails is [`Failures`]' business.

use std::time::Duration;

/// Until half of what is known is forgotten.
pub const HALF_LIFE: Duration = Duration::from_secs(7);
/// What one answer, good or bad, counts for beside all before it.
const NEWEST: f64 = 0.5;

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

    /// The mean at a later moment.
    pub fn at(&self, now: Duration) -> Duration {
        self.mean.mul_f64(left(self.at, now))
    }

    fn mixed(&self, took: Duration, now: Duration) -> Duration {
        let left = left(self.at, now);
        self.mean.mul_f64(left) + took.mul_f64(1.0 - left)
    }
}

/// Of what was known then, this share is not forgotten.
fn left(then: Duration, now: Duration) -> f64 {
    let lives = now.saturating_sub(then).as_secs_f64() / HALF_LIFE.as_secs_f64();
    (-lives).exp2()
}

/// Which share of its answers failed, the last ones above all; forgotten as latency is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Failures {
    pub share: f64,
    pub at: Duration,
}

impl Failures {
    /// After one more answer.
    pub fn after(known: Option<Self>, failed: bool, now: Duration) -> Self {
        let before = known.map_or(0.0, |known| known.at(now));
        let newest = if failed { NEWEST } else { 0.0 };
        Self { share: before * (1.0 - NEWEST) + newest, at: now }
    }

    pub fn at(&self, now: Duration) -> f64 {
        self.share * left(self.at, now)
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
    fn failures_in_a_row_weigh_and_are_forgotten() {
        let after = |known, failed, ms| Some(Failures::after(known, failed, MS(ms)));
        let one = after(None, true, 0);
        assert_eq!(one.map(|known| known.share), Some(0.5));
        let many = (1..10).fold(one, |known, ms| after(known, true, ms)).expect("known");
        assert!((0.99..1.0).contains(&many.share), "{many:?}");
        assert!((0.48..0.52).contains(&many.at(MS(9) + HALF_LIFE)), "half of it is forgotten");
        let good = (10..14).fold(many, |known, ms| Failures::after(Some(known), false, MS(ms)));
        assert!(good.share < 0.07, "{good:?}");
    }
}
