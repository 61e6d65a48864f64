//! Events: a page, or a stream that goes on (server-sent events).

use std::convert::Infallible;
use std::time::Duration;

use appbase_core::DeploymentId;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use controller_core::v1::api::EventView;
use futures_util::stream::{self, StreamExt};
use kit::problem::Problem;
use serde::Deserialize;

use super::App;

#[derive(Debug, Deserialize)]
pub(super) struct EventQuery {
    /// The number of the last event that is known already.
    #[serde(default)]
    after: Option<u64>,
    #[serde(default)]
    deployment: Option<DeploymentId>,
    #[serde(default)]
    follow: bool,
    /// Instead of `after`: only the last so many.
    #[serde(default)]
    last: Option<u64>,
}

pub(super) async fn list(
    State(shared): State<App>,
    Query(query): Query<EventQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let last = *shared.journal.last().borrow();
    let after = resumed.or(query.after).or(query.last.map(|count| last.saturating_sub(count))).unwrap_or(0);
    if !query.follow {
        let page = shared.journal.after(after, query.deployment.as_ref());
        return Ok(Json(page.map_err(|error| Problem::unexpected(&error))?).into_response());
    }
    let follow = Follow {
        after,
        deployment: query.deployment,
        last: shared.journal.last(),
        stop: shared.shutdown.clone(),
        shared,
    };
    let events = stream::unfold(follow, |mut follow| async move {
        let page = follow.page().await?;
        Some((stream::iter(page.into_iter().map(Ok::<_, Infallible>)), follow))
    });
    Ok(Sse::new(events.flatten()).keep_alive(KeepAlive::new().interval(Duration::from_secs(10))).into_response())
}

struct Follow {
    shared: App,
    after: u64,
    deployment: Option<DeploymentId>,
    last: tokio::sync::watch::Receiver<u64>,
    stop: kit::Shutdown,
}

impl Follow {
    /// The next events, as soon as there are any; none at shutdown.
    async fn page(&mut self) -> Option<Vec<Event>> {
        loop {
            self.last.mark_unchanged();
            let page = self.shared.journal.after(self.after, self.deployment.as_ref()).ok()?;
            if let Some(last) = page.last() {
                self.after = last.number;
                return Some(page.iter().map(event).collect());
            }
            tokio::select! {
                changed = self.last.changed() => changed.ok()?,
                () = self.stop.asked() => return None,
            }
        }
    }
}

fn event(view: &EventView) -> Event {
    Event::default().id(view.number.to_string()).data(serde_json::to_string(view).unwrap_or_default())
}
