//! Drain: what may still run on an instance that takes nothing new, and what is ended by force.

use std::time::Duration;

use crate::v1::Drain;

/// What is over at this moment of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Over {
    pub requests: bool,
    pub streams: bool,
}

/// What is over after draining for `elapsed`.
pub fn over(drain: Drain, elapsed: Duration) -> Over {
    Over {
        requests: elapsed >= Duration::from_millis(drain.requests_ms),
        streams: elapsed >= Duration::from_millis(drain.streams_ms),
    }
}

/// From `elapsed` until the next thing is over; none when all is.
pub fn wait(drain: Drain, elapsed: Duration) -> Option<Duration> {
    [drain.requests_ms, drain.streams_ms]
        .into_iter()
        .map(Duration::from_millis)
        .filter(|limit| *limit > elapsed)
        .map(|limit| limit - elapsed)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_streams_have_limits_of_their_own() {
        let drain = Drain { requests_ms: 100, streams_ms: 300 };
        let ms = Duration::from_millis;
        assert_eq!(over(drain, ms(0)), Over::default());
        assert_eq!(over(drain, ms(100)), Over { requests: true, streams: false });
        assert_eq!(over(drain, ms(300)), Over { requests: true, streams: true });
        assert_eq!(wait(drain, ms(0)), Some(ms(100)));
        assert_eq!(wait(drain, ms(100)), Some(ms(200)));
        assert_eq!(wait(drain, ms(300)), None);
    }
}
