//! Journal: what happened, for people. Bounded, local, never a truth: losing it loses history, not state.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use appbase_core::{AppName, DeploymentId, EnvironmentName};
use controller_core::v1::api::EventView;
use controller_core::v1::state::EventKind;
use rusqlite::{Connection, params};
use tokio::sync::watch;

/// The oldest are forgotten beyond this many.
const EVENTS_MAX: u64 = 20_000;
/// Answered at once at most.
pub(crate) const EVENTS_PAGE: usize = 500;

pub(crate) struct Journal {
    connection: Mutex<Connection>,
    last: watch::Sender<u64>,
}

/// What an event is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub environment: Option<EnvironmentName>,
    pub app: Option<AppName>,
    pub deployment: Option<DeploymentId>,
}

impl Journal {
    pub(crate) fn open(directory: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(directory.join("journal.db"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS event (number INTEGER PRIMARY KEY AUTOINCREMENT, deployment TEXT, view TEXT NOT NULL) STRICT;
             CREATE INDEX IF NOT EXISTS event_deployment ON event (deployment, number);",
        )?;
        let last: i64 = connection.query_row("SELECT coalesce(max(number), 0) FROM event", [], |row| row.get(0))?;
        Ok(Self { connection: Mutex::new(connection), last: watch::Sender::new(last as u64) })
    }

    /// Writes one down; a journal that cannot be written is said in the log and holds nothing up.
    pub(crate) fn write(&self, unix_ms: u64, about: &About, kind: EventKind, text: &str) {
        tracing::info!(app = about.app.as_ref().map(AppName::as_str), ?kind, text, "event");
        let mut view = EventView {
            number: 0,
            unix_ms,
            environment: about.environment.clone(),
            app: about.app.clone(),
            deployment: about.deployment.clone(),
            kind,
            text: text.to_owned(),
        };
        match self.insert(&mut view) {
            Ok(()) => {
                self.last.send_replace(view.number);
            }
            Err(error) => tracing::warn!(%error, "event not kept"),
        }
    }

    fn insert(&self, view: &mut EventView) -> rusqlite::Result<()> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let text = serde_json::to_string(view).unwrap_or_default();
        let deployment = view.deployment.as_ref().map(DeploymentId::as_str);
        connection
            .prepare_cached("INSERT INTO event (deployment, view) VALUES (?1, ?2)")?
            .execute(params![deployment, text])?;
        view.number = connection.last_insert_rowid() as u64;
        if view.number.is_multiple_of(1000) && view.number > EVENTS_MAX {
            connection.execute("DELETE FROM event WHERE number <= ?1", [(view.number - EVENTS_MAX) as i64])?;
        }
        Ok(())
    }

    /// Events after a number, oldest first, at most a page; of one deployment when asked.
    pub(crate) fn after(&self, number: u64, deployment: Option<&DeploymentId>) -> rusqlite::Result<Vec<EventView>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection.prepare_cached(
            "SELECT number, view FROM event WHERE number > ?1 AND (?2 IS NULL OR deployment = ?2) ORDER BY number LIMIT ?3",
        )?;
        let deployment = deployment.map(DeploymentId::as_str);
        let rows = statement.query_map(params![number as i64, deployment, EVENTS_PAGE as i64], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        let mut views = Vec::new();
        for row in rows {
            let (number, text) = row?;
            if let Ok(view) = serde_json::from_str::<EventView>(&text) {
                views.push(EventView { number: number as u64, ..view });
            }
        }
        Ok(views)
    }

    /// The number of the last event, and every later one.
    pub(crate) fn last(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}

impl About {
    pub(crate) fn of(deployment: &controller_core::v1::state::Deployment) -> Self {
        Self {
            environment: Some(deployment.environment.clone()),
            app: Some(deployment.app.clone()),
            deployment: Some(deployment.id.clone()),
        }
    }
}
