//! Retry: when a request that failed may be sent once more, always to an instance that was not tried yet.
//!
//! | what failed | who may be sent again |
//! | --- | --- |
//! | no connection was made | every request |
//! | bytes were sent, no answer began | idempotent methods, or with `Idempotency-Key` |
//! | the same, on a connection that was used before, with none of the body sent | every request that has a body |
//! | an answer began | none |
//!
//! The third row is the pooled connection that the app closed at the same moment: without its body the app cannot have
//! carried out the request. Never more than [`RETRIES_MAX`] times, and never when the body is no longer at hand.

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

#[cfg(test)]
mod tests {
    use super::*;

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
