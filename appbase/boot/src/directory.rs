//! Directory: the files of one instance, and writing them whole.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

/// The instance's own directory. Everything boot writes is in it.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    root: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("cannot use {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("another boot runs in {0}: stop it first")]
    Taken(PathBuf),
}

impl Directory {
    /// Makes it when it is not there; absolute from here on, because the app gets paths in it.
    pub(crate) fn open(root: &Path) -> Result<Self, DirectoryError> {
        let wrong = |source| DirectoryError::Io { path: root.to_path_buf(), source };
        fs::create_dir_all(root).map_err(wrong)?;
        Ok(Self { root: root.canonicalize().map_err(wrong)? })
    }

    /// Held until dropped (and by no child): two boots never share a directory.
    pub(crate) fn lock(&self) -> Result<File, DirectoryError> {
        let path = self.root.join("lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(|source| DirectoryError::Io { path: path.clone(), source })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DirectoryError::Taken(self.root.clone())),
            Err(error) => Err(DirectoryError::Io { path, source: error.into() }),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The unpacked artifact; the app's working directory.
    pub(crate) fn app(&self) -> PathBuf {
        self.root.join("app")
    }

    pub(crate) fn marker(&self) -> PathBuf {
        self.root.join("marker.json")
    }

    /// The release document as it was fetched.
    pub(crate) fn release(&self) -> PathBuf {
        self.root.join("release.json")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state.json")
    }

    pub(crate) fn exit(&self) -> PathBuf {
        self.root.join("exit.json")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Where fetching and unpacking happen before they count.
    pub(crate) fn unfinished(&self) -> PathBuf {
        self.root.join("unfinished")
    }
}

/// Replaces a file whole, not durably: what it says is worthless after a crash of the machine anyway.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let temporary = path.with_extension("json.new");
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

/// Removes a tree that may not be there.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
