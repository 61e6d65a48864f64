//! Manifests and tags: stored only when everything they name is there.

use std::sync::atomic::Ordering;

use appbase_core::Digest;
use repository_core::{Code, Descriptor, Manifest, Reference, Refusal, RepositoryName, Tag};
use rusqlite::Connection;

use super::receive::remove_unlisted;
use super::{Store, StoreError, StoredManifest, TagPage, blocking, catalogue};

impl Store {
    pub(crate) async fn manifest(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<StoredManifest>, StoreError> {
        let (name, reference) = (name.clone(), reference.clone());
        self.database.read(move |connection| catalogue::manifest(connection, &name, &reference)).await
    }

    /// The bytes of something small that the catalogue lists: a manifest, or the config of one.
    pub(crate) async fn read_small(&self, digest: Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.layout.blob(digest);
        let bytes =
            blocking(move || std::fs::read(&path).map_err(|source| StoreError::io("read", &path, source))).await?;
        if Digest::of(&bytes) != digest {
            return Err(StoreError::Damaged { digest });
        }
        Ok(bytes)
    }

    pub(crate) async fn tags(
        &self,
        name: &RepositoryName,
        last: String,
        limit: usize,
    ) -> Result<Option<TagPage>, StoreError> {
        let name = name.clone();
        self.database.read(move |connection| catalogue::tags(connection, &name, &last, limit)).await
    }

    /// Stores the bytes of a checked manifest and lets `reference` name it.
    pub(crate) async fn put_manifest(
        &self,
        name: &RepositoryName,
        reference: Reference,
        manifest: Manifest,
        bytes: Vec<u8>,
    ) -> Result<Digest, StoreError> {
        let digest = Digest::of(&bytes);
        let tag = match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(wanted) if wanted == digest => None,
            Reference::Digest(wanted) => {
                let message = format!("the manifest sent has digest {digest}, not {wanted}: nothing was stored");
                return Err(Refusal::new(Code::DigestInvalid, "digest-mismatch", message).into());
            }
        };
        // Looked at first, so that what will be refused is not even written; looked at again in the transaction.
        let (early, early_name, early_tag) = (manifest.clone(), name.clone(), tag.clone());
        self.database
            .read(move |connection| admit(connection, &early_name, early_tag.as_ref(), &early, digest))
            .await?;

        let size = bytes.len() as u64;
        let layout = self.layout.clone();
        let staged = blocking(move || layout.stage(&bytes)).await?;
        let (layout, undone, left) = (self.layout.clone(), self.layout.blob(digest), staged.clone());
        let (name, now_ms) = (name.clone(), self.clock.unix_ms());
        self.database
            .write_or(
                move |transaction| {
                    admit(transaction, &name, tag.as_ref(), &manifest, digest)?;
                    layout.place(&staged, digest)?;
                    catalogue::insert_blob(transaction, digest, size, now_ms)?;
                    catalogue::insert_manifest(transaction, &name, digest, &manifest, now_ms)?;
                    if let Some(tag) = &tag {
                        catalogue::set_tag(transaction, &name, tag, digest, now_ms)?;
                    }
                    Ok(())
                },
                move |connection| {
                    let _ = std::fs::remove_file(&left);
                    remove_unlisted(connection, digest, &undone);
                },
            )
            .await?;
        self.counters.manifests_stored.fetch_add(1, Ordering::Relaxed);
        self.index_stale.store(true, Ordering::Release);
        Ok(digest)
    }
}

/// Everything named is there, with the size it is said to have, and the tag may name it.
fn admit(
    connection: &Connection,
    name: &RepositoryName,
    tag: Option<&Tag>,
    manifest: &Manifest,
    digest: Digest,
) -> Result<(), StoreError> {
    for blob in manifest.blobs() {
        check_size(blob, catalogue::blob_size(connection, name, blob.digest)?)?;
    }
    for needed in manifest.manifests() {
        let found = catalogue::manifest(connection, name, &Reference::Digest(needed.digest))?;
        check_size(needed, found.map(|manifest| manifest.size))?;
    }
    if let Some(tag) = tag {
        tag.change(catalogue::tagged(connection, name, tag)?, digest).map_err(Refusal::from)?;
    }
    Ok(())
}

fn check_size(named: &Descriptor, found: Option<u64>) -> Result<(), StoreError> {
    let Some(size) = found else {
        let message = format!("the manifest names {}, which is not in this repository", named.digest);
        return Err(Refusal::new(Code::ManifestBlobUnknown, "blob-missing", message).hint("push it first").into());
    };
    if size != named.size {
        let message = format!("the manifest says {} has {} bytes, it has {size}", named.digest, named.size);
        return Err(Refusal::new(Code::ManifestInvalid, "size-mismatch", message).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::Limits;
    use super::*;

    fn staged(store: &Store) -> usize {
        std::fs::read_dir(store.layout.uploads()).expect("readable").count()
    }

    /// All pushes have looked and found the tag free before the first one commits: still only one may have it.
    #[tokio::test(flavor = "multi_thread")]
    async fn pushes_that_looked_at_the_same_time_have_one_winner() {
        const PUSHES: usize = 4;
        let directory = tempfile::tempdir().expect("a directory");
        let limits = Limits { blob_bytes_max: 1000, uploads_max: 10 };
        let (clock, tasks) = (kit::Clock::start(), kit::Tasks::new());
        let store = Arc::new(Store::open(directory.path(), limits, clock, tasks.clone()).await.expect("opens"));
        let name = RepositoryName::parse("a").expect("a name");
        let reference = Reference::Tag(Tag::parse("1").expect("a tag"));

        let (go, wait) = std::sync::mpsc::channel::<()>();
        let holding = Arc::clone(&store);
        tasks.spawn("hold", async move { holding.database.write(move |_| Ok(wait.recv().is_ok())).await });
        let pushes: Vec<_> = (0..PUSHES)
            .map(|n| {
                let (store, name, reference) = (Arc::clone(&store), name.clone(), reference.clone());
                let bytes = format!("{{\"schemaVersion\":2,\"manifests\":[]}}{}", " ".repeat(n)).into_bytes();
                let kind = repository_core::v1::media::OCI_INDEX;
                let manifest = Manifest::parse(Some(kind), &bytes).expect("a manifest");
                tasks.spawn("push", async move { store.put_manifest(&name, reference, manifest, bytes).await })
            })
            .collect();
        let all_looked = async {
            while staged(&store) < PUSHES {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all_looked).await.expect("all are staged");
        go.send(()).expect("still held");

        let mut won = Vec::new();
        for push in pushes {
            match push.await.ok().flatten().expect("no panic") {
                Ok(digest) => won.push(digest),
                Err(StoreError::Refused(refusal)) => assert_eq!(refusal.word, "version-exists"),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(won.len(), 1);
        let found = store.manifest(&name, &reference).await.expect("read").expect("tagged");
        assert_eq!(found.digest, won[0]);
        assert_eq!(staged(&store), 0, "the losers left nothing");
        assert_eq!(std::fs::read_dir(store.layout.blobs()).expect("readable").count(), 1);
    }
}
