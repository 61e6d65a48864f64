//! The one place that reads time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall time for people, elapsed time for limits. Cloned freely; all clones agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Since this clock was started; never goes backwards.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Milliseconds since the Unix epoch: for display, schedules and certificates, never for limits.
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        crate::faults::shifted(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
