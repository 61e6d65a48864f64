//! Durable files: written whole or not at all, and known to be whole when read.
//!
//! A file is its bytes and a last line `#sha256:<hex>`. Writing keeps the previous one as `<name>.previous`, so that a
//! torn or flipped file has an older sound one beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use appbase_core::Digest;

#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} is damaged (its checksum does not match) and so is the copy before it: restore it from a backup, or remove both to start without"
    )]
    Damaged { path: PathBuf },
}

/// What was read, and whether it is the file itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Sound(Vec<u8>),
    /// The file is damaged; these are the bytes of the copy before it.
    Previous(Vec<u8>),
}

impl Found {
    pub fn bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Nothing => None,
            Self::Sound(bytes) | Self::Previous(bytes) => Some(bytes),
        }
    }
}

/// Writes `bytes` with its checksum: temporary file, fsync, rename, fsync of the directory. Mode 0600.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let mut sealed = Vec::with_capacity(bytes.len() + 80);
    sealed.extend_from_slice(bytes);
    sealed.extend_from_slice(format!("\n#{}\n", Digest::of(bytes)).as_bytes());
    let previous = beside(path, "previous");
    if matches!(read_one(path), Ok(Some(Ok(_)))) {
        let _ = fs::remove_file(&previous);
        fs::hard_link(path, &previous).map_err(|source| DurableError::Io {
            doing: "keep a copy of",
            path: path.into(),
            source,
        })?;
    }
    replace(path, &sealed)
}

/// Writes a plain file whole: temporary file, fsync, rename, fsync of the directory. Mode 0600.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let temporary = beside(path, "new");
    let io = |doing| move |source| DurableError::Io { doing, path: path.to_path_buf(), source };
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    if let Err(source) = written {
        let _ = fs::remove_file(&temporary);
        return Err(io("write")(source));
    }
    fs::rename(&temporary, path).map_err(io("replace"))?;
    sync_directory_of(path).map_err(io("sync the directory of"))
}

/// Reads what [`write`] wrote. A damaged file yields its previous copy; damaged without a sound copy is an error.
pub fn read(path: &Path) -> Result<Found, DurableError> {
    let io = |source| DurableError::Io { doing: "read", path: path.to_path_buf(), source };
    match read_one(path).map_err(io)? {
        Some(Ok(bytes)) => return Ok(Found::Sound(bytes)),
        None if !beside(path, "previous").exists() => return Ok(Found::Nothing),
        None | Some(Err(())) => {}
    }
    match read_one(&beside(path, "previous")).map_err(io)? {
        Some(Ok(bytes)) => Ok(Found::Previous(bytes)),
        _ => Err(DurableError::Damaged { path: path.to_path_buf() }),
    }
}

pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn beside(path: &Path, word: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(word);
    path.with_file_name(name)
}

/// None: no such file. `Some(Err)`: damaged.
fn read_one(path: &Path) -> io::Result<Option<Result<Vec<u8>, ()>>> {
    let mut sealed = match fs::read(path) {
        Ok(sealed) => sealed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    const SEAL: usize = 1 + 1 + 7 + 64 + 1;
    let Some(split) = sealed.len().checked_sub(SEAL) else { return Ok(Some(Err(()))) };
    let seal = sealed.split_off(split);
    let sound = seal == format!("\n#{}\n", Digest::of(&sealed)).as_bytes();
    Ok(Some(if sound { Ok(sealed) } else { Err(()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_noticed_and_the_copy_before_serves() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("table");
        assert_eq!(read(&path).expect("readable"), Found::Nothing);
        write(&path, b"one").expect("written");
        write(&path, b"two").expect("written");
        assert_eq!(read(&path).expect("readable"), Found::Sound(b"two".to_vec()));

        for damage in [&b"tw"[..], b"", b"two\n#sha256:00\n"] {
            fs::write(&path, damage).expect("damaged on purpose");
            assert_eq!(read(&path).expect("readable"), Found::Previous(b"one".to_vec()));
        }
        write(&path, b"three").expect("a damaged file never becomes the copy");
        fs::write(&path, b"x").expect("damaged on purpose");
        assert_eq!(read(&path).expect("readable"), Found::Previous(b"one".to_vec()));
        fs::write(directory.path().join("table.previous"), b"y").expect("damaged on purpose");
        assert!(matches!(read(&path), Err(DurableError::Damaged { .. })));
    }
}
