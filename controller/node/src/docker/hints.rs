//! Hints: Docker's events as "look again", and what only an event tells: how an instance that runs again had ended.
//!
//! Docker keeps 256 events and drops slow listeners, so an event is never more than a hint; whoever gets one looks at
//! everything again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures_util::StreamExt;
use tokio::sync::watch;

use appbase_core::v1::label;

use super::{DockerEngine, labels};

/// The events that can change what `observe` answers.
const EVENTS: [&str; 8] = ["create", "start", "die", "oom", "stop", "pause", "unpause", "destroy"];
/// Without an event for this long the parts are looked at anyway.
const QUIET: Duration = Duration::from_secs(30);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What the event task shares with the engine.
#[derive(Debug)]
pub(crate) struct Hints {
    changed: watch::Sender<u64>,
    /// Exit code of the last end, by container; kept only for containers that exist ([`Hints::keep`]).
    exits: Mutex<BTreeMap<String, i32>>,
}

impl Default for Hints {
    fn default() -> Self {
        Self { changed: watch::Sender::new(0), exits: Mutex::default() }
    }
}

impl Hints {
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn bump(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn exit_of(&self, container: &str) -> Option<i32> {
        self.exits.lock().unwrap_or_else(PoisonError::into_inner).get(container).copied()
    }

    pub(crate) fn keep(&self, present: impl Fn(&str) -> bool) {
        self.exits.lock().unwrap_or_else(PoisonError::into_inner).retain(|container, _| present(container));
    }
}

/// Runs until asked to stop; an engine that is away is asked again, ever more slowly.
pub(crate) async fn follow(engine: DockerEngine, shutdown: kit::Shutdown) {
    let asked = shutdown.asked();
    tokio::pin!(asked);
    let mut pause = RETRY_FIRST;
    loop {
        let heard = tokio::select! {
            () = &mut asked => return,
            heard = listen(&engine) => heard,
        };
        engine.hints.bump();
        pause = if heard { RETRY_FIRST } else { (pause * 2).min(RETRY_MAX) };
        tokio::select! {
            () = &mut asked => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One subscription, until it breaks; answers whether Docker answered at all.
async fn listen(engine: &DockerEngine) -> bool {
    let filters =
        [("type".to_owned(), vec!["container".to_owned()]), ("event".to_owned(), EVENTS.map(str::to_owned).to_vec())];
    let options = EventsOptions { filters: Some(filters.into()), ..EventsOptions::default() };
    let mut events = engine.docker.events(Some(options)).boxed();
    // What happened before the subscription is seen by looking.
    let mut heard = join(engine).await;
    engine.hints.bump();
    loop {
        match tokio::time::timeout(QUIET, events.next()).await {
            Err(_quiet) => heard &= join(engine).await,
            Ok(Some(Ok(event))) => take(engine, &event).await,
            Ok(Some(Err(error))) => {
                tracing::warn!(%error, "docker's events broke off; subscribing again");
                return heard;
            }
            Ok(None) => return heard,
        }
    }
}

async fn take(engine: &DockerEngine, event: &EventMessage) {
    let Some(attributes) = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref()) else { return };
    let action = event.action.as_deref().unwrap_or_default();
    if attributes.contains_key(labels::PART) && action == "start" {
        join(engine).await;
    }
    if attributes.get(label::CLUSTER).map(String::as_str) != Some(engine.config.cluster.as_str()) {
        return;
    }
    let container = event.actor.as_ref().and_then(|actor| actor.id.clone());
    let code = attributes.get("exitCode").and_then(|code| code.parse().ok());
    if let ("die", Some(container), Some(code)) = (action, container, code) {
        engine.hints.exits.lock().unwrap_or_else(PoisonError::into_inner).insert(container, code);
    }
    engine.hints.bump();
}

async fn join(engine: &DockerEngine) -> bool {
    match engine.join_all().await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "the platform's parts may be missing from an environment's network");
            false
        }
    }
}
