//! A directory, or one program, as a deterministic gzip-compressed tar.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

use super::ignore::Ignore;
use super::{APP_FILE, Blob, Hashing, temporary};
use crate::error::Failure;

/// More entries than this is a mistake (a home directory, a cache), not an app.
const ENTRIES_MAX: usize = 100_000;

/// Bytes before compression: the same.
const BYTES_MAX: u64 = 8 << 30;

const DEPTH_MAX: usize = 64;

type Archive = tar::Builder<GzEncoder<Hashing<BufWriter<File>>>>;

/// The directory without what `.platformignore` names and without the app file, which travels with the version.
pub(super) fn archive(root: &Path) -> Result<Blob, Failure> {
    let ignore = Ignore::of(root)?;
    let mut entries = Vec::new();
    walk(root, Path::new(""), &ignore, &mut entries)?;
    if !entries.iter().any(|entry| !entry.kind.is_dir()) {
        return Err(Failure::input(format!("there is no file to push in {}", root.display())));
    }
    let mut archive = begin()?;
    let mut bytes = 0;
    for entry in &entries {
        bytes += entry.kind.len();
        if bytes > BYTES_MAX {
            return Err(Failure::input(format!(
                "{} holds more than 8 GiB: name what to leave out in .platformignore",
                root.display()
            )));
        }
        append(&mut archive, root, entry)?;
    }
    finish(archive)
}

/// One program, under its own name.
pub(super) fn archive_program(file: File, path: &Path) -> Result<Blob, Failure> {
    let Some(name) = path.file_name() else {
        return Err(Failure::input(format!("{} has no file name", path.display())));
    };
    let bytes = file.metadata().map_err(|error| Failure::io("read", path, &error))?.len();
    let mut archive = begin()?;
    append_file(&mut archive, Path::new(name), path, file, bytes, 0o755)?;
    finish(archive)
}

struct Entry {
    /// Below the root.
    path: PathBuf,
    kind: Metadata,
}

/// Entries of one directory and all below it, sorted by name at each level; links are not followed.
fn walk(root: &Path, below: &Path, ignore: &Ignore, entries: &mut Vec<Entry>) -> Result<(), Failure> {
    let directory = root.join(below);
    if below.components().count() > DEPTH_MAX {
        return Err(Failure::input(format!("{} is more than {DEPTH_MAX} directories deep", directory.display())));
    }
    let mut names: Vec<_> = fs::read_dir(&directory)
        .and_then(|found| found.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<_>>())
        .map_err(|error| Failure::io("read", &directory, &error))?;
    names.sort();
    for name in names {
        let path = below.join(&name);
        let full = root.join(&path);
        let kind = fs::symlink_metadata(&full).map_err(|error| Failure::io("read", &full, &error))?;
        let ignored = path == Path::new(APP_FILE) || ignore.matches(&path, kind.is_dir());
        if ignored {
            continue;
        }
        check(root, &path, &kind)?;
        if entries.len() == ENTRIES_MAX {
            return Err(Failure::input(format!(
                "{} holds more than {ENTRIES_MAX} files: name what to leave out in .platformignore",
                root.display()
            )));
        }
        let is_directory = kind.is_dir();
        entries.push(Entry { path: path.clone(), kind });
        if is_directory {
            walk(root, &path, ignore, entries)?;
        }
    }
    Ok(())
}

/// Refuses what would not mean the same on another machine.
fn check(root: &Path, path: &Path, kind: &Metadata) -> Result<(), Failure> {
    let full = root.join(path);
    let refused = |what: String| {
        Err(Failure::input(format!("{} {what}", full.display()))
            .hint("try", format!("remove it, or add this line to .platformignore: /{}", path.display())))
    };
    let what = kind.file_type();
    if what.is_symlink() {
        let target = fs::read_link(&full).map_err(|error| Failure::io("read", &full, &error))?;
        return match leaves(path, &target) {
            false => Ok(()),
            true => refused(format!("is a link that leaves the directory (to {})", target.display())),
        };
    }
    match () {
        () if what.is_file() || what.is_dir() => Ok(()),
        () if what.is_fifo() => refused("is a named pipe, which cannot be pushed".to_owned()),
        () if what.is_socket() => refused("is a socket, which cannot be pushed".to_owned()),
        () => refused("is a device, which cannot be pushed".to_owned()),
    }
}

/// Whether a link at `path` (below the root) to `target` leads out of the root. `..` counts only at the beginning:
/// after a name it may climb out through another link.
fn leaves(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count() - 1;
    let mut named = false;
    for part in target.components() {
        match part {
            Component::ParentDir if !named && depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return true,
            Component::Normal(_) => named = true,
            Component::CurDir => {}
        }
    }
    false
}

fn append(archive: &mut Archive, root: &Path, entry: &Entry) -> Result<(), Failure> {
    let full = root.join(&entry.path);
    let failed = |error: io::Error| Failure::io("pack", &full, &error);
    if entry.kind.is_dir() {
        let mut header = header(EntryType::Directory, 0, 0o755);
        return archive.append_data(&mut header, &entry.path, io::empty()).map_err(failed);
    }
    if entry.kind.is_symlink() {
        let target = fs::read_link(&full).map_err(failed)?;
        let mut header = header(EntryType::Symlink, 0, 0o777);
        return archive.append_link(&mut header, &entry.path, &target).map_err(failed);
    }
    let file = File::open(&full).map_err(failed)?;
    let mode = if entry.kind.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
    append_file(archive, &entry.path, &full, file, entry.kind.len(), mode)
}

fn append_file(
    archive: &mut Archive,
    name: &Path,
    full: &Path,
    file: File,
    bytes: u64,
    mode: u32,
) -> Result<(), Failure> {
    let mut content = Counted { inner: file.take(bytes), bytes: 0 };
    let mut header = header(EntryType::Regular, bytes, mode);
    archive.append_data(&mut header, name, &mut content).map_err(|error| Failure::io("pack", full, &error))?;
    if content.bytes == bytes {
        return Ok(());
    }
    Err(Failure::input(format!("{} changed while it was packed: push again when nothing writes there", full.display())))
}

fn header(kind: EntryType, bytes: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(bytes);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn begin() -> Result<Archive, Failure> {
    let file = BufWriter::new(temporary()?);
    // 255: unknown system. Time and name stay out.
    let gzip = flate2::GzBuilder::new().operating_system(255).write(Hashing::new(file), Compression::new(6));
    Ok(tar::Builder::new(gzip))
}

fn finish(archive: Archive) -> Result<Blob, Failure> {
    let failed = |error: io::Error| Failure::io("write into", &std::env::temp_dir(), &error);
    let mut hashing = archive.into_inner().and_then(GzEncoder::finish).map_err(failed)?;
    hashing.flush().map_err(failed)?;
    let Hashing { inner, hash, bytes } = hashing;
    let file = inner.into_inner().map_err(|error| failed(error.into_error()))?;
    let digest = appbase_core::Digest::from_bytes(sha2::Digest::finalize(hash).into());
    Ok(Blob { file, digest, bytes })
}

struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        for (path, target, out) in [
            ("link", "file", false),
            ("link", "./a/b", false),
            ("a/link", "../file", false),
            ("a/b/link", "../../file", false),
            ("link", "/etc/passwd", true),
            ("link", "../file", true),
            ("a/link", "../../file", true),
            ("a/link", "b/../../..", true),
            // Through another link, `..` can lead anywhere.
            ("link", "a/..", true),
        ] {
            assert_eq!(leaves(Path::new(path), Path::new(target)), out, "{path} -> {target}");
        }
    }
}
