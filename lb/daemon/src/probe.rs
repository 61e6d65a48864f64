//! Probe: asks each instance whether it is up, as long as a table names it.
//!
//! One task per backend. A new connection each time, so that what is asked is also whether it accepts. The interval is drawn between 90 and 110 % of what is wanted, so that many instances are
//! not asked in one moment. A connection that failed under a request has the instance asked at once.
//!
//! Until it is up for the first time, an instance is asked again after a tenth of the time it has been waited for: that
//! finds it soon after it started, and costs few questions when it starts slowly. The time begins anew when it comes
//! further: first connecting leads nowhere, then it is refused, then something answers. Of the failures meanwhile one in
//! an interval counts.
//!
//! One that was left out because requests failed there comes back with the first pass after its time.

use std::sync::Arc;
use std::time::Duration;

use appbase_core::v1::{Health, ProbeAnswer};
use kit::{Shutdown, Tasks};
use lb_core::pick::Seeds;

use crate::backend::Backend;
use crate::balancer::Balancer;

mod ask;

use ask::{REFUSED, ask};

/// How often at the most an instance is asked that was never up.
const START_PAUSE_MIN: Duration = Duration::from_millis(10);
/// Probes that failed connections ask for are at least this far apart.
const HURRY_PAUSE: Duration = Duration::from_millis(50);

/// Asks until no table names the backend, or shutdown.
pub(crate) fn start(balancer: &Arc<Balancer>, backend: &Arc<Backend>, tasks: &Tasks, shutdown: &Shutdown) {
    let (balancer, backend, asked) = (Arc::clone(balancer), Arc::clone(backend), shutdown.asked());
    tasks.spawn("probe", async move {
        let retired = backend.retired.clone();
        tokio::select! {
            () = asked => {}
            () = retired.cancelled() => {}
            () = probe_forever(&balancer, &backend) => {}
        }
    });
}

async fn probe_forever(balancer: &Balancer, backend: &Backend) {
    let mut seeds = Seeds(backend.serial ^ u64::from_ne_bytes(kit::random::bytes()));
    let mut start = Start::at(balancer.clock.elapsed());
    let mut was_up = false;
    // The last failure that counted.
    let mut failed_at = None;
    loop {
        let (probe, protocol, host) = {
            let judgement = backend.judgement();
            (judgement.probe.clone(), judgement.protocol, judgement.host.clone())
        };
        let answer = ask(backend.address, &probe, protocol, host.as_deref()).await;
        let now = balancer.clock.elapsed();
        let interval = Duration::from_millis(probe.interval_ms);
        let counts = passed(&answer) || was_up || failed_at.is_none_or(|at| now - at >= interval);
        if counts && !passed(&answer) {
            failed_at = Some(now);
        }
        start.take(&answer, now);
        judge(balancer, backend, answer, counts);
        was_up |= backend.health() == Health::Up;
        let wanted = if was_up { interval } else { start.pause(now).min(interval) };
        let out_for = backend.judgement().ejection.until().map(|until| until.saturating_sub(now));
        // At the end of its time it is asked at once.
        let wanted = out_for.filter(|left| !left.is_zero()).map_or(wanted, |left| wanted.min(left));
        let percent = 90 + u32::try_from(seeds.below(21).unwrap_or_default()).unwrap_or_default();
        let pause = wanted * percent / 100;
        let hurry = HURRY_PAUSE.min(pause);
        tokio::time::sleep(hurry).await;
        // A hurry that was asked for during the pause is kept by the notify.
        let _ = tokio::time::timeout(pause.saturating_sub(hurry), backend.probe_now.notified()).await;
    }
}

/// How long a starting instance has been as far as it has come.
struct Start {
    stage: Stage,
    since: Duration,
}

impl Start {
    fn at(now: Duration) -> Self {
        Self { stage: Stage::Silent, since: now }
    }

    fn take(&mut self, answer: &ProbeAnswer, now: Duration) {
        let stage = Stage::of(answer);
        if stage > self.stage {
            *self = Self { stage, since: now };
        }
    }

    /// Until it is asked again.
    fn pause(&self, now: Duration) -> Duration {
        (now.saturating_sub(self.since) / 10).max(START_PAUSE_MIN)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Nothing that says more: there may be no machine yet.
    Silent,
    /// There is a machine, and nothing listens.
    Refuses,
    /// Whatever it says.
    Answers,
}

impl Stage {
    fn of(answer: &ProbeAnswer) -> Self {
        match (&answer.status, &answer.error) {
            (Some(_), _) | (None, None) => Self::Answers,
            (None, Some(error)) if error == REFUSED => Self::Refuses,
            (None, _) => Self::Silent,
        }
    }
}

fn passed(answer: &ProbeAnswer) -> bool {
    answer.error.is_none() && answer.status.is_none_or(|status| (200..300).contains(&status))
}

/// Takes an answer into the judgement; one that does not count is only shown.
fn judge(balancer: &Balancer, backend: &Backend, answer: ProbeAnswer, counts: bool) {
    let mut judgement = backend.judgement();
    let probe = judgement.probe.clone();
    let now = balancer.clock.elapsed();
    let was_undecided = judgement.machine.is_undecided();
    let changed = match (counts, passed(&answer)) {
        (false, _) => false,
        (true, true) => judgement.machine.passed(&probe, now),
        (true, false) => judgement.machine.failed(&probe, now),
    };
    let comes_back = counts && passed(&answer) && judgement.ejection.passed(now);
    judgement.tries += 1;
    let why = answer.error.clone().unwrap_or_default();
    let status = answer.status;
    judgement.last = Some(ProbeAnswer { tries: judgement.tries, ..answer });
    let health = judgement.machine.health();
    let decided = was_undecided && !judgement.machine.is_undecided();
    let first = judgement.tries == 1;
    drop(judgement);
    if changed {
        match health {
            Health::Down => tracing::warn!(instance = %backend.id, status, error = why, "instance is down"),
            _ => tracing::info!(instance = %backend.id, "instance is up"),
        }
    }
    if comes_back {
        tracing::info!(instance = %backend.id, "instance takes requests again");
    }
    if changed || decided || comes_back {
        // Requests may have waited for it.
        balancer.health_changed();
    } else if first {
        // People wait for the first answer of a new instance, also when it decides nothing yet.
        balancer.in_force.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starting_instance_is_asked_at_once_when_it_comes_further() {
        let seconds = Duration::from_secs;
        let failed =
            |error: &str| ProbeAnswer { tries: 1, status: None, body: String::new(), error: Some(error.into()) };
        let answered = ProbeAnswer { status: Some(503), error: None, ..failed("") };
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let mut start = Start::at(seconds(100));
        let mut pause = |answer: &ProbeAnswer, now| {
            start.take(answer, now);
            start.pause(now).as_millis()
        };
        assert_eq!(pause(&failed("no answer in 1000 ms"), seconds(100)), 10);
        assert_eq!(pause(&failed("no answer in 1000 ms"), seconds(105)), 500);
        assert_eq!(pause(&failed(&ask::refusal(&refused)), seconds(106)), 10);
        assert_eq!(pause(&failed(&ask::refusal(&refused)), seconds(107)), 100);
        assert_eq!(pause(&answered, seconds(110)), 10);
        // Going back gives nothing: what flutters is not asked more often.
        assert_eq!(pause(&failed("connection ended"), seconds(112)), 200);
        assert_eq!(pause(&answered, seconds(113)), 300);
    }
}
