//! Time as the planner sees it: two numbers that come in, and limits kept as time left.

use std::time::Duration;

use crate::v1::state::Timer;

/// One look at the clock, for a whole pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For people.
    pub unix_ms: u64,
    /// Since the controller's clock was started: what limits are measured with.
    pub elapsed: Duration,
}

impl Timer {
    pub fn start(now: Now, left_ms: u64) -> Self {
        Self { left_ms, as_of: now.elapsed }
    }

    pub fn left(&self, now: Now) -> Duration {
        Duration::from_millis(self.left_ms).saturating_sub(now.elapsed.saturating_sub(self.as_of))
    }

    pub fn is_over(&self, now: Now) -> bool {
        self.left(now).is_zero()
    }
}
