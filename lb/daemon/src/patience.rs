//! Patience: how long a connection waits for what comes next. One timer for all of a connection's life, which is armed
//! anew only when it fires or something is awaited for a shorter time: a request arms none.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Debug)]
pub(crate) struct Patience {
    timer: Pin<Box<Sleep>>,
    until: Instant,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        let until = Instant::now() + limit;
        Self { timer: Box::pin(sleep_until(until)), until }
    }

    /// From now on, something is awaited for `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) {
        self.wait_until(Instant::now() + limit);
    }

    pub(crate) fn wait_until(&mut self, until: Instant) {
        self.until = until;
        if self.until < self.timer.deadline() {
            self.timer.as_mut().reset(self.until);
        }
    }

    /// Ready when it did not come.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= self.until {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.until);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn the_last_limit_counts_whether_it_is_later_or_sooner() {
        let ms = Duration::from_millis;
        let began = Instant::now();
        let mut patience = Patience::new(ms(1));
        patience.wait(ms(20));
        poll_fn(|cx| patience.poll_over(cx)).await;
        assert!(began.elapsed() >= ms(20), "the first limit no longer counts");
        patience.wait(Duration::from_secs(3600));
        patience.wait(ms(5));
        poll_fn(|cx| patience.poll_over(cx)).await;
    }
}
