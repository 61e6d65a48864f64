//! Logs: the last lines of a rotating log, and what is added to it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::running;
use crate::{ComputeError, LogLine, LogRequest};

/// As boot names them, oldest first.
const FILES: [&str; 3] = ["log.2", "log.1", "log"];
const TAIL_MAX: usize = 10_000;
const LINE_BYTES_MAX: usize = 16 << 10;
const PIECE_BYTES: usize = 64 << 10;
const FOLLOW_PAUSE: Duration = Duration::from_millis(100);

type Lines = Vec<Result<LogLine, ComputeError>>;

pub(super) fn read(directory: PathBuf, request: LogRequest) -> BoxStream<'static, Result<LogLine, ComputeError>> {
    let reader = Reader { directory, request, at: None, partial: Vec::new() };
    stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        loop {
            let step = tokio::task::spawn_blocking(move || {
                let step = reader.step();
                (reader, step)
            });
            let (back, step) = step.await.ok()?;
            reader = back;
            match step {
                Ok(Step::Lines(lines)) => return Some((lines, Some(reader))),
                Ok(Step::Last(lines)) => return Some((lines, None)),
                Ok(Step::Nothing) => tokio::time::sleep(FOLLOW_PAUSE).await,
                Err(error) => {
                    let what = format!("cannot read the log in {}", reader.directory.display());
                    return Some((vec![Err(ComputeError::Failed { what, reason: error.to_string() })], None));
                }
            }
        }
    })
    .flat_map(stream::iter)
    .boxed()
}

enum Step {
    Lines(Lines),
    /// And then the log is over.
    Last(Lines),
    /// Not yet.
    Nothing,
}

struct Reader {
    directory: PathBuf,
    request: LogRequest,
    /// None before the first step, and as long as there is no log.
    at: Option<File>,
    partial: Vec<u8>,
}

impl Reader {
    /// One piece of the log, or word that there is none.
    fn step(&mut self) -> io::Result<Step> {
        // Looked at before reading: what ended before it was looked at has written everything.
        let over = !self.request.follow || self.is_over();
        if self.at.is_none() {
            self.at = begin(&self.directory, self.request.tail.min(TAIL_MAX))?;
        }
        let Some(file) = &mut self.at else {
            return Ok(if over { Step::Last(Lines::new()) } else { Step::Nothing });
        };
        let mut piece = vec![0; PIECE_BYTES];
        let read = file.read(&mut piece)?;
        if read > 0 {
            return Ok(Step::Lines(self.take(&piece[..read])));
        }
        if let Some(next) = next_file(&self.directory, file)? {
            // A last look: the line that filled the file may have come after the read above.
            let read = file.read(&mut piece)?;
            if read == 0 {
                self.at = Some(next);
            }
            return Ok(Step::Lines(self.take(&piece[..read])));
        }
        if !over {
            return Ok(Step::Nothing);
        }
        let rest = std::mem::take(&mut self.partial);
        Ok(Step::Last(if rest.is_empty() { Lines::new() } else { vec![Ok(line(&rest))] }))
    }

    /// Ended, or removed. One that was only made may still be started.
    fn is_over(&self) -> bool {
        match running::boot(&self.directory) {
            Ok(Some(boot)) => !boot.runs(),
            Ok(None) => !self.directory.exists(),
            Err(_) => false,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Lines {
        let mut lines = Lines::new();
        for byte_run in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ends) = match byte_run.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (byte_run, false),
            };
            self.partial.extend_from_slice(text);
            while self.partial.len() > LINE_BYTES_MAX {
                let rest = self.partial.split_off(LINE_BYTES_MAX);
                lines.push(Ok(line(&std::mem::replace(&mut self.partial, rest))));
            }
            if ends {
                lines.push(Ok(line(&std::mem::take(&mut self.partial))));
            }
        }
        lines
    }
}

fn line(bytes: &[u8]) -> LogLine {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    LogLine { text: String::from_utf8_lossy(bytes).into_owned() }
}

/// The file in which the last `tail` lines begin, at that place. None without a log.
fn begin(directory: &Path, tail: usize) -> io::Result<Option<File>> {
    let mut wanted = tail;
    let mut oldest = None;
    for name in FILES.iter().rev() {
        let mut file = match File::open(directory.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        let found = last_lines(&mut file, &mut wanted)?;
        file.seek(SeekFrom::Start(found))?;
        if wanted == 0 {
            return Ok(Some(file));
        }
        oldest = Some(file);
    }
    Ok(oldest)
}

/// Where the last `wanted` lines of a file begin; takes those it found off `wanted`.
fn last_lines(file: &mut File, wanted: &mut usize) -> io::Result<u64> {
    let end = file.metadata()?.len();
    let mut start = end;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = end;
    while at > 0 && *wanted > 0 {
        let from = at.saturating_sub(PIECE_BYTES as u64);
        let piece = &mut buffer[..usize::try_from(at - from).unwrap_or(PIECE_BYTES)];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(piece)?;
        for place in (0..piece.len()).rev() {
            // Here begins a line: before it is a line end or nothing.
            let begins = if place == 0 { from == 0 } else { piece[place - 1] == b'\n' };
            if begins && *wanted > 0 {
                start = from + place as u64;
                *wanted -= 1;
            }
        }
        // The first byte of a piece is judged with the last one of the piece before it.
        at = if from == 0 { 0 } else { from + 1 };
    }
    Ok(start)
}

/// The file after `current` once the log was rotated; the oldest when it fell so far behind that its file is gone.
fn next_file(directory: &Path, current: &File) -> io::Result<Option<File>> {
    let inode = current.metadata()?.ino();
    let mut files = Vec::new();
    for name in FILES {
        match File::open(directory.join(name)) {
            Ok(file) => files.push(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut place = None;
    for (index, file) in files.iter().enumerate() {
        if file.metadata()?.ino() == inode {
            place = Some(index);
        }
    }
    let next = place.map_or(0, |place| place + 1);
    Ok(if next < files.len() { Some(files.swap_remove(next)) } else { None })
}

#[cfg(test)]
mod tests;
