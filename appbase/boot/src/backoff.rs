//! Backoff: how long to wait before trying again.

use std::time::Duration;

/// Doubles from `first` to `most`.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Between two starts of an app: 200 ms to 30 s, so that a crash loop neither busies the machine nor hides.
    pub(crate) fn restarts() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(30))
    }

    /// Between two attempts to fetch: a repository that comes back is noticed within 5 s.
    pub(crate) fn fetches() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(5))
    }

    fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.most);
        pause
    }

    /// After `ran`: an app that ran this long was not in a crash loop.
    pub(crate) fn pause_after(&mut self, ran: Duration) -> Duration {
        const SOUND: Duration = Duration::from_secs(30);
        if ran >= SOUND {
            self.next = self.first;
        }
        self.pause()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_its_limit_and_begins_again_after_a_sound_run() {
        let mut backoff = Backoff::restarts();
        let seen: Vec<u64> =
            (0..10).map(|_| u64::try_from(backoff.pause_after(Duration::ZERO).as_millis()).unwrap()).collect();
        assert_eq!(seen, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(backoff.pause_after(Duration::from_secs(29)), Duration::from_secs(30));
        assert_eq!(backoff.pause_after(Duration::from_secs(30)), Duration::from_millis(200));
    }
}
