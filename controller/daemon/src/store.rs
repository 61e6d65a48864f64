//! Store: keys, revisions, guarded transactions. One trait with etcd's semantics; SQLite in process is the default.

mod sqlite;

use async_trait::async_trait;

pub(crate) use sqlite::{STATE_FILE, SqliteStore};

/// Strictly rising for the whole store: the revision of a transaction is that of everything it wrote.
pub(crate) type Revision = u64;

/// etcd refuses more than 128; ours never come near, so that one limit fits every engine.
pub(crate) const OPERATIONS_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    /// The revision that wrote it last.
    pub revision: Revision,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    Absent(String),
    /// The key was written last by this revision.
    Unchanged(String, Revision),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Put(String, Vec<u8>),
    Delete(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Applied(Revision),
    /// A condition did not hold; nothing was written.
    Conflict,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store at {place} cannot be opened: {reason}")]
    Open { place: String, reason: String },
    #[error(
        "another controller holds {place}: two on the same data would undo each other's work; stop the other one (pid {holder})"
    )]
    Held { place: String, holder: String },
    #[error("the store cannot be read or written: {reason}")]
    Io { reason: String },
    #[error("{reason}")]
    Older { reason: String },
    #[error("entry {key} cannot be understood: {reason}")]
    Unreadable { key: String, reason: String },
}

#[async_trait]
pub(crate) trait Store: Send + Sync + 'static {
    /// All entries whose key begins with `prefix`, by key.
    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError>;

    /// All operations if all conditions hold, durable when it answers; at most [`OPERATIONS_MAX`].
    async fn commit(&self, conditions: Vec<Condition>, operations: Vec<Operation>) -> Result<Outcome, StoreError>;
}
