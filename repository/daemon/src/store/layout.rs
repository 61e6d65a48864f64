//! Where files are, and how they get there durably.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use appbase_core::Digest;
use repository_core::UploadId;
use repository_core::v1::{LAYOUT, REF_NAME, media};

use super::StoreError;
use super::catalogue::TagEntry;

#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// The directory is ours as long as this lives; the kernel gives it back even after `kill -9`.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Layout {
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    pub(crate) fn catalogue(&self) -> PathBuf {
        self.root.join("catalogue.db")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, digest: Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(crate) fn upload(&self, id: &UploadId) -> PathBuf {
        self.uploads().join(id.as_str())
    }

    pub(crate) fn upload_data(&self, id: &UploadId) -> PathBuf {
        self.upload(id).join("data")
    }

    pub(crate) fn create(&self) -> Result<(), StoreError> {
        for directory in [self.blobs(), self.uploads()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(|source| StoreError::io("make", &directory, source))?;
        }
        for directory in [self.root.clone(), self.root.join("blobs")] {
            sync(&directory)?;
        }
        let marker = self.root.join("oci-layout");
        if !marker.exists() {
            self.replace(&marker, LAYOUT.as_bytes())?;
        }
        Ok(())
    }

    /// Takes the directory, or says who has it.
    pub(crate) fn lock(&self) -> Result<Lock, StoreError> {
        let path = self.root.join("lock");
        let io = |source| StoreError::io("open", &path, source);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let pid = io::read_to_string(&file).unwrap_or_default();
                let pid = pid.trim();
                let holder = if pid.is_empty() { String::new() } else { format!(" (pid {pid})") };
                return Err(StoreError::InUse { path: self.root.clone(), holder });
            }
            Err(fs::TryLockError::Error(source)) => return Err(StoreError::io("lock", &path, source)),
        }
        // For people only: the lock is the kernel's. A full disk must not keep the repository from starting.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Lock { _file: file })
    }

    /// Moves a complete, synced file to its place among the blobs. The bytes are the same as of one that is there.
    pub(crate) fn place(&self, from: &Path, digest: Digest) -> Result<(), StoreError> {
        let to = self.blob(digest);
        fs::rename(from, &to).map_err(|source| StoreError::io("place", &to, source))?;
        sync(&self.blobs())
    }

    /// Writes `bytes` beside the uploads, synced, ready to be placed.
    pub(crate) fn stage(&self, bytes: &[u8]) -> Result<PathBuf, StoreError> {
        let path = self.uploads().join(format!("manifest-{}", kit::random::hex::<16>()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        if let Err(source) = written {
            let _ = fs::remove_file(&path);
            return Err(StoreError::io("write", &path, source));
        }
        Ok(path)
    }

    pub(crate) fn create_upload(&self, id: &UploadId) -> Result<(), StoreError> {
        let (directory, data) = (self.upload(id), self.upload_data(id));
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(|source| StoreError::io("make", &directory, source))?;
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&data);
        if let Err(source) = made {
            let _ = fs::remove_dir(&directory);
            return Err(StoreError::io("make", &data, source));
        }
        sync(&directory)?;
        sync(&self.uploads())
    }

    pub(crate) fn remove_upload(&self, id: &UploadId) -> Result<(), StoreError> {
        let directory = self.upload(id);
        match fs::remove_dir_all(&directory) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &directory, source))
            }
            _ => Ok(()),
        }
    }

    /// `index.json`, so that other tools find every tag as `<repository>:<tag>`.
    pub(crate) fn write_index(&self, entries: &[TagEntry]) -> Result<(), StoreError> {
        let manifests: Vec<serde_json::Value> = entries
            .iter()
            .map(|entry| {
                serde_json::json!({
                    "mediaType": entry.media_type, "digest": entry.digest, "size": entry.size,
                    "annotations": { REF_NAME: format!("{}:{}", entry.repository, entry.tag) },
                })
            })
            .collect();
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": manifests });
        self.replace(&self.root.join("index.json"), index.to_string().as_bytes())
    }

    /// Free bytes on the disk of the directory; 0 when it cannot be asked.
    pub(crate) fn free_bytes(&self) -> u64 {
        rustix::fs::statvfs(&self.root).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        kit::durable::replace(path, bytes).map_err(|error| match error {
            kit::durable::DurableError::Io { doing, path, source } => StoreError::io(doing, &path, source),
            kit::durable::DurableError::Damaged { path } => {
                StoreError::io("replace", &path, io::Error::from(io::ErrorKind::InvalidData))
            }
        })
    }
}

/// Makes names in a directory durable.
fn sync(directory: &Path) -> Result<(), StoreError> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(|source| StoreError::io("sync the directory", directory, source))
}
