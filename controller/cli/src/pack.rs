//! What is pushed: a directory becomes a deterministic archive, a file is taken as what it is.
//!
//! The same files give the same bytes, whoever packs them and when: sorted, without owners and times, with two modes.
//! Refuses what would not mean the same elsewhere: links that leave the directory, devices, sockets, pipes.

mod directory;
mod ignore;
mod image;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use appbase_core::Digest;
use controller_core::app_file::{self, APP_FILE_BYTES_MAX};
use sha2::{Digest as _, Sha256};

use crate::error::Failure;

/// The app file, wherever it is looked for.
pub(crate) const APP_FILE: &str = "platform.toml";

/// Bytes ready to be sent, with their name.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) file: File,
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
}

impl Blob {
    /// From a file that stays as it is while it is sent.
    fn of(mut file: File, path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::io("read", path, &error);
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut hash = Hashing::new(io::sink());
        let bytes = io::copy(&mut file, &mut hash).map_err(failed)?;
        Ok(Self { file, digest: hash.digest(), bytes })
    }

    pub(crate) fn of_bytes(content: &[u8]) -> Result<Self, Failure> {
        let mut file = temporary()?;
        file.write_all(content).map_err(|error| Failure::io("write", &std::env::temp_dir(), &error))?;
        Ok(Self { file, digest: Digest::of(content), bytes: content.len() as u64 })
    }

    /// `length` bytes from `offset` on.
    pub(crate) fn read(&mut self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(offset))?;
        let mut chunk = vec![0; length];
        self.file.read_exact(&mut chunk)?;
        Ok(chunk)
    }
}

/// What kind of version the bytes are.
#[derive(Debug)]
pub(crate) enum Content {
    Artifact,
    /// The id the image has once loaded.
    Image(String),
}

#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) blob: Blob,
    pub(crate) content: Content,
    /// The text of the app file; empty without one.
    pub(crate) app_file: String,
}

/// Packs `path`; `app_file` names the app file where it is not the one in the directory.
pub(crate) fn pack(path: &Path, app_file: Option<&Path>) -> Result<Packed, Failure> {
    let kind = std::fs::metadata(path).map_err(|error| Failure::io("read", path, &error))?;
    let app_text = match app_file {
        Some(file) => read_app_file(file)?,
        None if kind.is_dir() => match std::fs::symlink_metadata(path.join(APP_FILE)) {
            Ok(_) => read_app_file(&path.join(APP_FILE))?,
            Err(_) => String::new(),
        },
        None => String::new(),
    };
    let (blob, content) = if kind.is_dir() {
        (directory::archive(path)?, Content::Artifact)
    } else if kind.is_file() {
        pack_file(path, kind.permissions().mode())?
    } else {
        return Err(Failure::input(format!("{} is neither a file nor a directory", path.display())));
    };
    Ok(Packed { blob, content, app_file: app_text })
}

fn pack_file(path: &Path, mode: u32) -> Result<(Blob, Content), Failure> {
    let failed = |error: io::Error| Failure::io("read", path, &error);
    let mut file = File::open(path).map_err(failed)?;
    let mut begin = Vec::new();
    (&mut file).take(512).read_to_end(&mut begin).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    if begin.starts_with(&[0x1f, 0x8b]) {
        check_gzip_tar(&file, path)?;
        return Ok((Blob::of(file, path)?, Content::Artifact));
    }
    if begin.get(257..262) == Some(b"ustar") {
        let image = image::id(&mut file, path)?;
        return Ok((Blob::of(file, path)?, Content::Image(image)));
    }
    let executable = begin.starts_with(b"\x7fELF") || begin.starts_with(b"#!") || mode & 0o111 != 0;
    if executable && !begin.is_empty() {
        return Ok((directory::archive_program(file, path)?, Content::Artifact));
    }
    Err(Failure::input(format!(
        "{} is nothing that can run: push a directory, a .tar.gz, an executable, or an image as `docker save` writes it",
        path.display()
    )))
}

/// A gzip that holds no tar would be found out only at the first start.
fn check_gzip_tar(mut file: &File, path: &Path) -> Result<(), Failure> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let first = archive.entries().and_then(|mut entries| entries.next().transpose());
    let outcome = match first {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("it is empty".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    outcome.map_err(|why| Failure::input(format!("{} is not a gzip-compressed tar: {why}", path.display())))?;
    file.seek(SeekFrom::Start(0)).map_err(|error| Failure::io("read", path, &error))?;
    Ok(())
}

fn read_app_file(path: &Path) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::io("read", path, &error);
    let kind = std::fs::metadata(path).map_err(failed)?;
    if !kind.is_file() {
        return Err(Failure::input(format!("the app file {} is not a file", path.display())));
    }
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(APP_FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    // Read again by the controller; here so that a mistake is found before it has a version.
    app_file::parse(&text).map_err(|error| Failure::input(format!("{}: {error}", path.display())))?;
    Ok(text)
}

fn temporary() -> Result<File, Failure> {
    tempfile::tempfile().map_err(|error| Failure::io("write into", &std::env::temp_dir(), &error))
}

/// Counts and hashes what goes through.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    fn digest(self) -> Digest {
        Digest::from_bytes(self.hash.finalize().into())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
