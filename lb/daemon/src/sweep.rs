//! Sweep: carries out drain deadlines. Looks at all that drains, not at events, so nothing is forgotten.

use std::sync::Arc;

use crate::balancer::Balancer;

pub(crate) async fn sweep_forever(balancer: Arc<Balancer>) {
    loop {
        let now = balancer.clock.elapsed();
        let waits = balancer.all_backends().into_iter().filter_map(|backend| backend.sweep(now));
        match waits.min() {
            Some(wait) => tokio::time::sleep(wait).await,
            None => balancer.drain_began.notified().await,
        }
    }
}
