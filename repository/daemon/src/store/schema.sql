-- Version 1. Digests are "sha256:<hex>"; times are milliseconds since the Unix epoch.
CREATE TABLE blob (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL CHECK (size >= 0),
    stored_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Which repositories may name a blob: bytes are shared, the right to read them is not.
CREATE TABLE link (
    repository TEXT NOT NULL,
    digest TEXT NOT NULL REFERENCES blob (digest),
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE manifest (
    repository TEXT NOT NULL,
    digest TEXT NOT NULL REFERENCES blob (digest),
    media_type TEXT NOT NULL,
    artifact_type TEXT,
    subject TEXT,
    stored_ms INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;

-- What a manifest needs: blobs, and for an index manifests.
CREATE TABLE reference (
    repository TEXT NOT NULL,
    manifest TEXT NOT NULL,
    digest TEXT NOT NULL REFERENCES blob (digest),
    PRIMARY KEY (repository, manifest, digest),
    FOREIGN KEY (repository, manifest) REFERENCES manifest (repository, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE tag (
    repository TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    changed_ms INTEGER NOT NULL,
    PRIMARY KEY (repository, name),
    FOREIGN KEY (repository, digest) REFERENCES manifest (repository, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE upload (
    id TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    synced_bytes INTEGER NOT NULL CHECK (synced_bytes >= 0),
    touched_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
