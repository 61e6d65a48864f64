//! Receiving: from a request's body into the upload's file, and from there among the blobs.
//!
//! Runs as a task of its own, so that a request that is cut off still ends properly: what came is synced and counted.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use appbase_core::Digest;
use axum::body::BodyDataStream;
use bytes::Bytes;
use futures_util::StreamExt;
use repository_core::upload::UploadError;
use repository_core::{Code, Refusal, RepositoryName, Upload, UploadId};
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::uploads::Session;
use super::{Store, StoreError, blocking, catalogue};

/// Bytes gathered before they are hashed and written: what an upload holds in memory.
const BATCH_BYTES: usize = 1 << 20;
/// After this many bytes an upload is synced, so that a crash costs no more.
const SYNC_BYTES: u64 = 16 << 20;
/// A body that says nothing for this long is taken as cut off.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// What a request brings: its body and what its head says of it.
pub(crate) struct Incoming {
    pub(crate) content_range: Option<String>,
    pub(crate) content_length: Option<u64>,
    pub(crate) body: BodyDataStream,
}

/// The right to write to one upload, and its open file.
struct Turn {
    session: Arc<Session>,
    upload: Upload,
    /// None only while a write is under way or after one failed: then the file is read again at the next turn.
    writer: Option<Writer>,
    synced: u64,
    _permit: OwnedSemaphorePermit,
}

struct Writer {
    file: File,
    hash: Sha256,
}

impl Store {
    /// A chunk. Answers the new offset.
    pub(crate) async fn receive_chunk(
        self: &Arc<Self>,
        name: &RepositoryName,
        id: &UploadId,
        incoming: Incoming,
    ) -> Result<u64, StoreError> {
        let session = self.session(name, id)?;
        let store = Arc::clone(self);
        let task = self.tasks.spawn("repository-chunk", async move {
            let turn = store.receive(session, incoming).await?;
            Ok(turn.upload.offset())
        });
        task.await.ok().flatten().unwrap_or(Err(StoreError::Stopped))
    }

    /// The last chunk, often empty, and the digest that all must have.
    pub(crate) async fn receive_last(
        self: &Arc<Self>,
        name: &RepositoryName,
        id: &UploadId,
        incoming: Incoming,
        digest: Digest,
    ) -> Result<(), StoreError> {
        let session = self.session(name, id)?;
        let store = Arc::clone(self);
        let task = self.tasks.spawn("repository-blob", async move {
            let turn = store.receive(session, incoming).await?;
            store.complete(turn, digest).await
        });
        task.await.ok().flatten().unwrap_or(Err(StoreError::Stopped))
    }

    async fn receive(&self, session: Arc<Session>, incoming: Incoming) -> Result<Turn, StoreError> {
        let mut turn = self.take_turn(session).await?;
        let begun = turn.upload.begin(incoming.content_range.as_deref(), incoming.content_length);
        let received = match begun {
            Ok(()) => self.write_all(&mut turn, incoming.body).await,
            Err(error) => Err(Refusal::from(error).into()),
        };
        let ended = turn.upload.end();
        let settled = match &received {
            Err(error) if must_discard(error) => Ok(()),
            _ => self.sync(&mut turn).await,
        };
        match received.and(settled).and(ended.map_err(|error| Refusal::from(error).into())) {
            Ok(()) => Ok(turn),
            Err(error) => {
                if must_discard(&error) {
                    self.discard(&turn.session).await?;
                }
                Err(error)
            }
        }
    }

    async fn take_turn(&self, session: Arc<Session>) -> Result<Turn, StoreError> {
        let permit = session.turn().await?;
        let progress = session.progress();
        session.set(|progress| progress.hash = None);
        let path = self.layout.upload_data(&session.id);
        let writer = blocking(move || Writer::open(&path, progress.offset, progress.hash)).await?;
        let upload = Upload::at(progress.offset, self.limits.blob_bytes_max);
        Ok(Turn { session, upload, writer: Some(writer), synced: progress.offset, _permit: permit })
    }

    async fn write_all(&self, turn: &mut Turn, mut body: BodyDataStream) -> Result<(), StoreError> {
        loop {
            let (batch, bytes, end) = gather(&mut body).await;
            turn.upload.admits(bytes).map_err(Refusal::from)?;
            if bytes > 0 {
                self.write(turn, batch, bytes).await?;
            }
            if turn.upload.offset() - turn.synced >= SYNC_BYTES {
                self.sync(turn).await?;
            }
            match end {
                None => {}
                Some(Ok(())) => return Ok(()),
                Some(Err(reason)) => return Err(StoreError::Cut(reason)),
            }
        }
    }

    async fn write(&self, turn: &mut Turn, batch: Vec<Bytes>, bytes: u64) -> Result<(), StoreError> {
        let mut writer = turn.writer.take().ok_or(StoreError::Stopped)?;
        let path = self.layout.upload_data(&turn.session.id);
        turn.writer = Some(
            blocking(move || {
                for piece in &batch {
                    writer.file.write_all(piece).map_err(|source| StoreError::io("write", &path, source))?;
                    writer.hash.update(piece);
                }
                Ok(writer)
            })
            .await?,
        );
        turn.upload.received(bytes);
        self.counters.received_bytes.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// Makes what was written durable and counts it. Without a writer (a write failed) the last synced state stays.
    async fn sync(&self, turn: &mut Turn) -> Result<(), StoreError> {
        let Some(writer) = turn.writer.take() else { return Ok(()) };
        let (offset, changed) = (turn.upload.offset(), turn.upload.offset() != turn.synced);
        let (id, now_ms) = (turn.session.id.clone(), self.clock.unix_ms());
        let path = self.layout.upload_data(&id);
        let writer = blocking(move || {
            if changed {
                writer.file.sync_data().map_err(|source| StoreError::io("sync", &path, source))?;
            }
            Ok(writer)
        })
        .await?;
        if changed {
            self.database.write(move |transaction| catalogue::note_upload(transaction, &id, offset, now_ms)).await?;
        }
        turn.synced = offset;
        let hash = writer.hash.clone();
        turn.session.set(|progress| {
            (progress.offset, progress.hash, progress.touched_ms) = (offset, Some(hash), now_ms);
        });
        turn.writer = Some(writer);
        Ok(())
    }

    /// All bytes are there and synced: they become the blob they are called, or nothing.
    async fn complete(&self, turn: Turn, digest: Digest) -> Result<(), StoreError> {
        let Turn { session, upload, writer, _permit, .. } = turn;
        let writer = writer.ok_or(StoreError::Stopped)?;
        let actual = Digest::from_bytes(writer.hash.finalize().into());
        if actual != digest {
            self.discard(&session).await?;
            let message = format!("the bytes sent have digest {actual}, not {digest}: nothing was stored");
            return Err(Refusal::new(Code::DigestInvalid, "digest-mismatch", message).into());
        }
        let stored = self.store_blob(&session, digest, upload.offset()).await;
        match stored {
            Ok(()) => {
                self.counters.blobs_stored.fetch_add(1, Relaxed);
                self.forget(&session).await;
            }
            Err(_) => self.discard(&session).await.unwrap_or_else(|error| {
                tracing::warn!(error = %kit::problem::chain(&error), upload = %session.id, "upload stays until restart");
            }),
        }
        stored
    }

    /// Rename, directory sync and commit, all on the writing thread: whoever removes a file there sees a true catalogue.
    async fn store_blob(&self, session: &Session, digest: Digest, size: u64) -> Result<(), StoreError> {
        let from = self.layout.upload_data(&session.id);
        let (layout, undone) = (self.layout.clone(), self.layout.blob(digest));
        let (id, name, now_ms) = (session.id.clone(), session.repository.clone(), self.clock.unix_ms());
        self.database
            .write_or(
                move |transaction| {
                    layout.place(&from, digest)?;
                    catalogue::insert_blob(transaction, digest, size, now_ms)?;
                    catalogue::link_blob(transaction, &name, digest)?;
                    catalogue::delete_upload(transaction, &id)
                },
                move |connection| remove_unlisted(connection, digest, &undone),
            )
            .await
    }
}

/// Removes a file that was placed for a commit that failed, unless another commit lists it.
pub(super) fn remove_unlisted(connection: &rusqlite::Connection, digest: Digest, path: &Path) {
    if matches!(catalogue::is_stored(connection, digest), Ok(false)) {
        let _ = std::fs::remove_file(path);
    }
}

/// These leave no upload that could be resumed with success: its bytes would only fill the disk.
fn must_discard(error: &StoreError) -> bool {
    match error {
        StoreError::Full => true,
        StoreError::Refused(refusal) => refusal.status == 413,
        _ => false,
    }
}

/// Up to [`BATCH_BYTES`] of the body, and its end when it came: good, or why not.
async fn gather(body: &mut BodyDataStream) -> (Vec<Bytes>, u64, Option<Result<(), String>>) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES {
        match tokio::time::timeout(IDLE_LIMIT, body.next()).await {
            Ok(Some(Ok(piece))) => {
                bytes += piece.len();
                batch.push(piece);
            }
            Ok(Some(Err(error))) => return (batch, bytes as u64, Some(Err(kit::problem::chain(&error)))),
            Ok(None) => return (batch, bytes as u64, Some(Ok(()))),
            Err(_) => {
                let reason = format!("nothing came for {} s", IDLE_LIMIT.as_secs());
                return (batch, bytes as u64, Some(Err(reason)));
            }
        }
    }
    (batch, bytes as u64, None)
}

impl Writer {
    /// Ready to append at `offset`; what is in the file behind it was never acknowledged and goes.
    fn open(path: &Path, offset: u64, hash: Option<Sha256>) -> Result<Self, StoreError> {
        let io = |source| StoreError::io("open", path, source);
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() != offset {
            file.set_len(offset).map_err(io)?;
        }
        let hash = match hash {
            Some(hash) => hash,
            None => hash_file(&mut file, path)?,
        };
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        Ok(Self { file, hash })
    }
}

/// The running hash of a whole file.
pub(crate) fn hash_file(file: &mut File, path: &Path) -> Result<Sha256, StoreError> {
    let mut hash = Sha256::default();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).map_err(|source| StoreError::io("read", path, source))? {
            0 => return Ok(hash),
            bytes => hash.update(&buffer[..bytes]),
        }
    }
}

/// So that a wrong range is answered with where the upload is.
pub(crate) fn is_out_of_order(error: &StoreError) -> bool {
    let message = |error: UploadError| Refusal::from(error).word;
    let word = message(UploadError::OutOfOrder { start: 0, offset: 0 });
    matches!(error, StoreError::Refused(refusal) if refusal.word == word)
}
