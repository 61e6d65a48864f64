//! The store: blobs and manifests as files, everything else in the catalogue. What was acknowledged is on the disk.
//!
//! ```text
//! data/  oci-layout  index.json  blobs/sha256/<hex>     a valid OCI image layout
//!        catalogue.db                                   tags, manifests, which blob belongs to whom, uploads
//!        uploads/<id>/data                              what is still coming
//!        lock                                           held while open
//! ```
//! Write path: upload file → fdatasync → digest check → rename → fsync of the directory → commit → answer.

mod catalogue;
mod database;
mod error;
mod layout;
mod manifests;
mod receive;
mod uploads;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use appbase_core::Digest;
use kit::{Awaited, Clock, Tasks};
use repository_core::{RepositoryName, UploadId};

pub(crate) use catalogue::{StoredManifest, TagPage, check_catalogue};
pub(crate) use database::open_to_read;
pub use error::StoreError;
pub(crate) use layout::Layout;
pub(crate) use receive::{Incoming, hash_file, is_out_of_order};

use crate::counters::Counters;
use database::Database;
use uploads::Sessions;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) blob_bytes_max: u64,
    pub(crate) uploads_max: usize,
}

pub(crate) struct Store {
    layout: Layout,
    database: Database,
    sessions: Sessions,
    limits: Limits,
    clock: Clock,
    tasks: Tasks,
    counters: Counters,
    /// Tags changed since `index.json` was written.
    index_stale: AtomicBool,
    /// After all above, so that the directory is free only when the database is closed.
    _lock: layout::Lock,
    /// Last: a connection that has ended lets go of the store only after it was counted out.
    _open: Awaited,
}

/// A blob opened for reading.
pub(crate) struct OpenBlob {
    pub(crate) file: std::fs::File,
    pub(crate) size: u64,
}

impl Store {
    /// Opens the directory, or makes it; takes up uploads where they were when it was last closed or killed.
    pub(crate) async fn open(path: &Path, limits: Limits, clock: Clock, tasks: Tasks) -> Result<Self, StoreError> {
        let layout = Layout::at(path);
        layout.create()?;
        let lock = layout.lock()?;
        let database = Database::open(&layout.catalogue())?;
        let store = Self {
            layout,
            database,
            sessions: Sessions::default(),
            limits,
            clock,
            counters: Counters::default(),
            index_stale: AtomicBool::new(true),
            _lock: lock,
            _open: tasks.awaited("repository-store"),
            tasks,
        };
        store.recover_uploads().await?;
        Ok(store)
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn is_working(&self) -> bool {
        self.database.is_working()
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        self.layout.free_bytes()
    }

    pub(crate) fn uploads_open(&self) -> usize {
        self.sessions.len()
    }

    /// The size of a blob of this repository.
    pub(crate) async fn blob_size(&self, name: &RepositoryName, digest: Digest) -> Result<Option<u64>, StoreError> {
        let name = name.clone();
        self.database.read(move |connection| catalogue::blob_size(connection, &name, digest)).await
    }

    pub(crate) async fn open_blob(
        &self,
        name: &RepositoryName,
        digest: Digest,
    ) -> Result<Option<OpenBlob>, StoreError> {
        let Some(size) = self.blob_size(name, digest).await? else { return Ok(None) };
        let path = self.layout.blob(digest);
        let file = blocking(move || {
            let file = match std::fs::File::open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(StoreError::Damaged { digest });
                }
                other => other.map_err(|source| StoreError::io("open", &path, source))?,
            };
            let length = file.metadata().map_err(|source| StoreError::io("read", &path, source))?.len();
            if length != size {
                return Err(StoreError::Damaged { digest });
            }
            Ok(file)
        })
        .await?;
        Ok(Some(OpenBlob { file, size }))
    }

    /// Makes a blob of `from` one of `name` as well. False when `from` has no such blob.
    pub(crate) async fn mount_blob(
        &self,
        name: &RepositoryName,
        from: &RepositoryName,
        digest: Digest,
    ) -> Result<bool, StoreError> {
        let (name, from) = (name.clone(), from.clone());
        self.database
            .write(move |transaction| {
                if catalogue::blob_size(transaction, &from, digest)?.is_none() {
                    return Ok(false);
                }
                catalogue::link_blob(transaction, &name, digest)?;
                Ok(true)
            })
            .await
    }

    /// Purges stale uploads and lets `index.json` follow the tags.
    pub(crate) async fn keep_house(&self) -> Result<(), StoreError> {
        self.purge_uploads(self.clock.unix_ms()).await?;
        if self.index_stale.swap(false, Ordering::AcqRel) {
            let written = self.write_index().await;
            if written.is_err() {
                self.index_stale.store(true, Ordering::Release);
            }
            written?;
        }
        Ok(())
    }

    async fn write_index(&self) -> Result<(), StoreError> {
        let entries = self.database.read(catalogue::all_tags).await?;
        let layout = self.layout.clone();
        blocking(move || layout.write_index(&entries)).await
    }

    fn session(&self, name: &RepositoryName, id: &UploadId) -> Result<Arc<uploads::Session>, StoreError> {
        let session = self.sessions.get(id).filter(|session| session.repository == *name);
        session.ok_or_else(|| repository_core::route::no_upload(name).into())
    }
}

/// Work that waits for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Stopped)?
}
