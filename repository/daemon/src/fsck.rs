//! fsck: reads every stored byte again and says what is not as it was pushed. Changes nothing; may run beside a
//! serving repository.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::path::Path;

use appbase_core::Digest;
use sha2::Digest as _;

use crate::store::{Layout, StoreError, check_catalogue, hash_file, open_to_read};

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub blobs: u64,
    pub bytes: u64,
    /// One line each: what, where, what to do.
    pub problems: Vec<String>,
    /// Files that no commit ever listed: left by a crash, harmless.
    pub strays: Vec<String>,
}

impl Report {
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        for stray in &self.strays {
            writeln!(f, "stray: {stray} belongs to nothing (harmless)")?;
        }
        writeln!(f, "{} blobs, {} bytes read, {} problems", self.blobs, self.bytes, self.problems.len())
    }
}

pub fn check(data: &Path) -> Result<Report, StoreError> {
    let layout = Layout::at(data);
    let connection = open_to_read(&layout.catalogue())?;
    // The files are listed before the catalogue: one that comes meanwhile is then listed, never a stray.
    let files = files_in(&layout)?;
    let listed = check_catalogue(&connection)?;
    let mut report = Report { problems: listed.problems, ..Report::default() };
    let mut known = BTreeSet::new();
    for (text, size) in listed.blobs {
        let Ok(digest) = Digest::parse(&text) else {
            report.problems.push(format!("catalogue: \"{}\" is not a digest", text.escape_debug()));
            continue;
        };
        known.insert(digest.hex());
        report.blobs += 1;
        match check_blob(&layout, digest, size) {
            Ok(()) => report.bytes += size,
            Err(reason) => report.problems.push(format!("{digest} {reason}: push it again")),
        }
    }
    report.strays = files.into_iter().filter(|name| !known.contains(name)).collect();
    Ok(report)
}

fn check_blob(layout: &Layout, digest: Digest, size: u64) -> Result<(), String> {
    let path = layout.blob(digest);
    let mut file = File::open(&path).map_err(|error| format!("cannot be read ({error})"))?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length != size {
        return Err(format!("has {length} bytes on disk instead of {size}"));
    }
    let hash = hash_file(&mut file, &path).map_err(|error| kit::problem::chain(&error))?;
    let actual = Digest::from_bytes(hash.finalize().into());
    if actual == digest { Ok(()) } else { Err(format!("has other bytes on disk (digest {actual})")) }
}

fn files_in(layout: &Layout) -> Result<BTreeSet<String>, StoreError> {
    let directory = layout.blobs();
    let io = |source| StoreError::io("read", &directory, source);
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(&directory).map_err(io)? {
        names.insert(entry.map_err(io)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}
