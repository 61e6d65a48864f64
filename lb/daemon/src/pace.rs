//! Pace: how slow one side may be while the other waits for it. A client that sends or takes a byte now and then holds an
//! instance's connection for as long as it likes; one that is silent altogether is [`Patience`]'s business.
//!
//! [`Patience`]: crate::patience::Patience

use std::time::Duration;

use tokio::time::Instant;

/// In each window. A telephone's worst connection brings a hundred times as much.
const BYTES_MIN: usize = 1 << 10;

#[derive(Debug)]
pub(crate) struct Pace {
    length: Duration,
    /// The beginning of the window, and what moved in it; none while nobody waits.
    window: Option<(Instant, usize)>,
}

impl Pace {
    pub(crate) fn new(length: Duration) -> Self {
        Self { length, window: None }
    }

    /// Someone waits from now on, unless it does already.
    pub(crate) fn begin(&mut self) {
        self.window.get_or_insert_with(|| (Instant::now(), 0));
    }

    /// Nobody waits.
    pub(crate) fn end(&mut self) {
        self.window = None;
    }

    /// So much moved. True: that is too little for the time it took.
    pub(crate) fn is_too_slow(&mut self, moved: usize) -> bool {
        self.window.is_some() && self.is_too_slow_at(Instant::now(), moved)
    }

    fn is_too_slow_at(&mut self, now: Instant, moved: usize) -> bool {
        let Some((since, bytes)) = &mut self.window else { return false };
        *bytes += moved;
        if now - *since < self.length {
            return false;
        }
        let too_slow = *bytes < BYTES_MIN;
        self.window = Some((now, 0));
        too_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_window_that_someone_waited_through_counts() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(Duration::from_secs(30));
        assert!(!pace.is_too_slow_at(at(100), 1), "nobody waits");
        pace.window = Some((start, 0));
        assert!(!pace.is_too_slow_at(at(29), 1));
        assert!(pace.is_too_slow_at(at(31), 1000));
        assert!(!pace.is_too_slow_at(at(45), 1000));
        assert!(!pace.is_too_slow_at(at(62), 100), "enough in this one");
        pace.end();
        assert!(!pace.is_too_slow_at(at(200), 1));
    }
}
