//! The catalogue's questions and changes, one function each. Runs inside a transaction that the caller holds.

use appbase_core::Digest;
use repository_core::{Reference, RepositoryName, Tag, UploadId};
use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;

/// A manifest as it is served: the bytes are the blob of the same digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) size: u64,
}

/// Some tags in order, and whether there are more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagPage {
    pub(crate) tags: Vec<String>,
    pub(crate) more: bool,
}

pub(crate) struct TagEntry {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) digest: String,
    pub(crate) media_type: String,
    pub(crate) size: u64,
}

pub(crate) struct UploadRow {
    pub(crate) id: UploadId,
    pub(crate) repository: RepositoryName,
    pub(crate) synced_bytes: u64,
    pub(crate) touched_ms: u64,
}

fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn loaded(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(crate) fn blob_size(db: &Connection, name: &RepositoryName, digest: Digest) -> Result<Option<u64>, StoreError> {
    let text = "SELECT size FROM link JOIN blob USING (digest) WHERE repository = ?1 AND digest = ?2";
    let size = db.prepare_cached(text)?.query_row(params![name.as_str(), digest.to_string()], |row| row.get(0));
    Ok(size.optional()?.map(loaded))
}

pub(crate) fn is_stored(db: &Connection, digest: Digest) -> Result<bool, StoreError> {
    Ok(db.prepare_cached("SELECT 1 FROM blob WHERE digest = ?1")?.exists([digest.to_string()])?)
}

pub(crate) fn insert_blob(db: &Connection, digest: Digest, size: u64, now_ms: u64) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO blob (digest, size, stored_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
        .execute(params![digest.to_string(), stored(size), stored(now_ms)])?;
    Ok(())
}

pub(crate) fn link_blob(db: &Connection, name: &RepositoryName, digest: Digest) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO link (repository, digest) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![name.as_str(), digest.to_string()])?;
    Ok(())
}

pub(crate) fn manifest(
    db: &Connection,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Option<StoredManifest>, StoreError> {
    let digest = match reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(tag) => tagged(db, name, tag)?,
    };
    let Some(digest) = digest else { return Ok(None) };
    let text = "SELECT media_type, size FROM manifest JOIN blob USING (digest) WHERE repository = ?1 AND digest = ?2";
    let found = db.prepare_cached(text)?.query_row(params![name.as_str(), digest.to_string()], |row| {
        Ok(StoredManifest { digest, media_type: row.get(0)?, size: loaded(row.get(1)?) })
    });
    Ok(found.optional()?)
}

pub(crate) fn tagged(db: &Connection, name: &RepositoryName, tag: &Tag) -> Result<Option<Digest>, StoreError> {
    let text = "SELECT digest FROM tag WHERE repository = ?1 AND name = ?2";
    let found: Option<String> =
        db.prepare_cached(text)?.query_row([name.as_str(), tag.as_str()], |row| row.get(0)).optional()?;
    Ok(found.and_then(|text| Digest::parse(&text).ok()))
}

pub(crate) fn insert_manifest(
    db: &Connection,
    name: &RepositoryName,
    digest: Digest,
    manifest: &repository_core::Manifest,
    now_ms: u64,
) -> Result<(), StoreError> {
    let text = "INSERT INTO manifest (repository, digest, media_type, artifact_type, subject, stored_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
    let subject = manifest.subject.map(|subject| subject.to_string());
    let own = digest.to_string();
    db.prepare_cached(text)?.execute(params![
        name.as_str(),
        own,
        manifest.media_type,
        manifest.artifact_type,
        subject,
        stored(now_ms)
    ])?;
    let text = "INSERT INTO reference (repository, manifest, digest) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    let mut insert = db.prepare_cached(text)?;
    for needed in manifest.blobs().into_iter().chain(manifest.manifests()) {
        insert.execute(params![name.as_str(), own, needed.digest.to_string()])?;
    }
    Ok(())
}

pub(crate) fn set_tag(
    db: &Connection,
    name: &RepositoryName,
    tag: &Tag,
    digest: Digest,
    now_ms: u64,
) -> Result<(), StoreError> {
    let text = "INSERT INTO tag (repository, name, digest, changed_ms) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (repository, name) DO UPDATE SET digest = excluded.digest, changed_ms = excluded.changed_ms";
    db.prepare_cached(text)?.execute(params![name.as_str(), tag.as_str(), digest.to_string(), stored(now_ms)])?;
    Ok(())
}

/// Tags after `last`, at most `limit`; none when the repository holds nothing at all.
pub(crate) fn tags(
    db: &Connection,
    name: &RepositoryName,
    last: &str,
    limit: usize,
) -> Result<Option<TagPage>, StoreError> {
    let known = "SELECT 1 FROM link WHERE repository = ?1 UNION SELECT 1 FROM manifest WHERE repository = ?1";
    if !db.prepare_cached(known)?.exists([name.as_str()])? {
        return Ok(None);
    }
    let text = "SELECT name FROM tag WHERE repository = ?1 AND name > ?2 ORDER BY name LIMIT ?3";
    let mut query = db.prepare_cached(text)?;
    let rows = query.query_map(params![name.as_str(), last, stored(limit as u64 + 1)], |row| row.get(0))?;
    let mut tags = rows.collect::<Result<Vec<String>, _>>()?;
    let more = tags.len() > limit;
    tags.truncate(limit);
    Ok(Some(TagPage { tags, more }))
}

pub(crate) fn all_tags(db: &Connection) -> Result<Vec<TagEntry>, StoreError> {
    let text = "SELECT repository, name, digest, media_type, size FROM tag
        JOIN manifest USING (repository, digest) JOIN blob USING (digest) ORDER BY repository, name";
    let mut query = db.prepare(text)?;
    let rows = query.query_map([], |row| {
        Ok(TagEntry {
            repository: row.get(0)?,
            tag: row.get(1)?,
            digest: row.get(2)?,
            media_type: row.get(3)?,
            size: loaded(row.get(4)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(crate) fn insert_upload(
    db: &Connection,
    id: &UploadId,
    name: &RepositoryName,
    now_ms: u64,
) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO upload (id, repository, synced_bytes, touched_ms) VALUES (?1, ?2, 0, ?3)")?
        .execute(params![id.as_str(), name.as_str(), stored(now_ms)])?;
    Ok(())
}

pub(crate) fn note_upload(db: &Connection, id: &UploadId, synced_bytes: u64, now_ms: u64) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE upload SET synced_bytes = ?2, touched_ms = ?3 WHERE id = ?1")?.execute(params![
        id.as_str(),
        stored(synced_bytes),
        stored(now_ms)
    ])?;
    Ok(())
}

pub(crate) fn delete_upload(db: &Connection, id: &UploadId) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM upload WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

/// Rows that are not readable as an upload are left out; their directories go as strays.
pub(crate) fn uploads(db: &Connection) -> Result<Vec<UploadRow>, StoreError> {
    let mut query = db.prepare("SELECT id, repository, synced_bytes, touched_ms FROM upload ORDER BY id")?;
    let rows = query.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
    })?;
    let mut uploads = Vec::new();
    for row in rows {
        let (id, repository, synced, touched) = row?;
        if let (Some(id), Ok(repository)) = (UploadId::parse(&id), RepositoryName::parse(&repository)) {
            uploads.push(UploadRow { id, repository, synced_bytes: loaded(synced), touched_ms: loaded(touched) });
        }
    }
    Ok(uploads)
}

/// What the catalogue lists.
pub(crate) struct Listed {
    /// Digest and size of each blob.
    pub(crate) blobs: Vec<(String, u64)>,
    /// In words: what does not hold together.
    pub(crate) problems: Vec<String>,
}

pub(crate) fn check_catalogue(db: &Connection) -> Result<Listed, StoreError> {
    let mut query = db.prepare("SELECT digest, size FROM blob ORDER BY digest")?;
    let blobs = query
        .query_map([], |row| Ok((row.get(0)?, loaded(row.get(1)?))))?
        .collect::<Result<Vec<(String, u64)>, _>>()?;
    let mut problems = Vec::new();
    let integrity: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if integrity != "ok" {
        problems.push(format!("catalogue: {integrity}"));
    }
    let mut dangling = db.prepare("PRAGMA foreign_key_check")?;
    let rows = dangling.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(2)?)))?;
    for row in rows {
        let (table, parent) = row?;
        problems.push(format!("catalogue: a row of \"{table}\" names a missing \"{parent}\""));
    }
    Ok(Listed { blobs, problems })
}
