//! Retry: when a request that failed may be sent once more: to an instance that was not tried yet, in the third row to the
//! same one on a new connection.
//!
//! | what failed | who may be sent again |
//! | --- | --- |
//! | no connection was made | every request |
//! | bytes were sent, no answer began | idempotent methods, or with `Idempotency-Key` |
//! | the same, on a connection that was used before, with none of the body sent | every request that has a body |
//! | an answer began | none |
//!
//! The third row is the pooled connection that the app closed at the same moment: without its body the app cannot have
//! carried out the request. Never more than [`RETRIES_MAX`] times, never when the body is no longer at hand, and never
//! beyond the [`Budget`] of its app.

use std::time::Duration;

/// Further attempts after the first.
pub const RETRIES_MAX: u32 = 2;

/// How much of the request may have reached the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sent {
    Nothing,
    /// The head, and nothing of a body that was to follow.
    HeadOnly,
    /// All of it, or an unknown part.
    Body,
}

/// One failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure<'a> {
    pub method: &'a str,
    pub sent: Sent,
    /// Something of the answer came.
    pub answered: bool,
    /// Attempts made so far, this one included.
    pub attempts: u32,
    pub idempotency_key: bool,
    /// The connection had carried another request before.
    pub reused: bool,
    /// What was read of the body is still at hand, whole.
    pub replayable: bool,
}

pub fn allowed(failure: &Failure<'_>) -> bool {
    if failure.answered || failure.attempts > RETRIES_MAX || !failure.replayable {
        return false;
    }
    match failure.sent {
        Sent::Nothing => true,
        Sent::HeadOnly if failure.reused => true,
        Sent::HeadOnly | Sent::Body => failure.idempotency_key || is_idempotent(failure.method),
    }
}

/// RFC 9110, section 9.2.2.
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Retries an app may cause: a share of the requests of the last while and some more, so that an instance that is gone is
/// passed over, and an app that is down as a whole is not asked twice as much as before.
///
/// What is earned is forgotten as time goes (an exponential window of [`Budget::WINDOW`]), so the balance never exceeds the
/// share of what came in about that time.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    balance: f64,
    at: Duration,
    /// Requests counted until then.
    requests: u64,
}

impl Budget {
    pub const WINDOW: Duration = Duration::from_secs(10);
    /// Of the requests.
    pub const SHARE: f64 = 0.2;
    /// More per second, whatever comes.
    pub const RESERVE: f64 = 3.0;

    /// At the start of an app: the reserve of a whole window.
    pub fn new(now: Duration) -> Self {
        Self { balance: Self::RESERVE * Self::WINDOW.as_secs_f64(), at: now, requests: 0 }
    }

    /// Takes one retry out, unless none is left. `requests`: how many came since the start.
    pub fn withdraw(&mut self, requests: u64, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        let window = Self::WINDOW.as_secs_f64();
        let left = (-passed / window).exp();
        let came = requests.saturating_sub(self.requests) as f64;
        // What came evenly over the time that has passed, each part forgotten since then.
        let kept = if passed > 0.0 { window * (1.0 - left) / passed } else { 1.0 };
        let earned = (Self::SHARE * came + Self::RESERVE * passed) * kept;
        *self = Self { balance: self.balance * left + earned, at: now, requests };
        let is_enough = self.balance >= 1.0;
        if is_enough {
            self.balance -= 1.0;
        }
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_fifth_of_the_requests_and_three_a_second() {
        /// How many of 1,000 retries a second are granted, over 20 s, once 100 s have passed.
        fn granted(requests_per_second: u64) -> u64 {
            let mut budget = Budget::new(Duration::ZERO);
            let mut granted = 0;
            for ms in 0..120_000u64 {
                let now = Duration::from_millis(ms);
                let is_granted = budget.withdraw(ms * requests_per_second / 1000, now);
                granted += u64::from(is_granted && ms >= 100_000);
            }
            granted
        }
        for (requests, expect) in [(0, 60), (100, 460), (1_000, 4_060)] {
            let granted = granted(requests);
            assert!(granted.abs_diff(expect) <= 1 + expect / 50, "{requests} a second: {granted}, not {expect}");
        }
    }

    #[test]
    fn a_burst_may_take_what_the_last_while_earned() {
        let burst = |requests: u64, since: u64| {
            let (now, mut budget) = (Duration::from_secs(since), Budget::new(Duration::ZERO));
            (0..10_000).take_while(|_| budget.withdraw(requests, now)).count()
        };
        assert_eq!(burst(0, 0), 30, "the reserve");
        assert_eq!(burst(0, 1_000), 30, "which does not grow");
        // 100 a second for long: a fifth of 10 s of them, and the reserve.
        assert_eq!(burst(100_000, 1_000), 230);
    }

    #[test]
    fn the_table_of_the_module_is_what_happens() {
        let failure = |method, sent| Failure {
            method,
            sent,
            answered: false,
            attempts: 1,
            idempotency_key: false,
            reused: false,
            replayable: true,
        };
        let post = |sent| failure("POST", sent);
        for (case, expect) in [
            (post(Sent::Nothing), true),
            (post(Sent::HeadOnly), false),
            (post(Sent::Body), false),
            (failure("GET", Sent::Body), true),
            (failure("PUT", Sent::HeadOnly), true),
            (failure("PATCH", Sent::Body), false),
            (failure("get", Sent::Body), false),
            (Failure { idempotency_key: true, ..post(Sent::Body) }, true),
            (Failure { reused: true, ..post(Sent::HeadOnly) }, true),
            (Failure { reused: true, ..post(Sent::Body) }, false),
            (Failure { answered: true, ..failure("GET", Sent::Body) }, false),
            (Failure { answered: true, ..post(Sent::Nothing) }, false),
            (Failure { replayable: false, ..failure("GET", Sent::Body) }, false),
            (Failure { attempts: 2, ..post(Sent::Nothing) }, true),
            (Failure { attempts: 3, ..post(Sent::Nothing) }, false),
        ] {
            assert_eq!(allowed(&case), expect, "{case:?}");
        }
    }
}
