//! Access log: a line for each request that is over, or for a share of them, as JSON or as Apache writes it.
//!
//! A request appends its line to one buffer and goes on; a thread of its own writes the buffer out. So a slow disk holds up
//! nobody: lines that find the buffer full are lost and counted, as those are that could not be written. Queries are left out:
//! what stands in them is often a secret.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use lb_core::trace::Share;
use tokio::sync::oneshot;

use crate::account::Line;
use crate::config::{AccessForm, AccessSettings};

/// What waits to be written: some 10,000 lines.
const BUFFER_BYTES_MAX: usize = 4 << 20;
/// Lines are gathered for so long, and then go out together.
const GATHER: Duration = Duration::from_millis(50);

pub(crate) struct AccessLog {
    form: AccessForm,
    pub(crate) share: Share,
    buffer: Mutex<Buffer>,
    wake: Condvar,
    pub(crate) lost: AtomicU64,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    is_closed: bool,
}

/// Where lines go.
enum Sink {
    Stdout,
    File { path: PathBuf, file: File },
}

impl AccessLog {
    /// Opens the file and starts the thread that writes; it says on the channel when all is written, after
    /// [`AccessLog::close`]. None: no log is wanted.
    pub(crate) fn start(settings: &AccessSettings) -> io::Result<Option<(Arc<Self>, oneshot::Receiver<()>)>> {
        if settings.form == AccessForm::Off {
            return Ok(None);
        }
        let mut sink = match &settings.file {
            Some(path) => Sink::File { path: path.clone(), file: open(path)? },
            None => Sink::Stdout,
        };
        let log = Arc::new(Self {
            form: settings.form,
            share: settings.share,
            buffer: Mutex::default(),
            wake: Condvar::new(),
            lost: AtomicU64::new(0),
        });
        let (written, end) = oneshot::channel();
        let writing = Arc::clone(&log);
        std::thread::Builder::new().name("lb-access".to_owned()).spawn(move || {
            writing.write_all(&mut sink);
            let _ = written.send(());
        })?;
        Ok(Some((log, end)))
    }

    /// Appends a line, unless there is no room.
    pub(crate) fn append(&self, line: &Line<'_>) {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = buffer.bytes.len();
        match self.form {
            AccessForm::Off => return,
            AccessForm::Json => line.json(&mut buffer.bytes),
            AccessForm::Combined => line.combined(&mut buffer.bytes),
        }
        if buffer.bytes.len() > BUFFER_BYTES_MAX {
            buffer.bytes.truncate(before);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let is_half_full = before < BUFFER_BYTES_MAX / 2 && buffer.bytes.len() >= BUFFER_BYTES_MAX / 2;
        drop(buffer);
        if before == 0 || is_half_full {
            self.wake.notify_one();
        }
    }

    /// What is in the buffer is the last.
    pub(crate) fn close(&self) {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.wake.notify_one();
    }

    fn write_all(&self, sink: &mut Sink) {
        let mut failing = false;
        let mut lines = Vec::new();
        while self.take(&mut lines) {
            let written = sink.write(&lines);
            if let Err(error) = &written {
                let count = lines.iter().filter(|byte| **byte == b'\n').count();
                self.lost.fetch_add(count as u64, Ordering::Relaxed);
                if !failing {
                    tracing::warn!(error = %error, "the access log cannot be written: its lines are lost");
                }
            }
            failing = written.is_err();
            lines.clear();
        }
    }

    /// Waits for lines, and takes all there are. False: there will be none.
    fn take(&self, lines: &mut Vec<u8>) -> bool {
        let buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |buffer: &mut Buffer| buffer.bytes.is_empty() && !buffer.is_closed;
        let buffer = self.wake.wait_while(buffer, waits).unwrap_or_else(PoisonError::into_inner);
        let fills = |buffer: &mut Buffer| buffer.bytes.len() < BUFFER_BYTES_MAX / 2 && !buffer.is_closed;
        let gathered = self.wake.wait_timeout_while(buffer, GATHER, fills);
        let (mut buffer, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut buffer.bytes, lines);
        !lines.is_empty()
    }
}

impl Sink {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().write_all(lines),
            Self::File { path, file } => {
                // Whoever rotates logs has moved it away.
                if !is_at(file, path)? {
                    *file = open(path)?;
                }
                file.write_all(lines)
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    Ok(std::fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())))
}
