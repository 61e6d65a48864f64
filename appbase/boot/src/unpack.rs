//! Unpack: a gzip-compressed tar from anyone, into one directory and nowhere else.
//!
//! Refuses with the entry's name: paths that leave the directory, links that point out of it, writing through links,
//! devices, FIFOs and sparse files, more entries or bytes than the limits. Strips setuid, setgid and sticky bits,
//! ignores owners. The caller gives a directory that nobody else uses and throws it away on any error.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

mod extended;
mod limited;

use extended::Extended;
use limited::{Limited, Spent};

/// More files than any app has; enough to stop an archive that would use up the disk's inodes.
pub const ENTRIES_MAX: u64 = 200_000;
/// Unpacked bytes of all layers together, headers and padding included: a small bomb cannot fill the disk.
pub const BYTES_MAX: u64 = 4 << 30;
/// The kernel's own limits for a path and a part of it; refused here so that the message names the entry.
const PATH_BYTES_MAX: usize = 4095;
const PART_BYTES_MAX: usize = 255;

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("entry \"{entry}\" {reason}")]
    Hostile { entry: String, reason: String },
    #[error("entry \"{entry}\" is one more than the {max} that are allowed")]
    TooMany { entry: String, max: u64 },
    #[error("entry \"{entry}\" makes it unpack to more than the {max} bytes that are allowed")]
    TooLarge { entry: String, max: u64 },
    #[error("archive is damaged after entry \"{entry}\"")]
    Damaged { entry: String, source: io::Error },
    /// This machine's fault, not the archive's: trying again may help.
    #[error("cannot write entry \"{entry}\"")]
    Write { entry: String, source: io::Error },
}

/// What may still be unpacked; shared by the layers of one artifact.
#[derive(Debug, Clone)]
pub struct Budget {
    entries_max: u64,
    entries: u64,
    bytes_max: u64,
    spent: Spent,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(ENTRIES_MAX, BYTES_MAX)
    }
}

impl Budget {
    pub fn new(entries_max: u64, bytes_max: u64) -> Self {
        Self { entries_max, entries: 0, bytes_max, spent: Spent::new(bytes_max) }
    }

    fn enter(&mut self, entry: &OsStr) -> Result<(), UnpackError> {
        self.entries += 1;
        if self.entries > self.entries_max {
            return Err(UnpackError::TooMany { entry: shown(entry), max: self.entries_max });
        }
        Ok(())
    }

    /// A failed read is either the limit or a broken archive.
    fn read_error(&self, entry: &OsStr, source: io::Error) -> UnpackError {
        if self.spent.exceeded() {
            return UnpackError::TooLarge { entry: shown(entry), max: self.bytes_max };
        }
        UnpackError::Damaged { entry: shown(entry), source }
    }
}

/// Unpacks one layer over what `into` already holds.
pub fn unpack(layer: impl Read, into: &Path, budget: &mut Budget) -> Result<(), UnpackError> {
    let plain = Limited::new(MultiGzDecoder::new(layer), budget.spent.clone());
    let mut archive = Archive::new(plain);
    let mut last = OsString::from("(the beginning)");
    let entries = archive.entries().map_err(|error| budget.read_error(&last, error))?.raw(true);
    let mut extended = Extended::default();
    for entry in entries {
        let mut entry = entry.map_err(|error| budget.read_error(&last, error))?;
        let kind = entry.header().entry_type();
        if extended::is(kind) {
            budget.enter(&last)?;
            extended.take(kind, &mut entry).map_err(|error| match error {
                extended::TakeError::Read(error) => budget.read_error(&last, error),
                extended::TakeError::Wrong(reason) => hostile(&last, reason),
            })?;
            continue;
        }
        let mut this = std::mem::take(&mut extended);
        let name = this.path.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let link = this.link.take().or_else(|| entry.link_name_bytes().map(|link| link.into_owned()));
        last = OsString::from_vec(name);
        budget.enter(&last)?;
        if this.size.is_some_and(|size| size != entry.size()) {
            return Err(hostile(&last, "states two sizes"));
        }
        place(&mut entry, &last, link.map(OsString::from_vec), into, budget)?;
    }
    Ok(())
}

/// Writes one entry where it belongs.
fn place(
    entry: &mut Entry<impl Read>,
    name: &OsStr,
    link: Option<OsString>,
    root: &Path,
    budget: &Budget,
) -> Result<(), UnpackError> {
    let parts = parts(name, name)?;
    let write = |source| UnpackError::Write { entry: shown(name), source };
    let kind = entry.header().entry_type();
    let old_directory = kind == EntryType::Regular && name.as_bytes().ends_with(b"/");
    let mode = entry.header().mode().unwrap_or(0o755) & 0o777;
    let Some((_, parents)) = parts.split_last() else {
        // `./`: the directory itself, which is the caller's.
        return if kind.is_dir() || old_directory { Ok(()) } else { Err(hostile(name, "has no name")) };
    };
    make_directories(root, parents, name)?;
    let path = join(root, &parts);
    match kind {
        EntryType::Directory => make_directory(&path, name, mode),
        EntryType::Regular | EntryType::Continuous if old_directory => make_directory(&path, name, mode),
        EntryType::Regular | EntryType::Continuous => {
            make_way(&path, name)?;
            let changed = entry.header().mtime().unwrap_or(0);
            copy(entry, &path, name, budget)?;
            finish(&path, mode, changed).map_err(write)
        }
        EntryType::Symlink => {
            let target = link.ok_or_else(|| hostile(name, "is a link to nothing"))?;
            check_symlink(&target, parents.len(), name)?;
            make_way(&path, name)?;
            std::os::unix::fs::symlink(target, &path).map_err(write)
        }
        EntryType::Link => {
            let target = link.ok_or_else(|| hostile(name, "is a link to nothing"))?;
            let target = linked_file(root, &target, name)?;
            if target == path {
                return Ok(());
            }
            make_way(&path, name)?;
            fs::hard_link(target, &path).map_err(write)
        }
        EntryType::Char | EntryType::Block => Err(hostile(name, "is a device, which an artifact may not hold")),
        EntryType::Fifo => Err(hostile(name, "is a FIFO, which an artifact may not hold")),
        EntryType::GNUSparse => Err(hostile(name, "is a sparse file, which is not supported: pack without --sparse")),
        other => Err(hostile(name, format!("is of unknown kind {:?}", char::from(other.as_byte())))),
    }
}

/// The parts of a path below the directory. `text` is checked, `entry` named in errors.
fn parts<'a>(text: &'a OsStr, entry: &OsStr) -> Result<Vec<&'a OsStr>, UnpackError> {
    let bytes = text.as_bytes();
    if bytes.len() > PATH_BYTES_MAX {
        return Err(hostile(entry, "has a path longer than 4095 bytes"));
    }
    if bytes.starts_with(b"/") {
        return Err(hostile(entry, "has an absolute path"));
    }
    if bytes.contains(&0) {
        return Err(hostile(entry, "has a zero byte in its path"));
    }
    let parts: Vec<&OsStr> =
        bytes.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b".")).map(OsStr::from_bytes).collect();
    if parts.iter().any(|part| *part == "..") {
        return Err(hostile(entry, "leaves the directory with \"..\""));
    }
    if parts.iter().any(|part| part.len() > PART_BYTES_MAX) {
        return Err(hostile(entry, "has a name longer than 255 bytes"));
    }
    Ok(parts)
}

/// A symlink may climb only at its beginning and never above the directory. As its own parents are real directories
/// (nothing is written through a link), that climb is exact; what follows it descends, at worst through other links
/// that were checked alike. So no chain of links leads out.
fn check_symlink(target: &OsStr, depth: usize, entry: &OsStr) -> Result<(), UnpackError> {
    let bytes = target.as_bytes();
    if bytes.is_empty() || bytes.len() > PATH_BYTES_MAX || bytes.contains(&0) {
        return Err(hostile(entry, "is a link to nothing that can be"));
    }
    let mut climbed = 0;
    let mut descended = false;
    for part in bytes.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if descended => return Err(hostile(entry, "is a link with \"..\" in its middle")),
            b".." => climbed += 1,
            _ => descended = true,
        }
    }
    if bytes.starts_with(b"/") || climbed > depth {
        return Err(hostile(entry, format!("is a link out of the directory, to \"{}\"", shown(target))));
    }
    Ok(())
}

/// The regular file a hard link names, which an earlier entry must have made.
fn linked_file(root: &Path, target: &OsStr, entry: &OsStr) -> Result<PathBuf, UnpackError> {
    let parts = parts(target, entry)?;
    let no_file = || hostile(entry, format!("is a hard link to \"{}\", which is no file before it", shown(target)));
    let (_, parents) = parts.split_last().ok_or_else(no_file)?;
    for end in 1..=parents.len() {
        match fs::symlink_metadata(join(root, &parts[..end])) {
            Ok(found) if found.is_dir() => {}
            _ => return Err(no_file()),
        }
    }
    let path = join(root, &parts);
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() => Ok(path),
        _ => Err(no_file()),
    }
}

fn make_directories(root: &Path, parents: &[&OsStr], entry: &OsStr) -> Result<(), UnpackError> {
    for end in 1..=parents.len() {
        let path = join(root, &parents[..end]);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                let through = shown(join(Path::new(""), &parents[..end]).as_os_str());
                return Err(hostile(entry, format!("lies below \"{through}\", which is not a directory")));
            }
            Err(_) => fs::create_dir(&path).map_err(|source| UnpackError::Write { entry: shown(entry), source })?,
        }
    }
    Ok(())
}

/// A directory stays writable for its owner, or nothing could be unpacked in it.
fn make_directory(path: &Path, entry: &OsStr, mode: u32) -> Result<(), UnpackError> {
    let write = |source| UnpackError::Write { entry: shown(entry), source };
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(hostile(entry, "is a directory where an earlier entry is none")),
        Err(_) => fs::create_dir(path).map_err(write)?,
    }
    fs::set_permissions(path, Permissions::from_mode(mode | 0o700)).map_err(write)
}

/// A later entry, of this or a later layer, replaces an earlier file or link, never a directory.
fn make_way(path: &Path, entry: &OsStr) -> Result<(), UnpackError> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(found) if found.is_dir() => Err(hostile(entry, "is a file where an earlier entry is a directory")),
        Ok(_) => fs::remove_file(path).map_err(|source| UnpackError::Write { entry: shown(entry), source }),
    }
}

fn copy(from: &mut impl Read, path: &Path, entry: &OsStr, budget: &Budget) -> Result<(), UnpackError> {
    let write = |source| UnpackError::Write { entry: shown(entry), source };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(write)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).map_err(|error| budget.read_error(entry, error))?;
        if read == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..read]).map_err(write)?;
    }
}

/// The time is kept because web servers make their ETag of it: it must be the same in every instance.
fn finish(path: &Path, mode: u32, changed: u64) -> io::Result<()> {
    let file = File::open(path)?;
    if let Some(time) = UNIX_EPOCH.checked_add(Duration::from_secs(changed)) {
        // A time the file system cannot hold is not worth failing for.
        let _ = file.set_modified(time);
    }
    file.set_permissions(Permissions::from_mode(mode | 0o400))
}

fn join(root: &Path, parts: &[&OsStr]) -> PathBuf {
    let mut path = root.to_path_buf();
    path.extend(parts);
    path
}

fn hostile(entry: &OsStr, reason: impl Into<String>) -> UnpackError {
    UnpackError::Hostile { entry: shown(entry), reason: reason.into() }
}

/// A name as a message may carry it: printable and short.
fn shown(name: &OsStr) -> String {
    let text: String = name.to_string_lossy().chars().take(200).collect();
    text.escape_debug().to_string()
}

#[cfg(test)]
mod tests;
