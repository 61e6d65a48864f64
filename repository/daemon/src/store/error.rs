//! Why the store did not do what it was asked.

use std::io;
use std::path::{Path, PathBuf};

use appbase_core::Digest;
use repository_core::Refusal;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The request was wrong, not the store.
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the disk of the data directory is full")]
    Full,
    #[error("the request ended before all of it came: {0}")]
    Cut(String),
    #[error("blob {digest} is damaged on disk: run \"repository fsck\", then push it again")]
    Damaged { digest: Digest },
    #[error("data directory {path} is in use by another repository{holder}: stop that one, or use another directory")]
    InUse { path: PathBuf, holder: String },
    #[error("catalogue {path} has schema {found}, this release knows up to {known}: start the newer release again")]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("catalogue {path} is damaged ({reason}): restore it from a backup")]
    Catalogue { path: PathBuf, reason: String },
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("catalogue refused")]
    Database(#[source] rusqlite::Error),
    #[error("the store is stopping")]
    Stopped,
}

impl StoreError {
    /// An error of the file system; a full disk is told apart.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { doing, path: path.to_path_buf(), source },
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::Database(error),
        }
    }
}
