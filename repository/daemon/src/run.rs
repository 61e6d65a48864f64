//! Start and end of the repository: open the store, bind, serve, keep house.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kit::problem::chain;
use kit::{Clock, Shutdown, Tasks};

use crate::admin::Health;
use crate::config::Config;
use crate::http::{self, Authority};
use crate::store::{Limits, Store, StoreError};

/// How often stale uploads are looked for and `index.json` follows the tags.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot open the data directory")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bind(#[from] kit::serve::BindError),
    #[error(transparent)]
    Trust(#[from] kit::keys::KeyError),
    #[error(
        "without a trust file everybody may do everything, and {address} is not loopback: make keys with platformer init --keys DIR and give --trust-file DIR/cluster.json"
    )]
    Open { address: SocketAddr },
    #[error("cannot serve")]
    Serve(#[from] std::io::Error),
}

/// A running repository.
#[derive(Debug)]
pub struct Handle {
    /// Where the API listens.
    pub address: SocketAddr,
    pub admin: SocketAddr,
    tasks: Tasks,
}

impl Handle {
    /// After shutdown was asked for: waits until everything in flight is answered and the store is closed.
    pub async fn finished(self, limit: Duration) {
        let left = self.tasks.finish(limit).await;
        if !left.is_empty() {
            tracing::warn!(tasks = left.join(", "), "ended before these had");
        }
    }
}

pub async fn run(config: Config, tasks: &Tasks, shutdown: &Shutdown) -> Result<Handle, RunError> {
    let authority = match &config.trust_file {
        Some(path) => Authority::Keys { trust: Box::new(kit::keys::read_trust(path)?), clock: Clock::start() },
        None if config.listen.ip().is_loopback() => Authority::Open,
        None => return Err(RunError::Open { address: config.listen }),
    };
    let listener = kit::serve::bind(config.listen).await?;
    let admin = kit::serve::bind(config.admin).await?;
    let limits = Limits { blob_bytes_max: config.blob_bytes_max, uploads_max: config.uploads_max };
    let store = Arc::new(Store::open(&config.data, limits, Clock::start(), tasks.clone()).await?);

    let health = kit::admin::router(Arc::new(Health { store: Arc::clone(&store) }));
    let address =
        kit::serve::http(tasks, "repository", listener, http::router(Arc::clone(&store), authority), shutdown)?;
    let admin = kit::serve::http(tasks, "repository-admin", admin, health, shutdown)?;
    tasks.spawn("repository-housekeeping", keep_house(store, shutdown.clone()));
    Ok(Handle { address, admin, tasks: tasks.clone() })
}

async fn keep_house(store: Arc<Store>, shutdown: Shutdown) {
    loop {
        if let Err(error) = store.keep_house().await {
            tracing::warn!(error = %chain(&error), "housekeeping failed, will be tried again");
        }
        if shutdown.is_asked() {
            return;
        }
        let _ = tokio::time::timeout(HOUSEKEEPING_INTERVAL, shutdown.asked()).await;
    }
}
