//! The store in one SQLite file: WAL, synchronous=FULL, one writer, a lock file against a second controller.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use rustix::fs::{FlockOperation, flock};

use super::{Condition, Entry, OPERATIONS_MAX, Operation, Outcome, Revision, Store, StoreError};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS entry (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL) STRICT;
INSERT OR IGNORE INTO counter (id, revision) VALUES (1, 0);
";

/// The database, in the controller's directory.
pub(crate) const STATE_FILE: &str = "state.db";

pub(crate) struct SqliteStore {
    connection: Arc<Mutex<Connection>>,
    /// Held as long as the store is open.
    _lock: File,
}

impl SqliteStore {
    /// Opens or makes the store in `directory`; refused while another controller has it.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let place = directory.display().to_string();
        let open = |reason: String| StoreError::Open { place: place.clone(), reason };
        // Values of apps are in it.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| open(error.to_string()))?;
        let lock = lock(directory)?;
        let file = directory.join(STATE_FILE);
        own(&file).map_err(|error| open(error.to_string()))?;
        let connection = Connection::open(file).map_err(|error| open(error.to_string()))?;
        prepare(&connection).map_err(|error| open(damage(&error)))?;
        let check: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| open(damage(&error)))?;
        if check != "ok" {
            return Err(open(format!("it is damaged ({check}): restore it from a backup")));
        }
        Ok(Self { connection: Arc::new(Mutex::new(connection)), _lock: lock })
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = Arc::clone(&self.connection);
        tokio::task::spawn_blocking(move || work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .map_err(|error| StoreError::Io { reason: error.to_string() })?
    }
}

/// Keys of certificates are in it, and the directory may be somebody else's. What SQLite puts beside it is as it is.
fn own(file: &Path) -> std::io::Result<()> {
    let opened = File::options().create(true).append(true).mode(0o600).open(file)?;
    opened.set_permissions(fs::Permissions::from_mode(0o600))
}

fn damage(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            format!("it is damaged ({error}): restore it from a backup")
        }
        _ => error.to_string(),
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Keys are in it: what is deleted is overwritten.
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.execute_batch(SCHEMA)
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("lock");
    let io = |error: std::io::Error| StoreError::Open { place: path.display().to_string(), reason: error.to_string() };
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(io)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        return Err(StoreError::Held { place: directory.display().to_string(), holder: holder.trim().to_owned() });
    }
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io)?;
    Ok(file)
}

fn io(error: rusqlite::Error) -> StoreError {
    StoreError::Io { reason: error.to_string() }
}

#[async_trait]
impl Store for SqliteStore {
    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let (from, to) = (prefix.to_owned(), format!("{prefix}\u{10ffff}"));
        self.with(move |connection| {
            let mut statement = connection
                .prepare_cached("SELECT key, value, revision FROM entry WHERE key >= ?1 AND key < ?2 ORDER BY key")
                .map_err(io)?;
            let rows = statement
                .query_map(params![from, to], |row| {
                    Ok(Entry { key: row.get(0)?, value: row.get(1)?, revision: row.get::<_, i64>(2)? as u64 })
                })
                .map_err(io)?;
            rows.collect::<Result<_, _>>().map_err(io)
        })
        .await
    }

    async fn commit(&self, conditions: Vec<Condition>, operations: Vec<Operation>) -> Result<Outcome, StoreError> {
        assert!(operations.len() <= OPERATIONS_MAX, "a transaction has at most {OPERATIONS_MAX} operations");
        kit::faults::fails(crate::points::COMMIT).map_err(|error| StoreError::Io { reason: error.to_string() })?;
        self.with(move |connection| commit(connection, &conditions, &operations).map_err(io)).await
    }
}

fn commit(
    connection: &mut Connection,
    conditions: &[Condition],
    operations: &[Operation],
) -> rusqlite::Result<Outcome> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for condition in conditions {
        let (key, wanted) = match condition {
            Condition::Absent(key) => (key, None),
            Condition::Unchanged(key, revision) => (key, Some(*revision)),
        };
        let found = transaction
            .query_row("SELECT revision FROM entry WHERE key = ?1", [key], |row| row.get::<_, i64>(0))
            .optional()?
            .map(|revision| revision as Revision);
        if found != wanted {
            return Ok(Outcome::Conflict);
        }
    }
    let revision: i64 =
        transaction.query_row("UPDATE counter SET revision = revision + 1 RETURNING revision", [], |row| row.get(0))?;
    for operation in operations {
        match operation {
            Operation::Put(key, value) => transaction.execute(
                "INSERT INTO entry (key, value, revision) VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision",
                params![key, value, revision],
            )?,
            Operation::Delete(key) => transaction.execute("DELETE FROM entry WHERE key = ?1", [key])?,
        };
    }
    transaction.commit()?;
    Ok(Outcome::Applied(revision as Revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn revisions_conditions_and_prefixes() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(directory.path()).expect("a new store");
        let put = |key: &str, value: &str| Operation::Put(key.to_owned(), value.as_bytes().to_vec());
        let first = store.commit(vec![Condition::Absent("a/1".into())], vec![put("a/1", "x"), put("b", "y")]).await;
        assert_eq!(first.expect("written"), Outcome::Applied(1));
        let again = store.commit(vec![Condition::Absent("a/1".into())], vec![put("a/2", "x")]).await;
        assert_eq!(again.expect("read"), Outcome::Conflict);
        let stale = store.commit(vec![Condition::Unchanged("b".into(), 9)], vec![put("b", "z")]).await;
        assert_eq!(stale.expect("read"), Outcome::Conflict);
        let next = store.commit(vec![Condition::Unchanged("b".into(), 1)], vec![Operation::Delete("b".into())]).await;
        assert_eq!(next.expect("written"), Outcome::Applied(2));
        let listed = store.list("a/").await.expect("read");
        assert_eq!(listed, [Entry { key: "a/1".into(), value: b"x".to_vec(), revision: 1 }]);
        assert!(store.list("b").await.expect("read").is_empty());
    }

    #[test]
    fn only_its_owner_reads_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join(STATE_FILE);
        fs::write(&file, "").expect("as an older release left it");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("its mode");
        let _store = SqliteStore::open(directory.path()).expect("a store");
        for part in ["state.db", "state.db-wal"] {
            let mode = fs::metadata(directory.path().join(part)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{part}");
        }
    }

    #[test]
    fn a_second_holder_and_a_damaged_file_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = SqliteStore::open(directory.path()).expect("a new store");
        let second = SqliteStore::open(directory.path()).err().expect("held").to_string();
        assert!(
            second.contains("another controller holds") && second.contains(&std::process::id().to_string()),
            "{second}"
        );
        drop(first);
        let reopened = SqliteStore::open(directory.path()).expect("free again");
        drop(reopened);
        for part in ["state.db", "state.db-wal", "state.db-shm"] {
            let _ = fs::remove_file(directory.path().join(part));
        }
        fs::write(directory.path().join("state.db"), b"not a database at all, but long enough to be read as one")
            .expect("damaged");
        let damaged = SqliteStore::open(directory.path()).err().expect("damaged").to_string();
        assert!(damaged.contains("it is damaged"), "{damaged}");
    }
}
