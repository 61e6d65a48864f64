//! Sweep: carries out drain deadlines. Looks at all that drains, not at events, so nothing is forgotten.

use std::sync::Arc;
use std::time::Duration;

use lb_core::drain;

use crate::balancer::Balancer;

/// While something drains it is looked at this often: who became a stream meanwhile is asked to go, who came in at the
/// last moment is cut.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) async fn sweep_forever(balancer: Arc<Balancer>) {
    loop {
        match sweep(&balancer) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => balancer.drain_began.notified().await,
        }
    }
}

/// Cuts what is over; answers when to look again, none when nothing drains.
fn sweep(balancer: &Balancer) -> Option<Duration> {
    let now = balancer.clock.elapsed();
    let mut wait = None;
    for backend in balancer.all_backends() {
        let Some(draining) = backend.drain().filter(|_| backend.gate.inside() > 0) else { continue };
        let elapsed = now.saturating_sub(draining.since);
        let over = drain::over(draining.limits, elapsed);
        backend.ask_streams_to_go();
        if over.requests || over.streams {
            backend.cut_inside(over.requests, over.streams);
        }
        let next = drain::wait(draining.limits, elapsed).unwrap_or(LOOK_INTERVAL).min(LOOK_INTERVAL);
        wait = Some(wait.map_or(next, |wait: Duration| wait.min(next)));
    }
    wait
}
