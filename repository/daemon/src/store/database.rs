//! The catalogue's two connections, each on a thread of its own: one writes, one reads. A reader never waits for a
//! commit, and no request thread ever waits for the disk here.

use std::path::Path;
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// Requests that may wait for a connection; more wait outside.
const QUEUE: usize = 64;
const SCHEMA: i64 = 1;
const SCHEMA_TEXT: &str = include_str!("schema.sql");

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

pub(crate) struct Database {
    writer: Worker,
    reader: Worker,
}

impl Database {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut writer = Connection::open(path)?;
        prepare(&writer)?;
        migrate(&mut writer, path)?;
        let damage: String = writer.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if damage != "ok" {
            return Err(StoreError::Catalogue { path: path.to_path_buf(), reason: damage });
        }
        let reader = open_to_read(path)?;
        Ok(Self { writer: Worker::start("catalogue-write", writer)?, reader: Worker::start("catalogue-read", reader)? })
    }

    pub(crate) fn is_working(&self) -> bool {
        self.writer.is_working() && self.reader.is_working()
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.reader.ask(move |connection| work(connection)).await
    }

    /// One transaction; durable when this answers Ok, nothing changed when it answers an error.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_or(work, |_| {}).await
    }

    /// Like [`Database::write`]; `undo` runs after a failure, still before any other write.
    pub(crate) async fn write_or<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
        undo: impl FnOnce(&Connection) + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer
            .ask(move |connection| {
                let done = commit(connection, work);
                if done.is_err() {
                    undo(connection);
                }
                done
            })
            .await
    }
}

fn commit<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = work(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    fn start(name: &str, mut connection: Connection) -> Result<Self, StoreError> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut connection);
                }
            })
            .map_err(|source| StoreError::io("start a thread for", Path::new(name), source))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    fn is_working(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Nobody waits any more when the request was dropped; the work is done all the same.
            let _ = answer.send(work(connection));
        });
        self.jobs.as_ref().ok_or(StoreError::Stopped)?.send(job).await.map_err(|_| StoreError::Stopped)?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }
}

impl Drop for Worker {
    /// Closed when this returns: whoever opens the directory next finds it free.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    Ok(())
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found {
        0 => {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(SCHEMA_TEXT)?;
            transaction.pragma_update(None, "user_version", SCHEMA)?;
            transaction.commit()?;
            Ok(())
        }
        SCHEMA => Ok(()),
        _ => Err(StoreError::Newer { path: path.to_path_buf(), found, known: SCHEMA }),
    }
}
