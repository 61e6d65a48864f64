//! Open uploads: begin, resume, cancel, give up. One request at a time has the turn; the others wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use repository_core::{Code, Refusal, RepositoryName, UploadId};
use sha2::Sha256;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Store, StoreError, blocking, catalogue};

/// An upload that nobody touched for this long is given up.
pub(crate) const STALE_AFTER_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a request waits for the one that is writing to the same upload.
const TURN_WAIT: Duration = Duration::from_secs(5);

/// The open uploads of this process.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<BTreeMap<UploadId, Arc<Session>>>,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: UploadId,
    pub(crate) repository: RepositoryName,
    turn: Arc<Semaphore>,
    state: Mutex<Progress>,
}

/// What is known between two requests.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// Bytes on the disk for good.
    pub(crate) offset: u64,
    /// The hash of exactly these bytes; none after a restart, then the file is read again.
    pub(crate) hash: Option<Sha256>,
    pub(crate) touched_ms: u64,
    /// Completed or given up.
    pub(crate) ended: bool,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn get(&self, id: &UploadId) -> Option<Arc<Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// False when `max` are open already.
    fn insert(&self, session: Arc<Session>, max: usize) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= max {
            return false;
        }
        open.insert(session.id.clone(), session);
        true
    }

    fn remove(&self, id: &UploadId) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl Session {
    fn new(id: UploadId, repository: RepositoryName, progress: Progress) -> Arc<Self> {
        Arc::new(Self { id, repository, turn: Arc::new(Semaphore::new(1)), state: Mutex::new(progress) })
    }

    pub(crate) fn progress(&self) -> Progress {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The right to write to this upload, or why not.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let busy = || StoreError::from(Refusal::from(repository_core::upload::UploadError::Busy));
        let turn = tokio::time::timeout(TURN_WAIT, Arc::clone(&self.turn).acquire_owned()).await;
        let permit = turn.map_err(|_| busy())?.map_err(|_| StoreError::Stopped)?;
        if self.progress().ended {
            return Err(repository_core::route::no_upload(&self.repository).into());
        }
        Ok(permit)
    }
}

impl Store {
    pub(crate) async fn begin_upload(&self, name: &RepositoryName) -> Result<UploadId, StoreError> {
        let id = UploadId::parse(&kit::random::hex::<16>()).expect("32 hex digits are an upload id");
        let now_ms = self.clock.unix_ms();
        let progress = Progress { offset: 0, hash: Some(Sha256::default()), touched_ms: now_ms, ended: false };
        if !self.sessions.insert(Session::new(id.clone(), name.clone(), progress), self.limits.uploads_max) {
            return Err(Refusal::new(Code::TooManyRequests, "too-many-uploads", "too many uploads are open")
                .hint("finish or cancel others, or wait: abandoned ones end after 24 hours")
                .into());
        }
        let made = self.make_upload(&id, name, now_ms).await;
        if made.is_err() {
            self.sessions.remove(&id);
            let _ = self.layout.remove_upload(&id);
        }
        made.map(|()| id)
    }

    async fn make_upload(&self, id: &UploadId, name: &RepositoryName, now_ms: u64) -> Result<(), StoreError> {
        let (layout, made) = (self.layout.clone(), id.clone());
        blocking(move || layout.create_upload(&made)).await?;
        let (id, name) = (id.clone(), name.clone());
        self.database.write(move |transaction| catalogue::insert_upload(transaction, &id, &name, now_ms)).await
    }

    /// Bytes stored so far.
    pub(crate) fn upload_offset(&self, name: &RepositoryName, id: &UploadId) -> Result<u64, StoreError> {
        let progress = self.session(name, id)?.progress();
        if progress.ended {
            return Err(repository_core::route::no_upload(name).into());
        }
        Ok(progress.offset)
    }

    pub(crate) async fn cancel_upload(&self, name: &RepositoryName, id: &UploadId) -> Result<(), StoreError> {
        let session = self.session(name, id)?;
        let _turn = session.turn().await?;
        self.discard(&session).await
    }

    /// Forgets an upload and its bytes. The caller has the turn.
    pub(crate) async fn discard(&self, session: &Session) -> Result<(), StoreError> {
        session.set(|progress| progress.ended = true);
        self.sessions.remove(&session.id);
        let (layout, id) = (self.layout.clone(), session.id.clone());
        // The file first: on a full disk this makes room for the commit.
        blocking(move || layout.remove_upload(&id)).await?;
        let id = session.id.clone();
        self.database.write(move |transaction| catalogue::delete_upload(transaction, &id)).await
    }

    /// An upload became a blob: what is left of it goes.
    pub(crate) async fn forget(&self, session: &Session) {
        session.set(|progress| progress.ended = true);
        self.sessions.remove(&session.id);
        let (layout, id) = (self.layout.clone(), session.id.clone());
        // A directory that stays behind is removed at the next start.
        let _ = blocking(move || layout.remove_upload(&id)).await;
    }

    /// Gives up what nobody touched for a day. An upload that is being written to stays.
    pub(crate) async fn purge_uploads(&self, now_ms: u64) -> Result<(), StoreError> {
        for session in self.sessions.all() {
            let stale = now_ms.saturating_sub(session.progress().touched_ms) >= STALE_AFTER_MS;
            let Some(_turn) = stale.then(|| Arc::clone(&session.turn).try_acquire_owned().ok()).flatten() else {
                continue;
            };
            tracing::info!(upload = %session.id, repository = %session.repository, "stale upload given up");
            self.discard(&session).await?;
        }
        Ok(())
    }

    /// Takes up what a former process left: an upload goes on where it was last synced, everything else is removed.
    pub(crate) async fn recover_uploads(&self) -> Result<(), StoreError> {
        let rows = self.database.read(catalogue::uploads).await?;
        let mut known = BTreeSet::new();
        for row in rows {
            let length = std::fs::metadata(self.layout.upload_data(&row.id)).map(|data| data.len());
            let Ok(length) = length else {
                let id = row.id.clone();
                self.database.write(move |transaction| catalogue::delete_upload(transaction, &id)).await?;
                continue;
            };
            // More may be in the file, but after a power cut only what was synced is sure to be what was sent.
            let offset = row.synced_bytes.min(length);
            known.insert(row.id.as_str().to_owned());
            let progress = Progress { offset, hash: None, touched_ms: row.touched_ms, ended: false };
            self.sessions.insert(Session::new(row.id, row.repository, progress), usize::MAX);
        }
        let directory = self.layout.uploads();
        let io = |source| StoreError::io("read", &directory, source);
        for entry in std::fs::read_dir(&directory).map_err(io)? {
            let entry = entry.map_err(io)?;
            if !entry.file_name().to_str().is_some_and(|name| known.contains(name)) {
                let path = entry.path();
                let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let removed = if is_directory { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                removed.map_err(|source| StoreError::io("remove", &path, source))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::*;

    #[tokio::test]
    async fn only_stale_uploads_that_nobody_writes_to_are_given_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let limits = Limits { blob_bytes_max: 1000, uploads_max: 10 };
        let (clock, tasks) = (kit::Clock::start(), kit::Tasks::new());
        let store = Store::open(directory.path(), limits, clock, tasks).await.expect("opens");
        let name = RepositoryName::parse("a").expect("a name");
        let id = store.begin_upload(&name).await.expect("begun");
        let busy = store.begin_upload(&name).await.expect("begun");
        let touched_ms = store.session(&name, &id).expect("open").progress().touched_ms;
        let turn = store.session(&name, &busy).expect("open").turn().await.expect("free");

        store.purge_uploads(touched_ms + STALE_AFTER_MS - 1).await.expect("purged");
        assert_eq!(store.uploads_open(), 2, "a minute too early");
        store.purge_uploads(touched_ms + 2 * STALE_AFTER_MS).await.expect("purged");
        assert!(store.upload_offset(&name, &id).is_err(), "given up");
        assert!(!store.layout.upload(&id).exists());
        assert_eq!(store.upload_offset(&name, &busy).expect("still open"), 0);
        drop(turn);
        store.purge_uploads(touched_ms + 2 * STALE_AFTER_MS).await.expect("purged");
        assert_eq!(store.uploads_open(), 0);
        assert!(store.database.read(catalogue::uploads).await.expect("read").is_empty());
    }
}
