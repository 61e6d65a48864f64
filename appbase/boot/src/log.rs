//! Log: the app's stdout and stderr in one rotating file, and boot's own words between them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};

/// `log`, `log.1` and `log.2`, each at most this large.
pub(crate) const FILE_BYTES_MAX: u64 = 10 << 20;
const FILES: usize = 3;

/// Where everything is written to. One thread copies it to the file, so that a full disk loses lines and never stops
/// an app.
#[derive(Debug)]
pub(crate) struct Log {
    into: File,
    ended: mpsc::Receiver<()>,
}

impl Log {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = Rotating::open(path, FILE_BYTES_MAX)?;
        let (from, into) = pipe_with(PipeFlags::CLOEXEC)?;
        let (end, ended) = mpsc::sync_channel(1);
        let copy = move || {
            let mut from = File::from(from);
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                file.write(&buffer[..read]);
            }
            let _ = end.send(());
        };
        thread::Builder::new().name("log".to_owned()).spawn(copy)?;
        Ok(Self { into: into.into(), ended })
    }

    /// For the app's stdout or stderr.
    pub(crate) fn stdio(&self) -> io::Result<Stdio> {
        Ok(self.into.try_clone()?.into())
    }

    pub(crate) fn note(&mut self, text: &str) {
        let _ = writeln!(self.into, "boot: {text}");
    }

    /// Waits until all is in the file; not for ever, because a process that escaped may hold the pipe.
    pub(crate) fn finish(self) {
        drop(self.into);
        let _ = self.ended.recv_timeout(Duration::from_millis(500));
    }
}

#[derive(Debug)]
struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl Rotating {
    fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_path_buf(), file, bytes, bytes_max })
    }

    /// Rotates between two lines where it can. What cannot be written is lost.
    fn write(&mut self, bytes: &[u8]) {
        let room = usize::try_from(self.bytes_max.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        if bytes.len() <= room {
            return self.write_here(bytes);
        }
        let split = bytes[..room].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let (old, new) = bytes.split_at(split);
        self.write_here(old);
        if self.rotate().is_ok() {
            self.bytes = 0;
        }
        self.write_here(new);
    }

    fn write_here(&mut self, bytes: &[u8]) {
        if self.file.write_all(bytes).is_ok() {
            self.bytes += bytes.len() as u64;
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..FILES).rev() {
            let from = if number == 1 { self.path.clone() } else { numbered(&self.path, number - 1) };
            match fs::rename(from, numbered(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = append(&self.path)?;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_files_hold_the_last_lines() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut log = Rotating::open(&path, 10).expect("opened");
        for number in 0..7 {
            log.write(format!("line{number}\n").as_bytes());
        }
        let text = |path: &Path| fs::read_to_string(path).expect("readable");
        assert_eq!(text(&path), "line6\n");
        assert_eq!(
            (text(&numbered(&path, 1)), text(&numbered(&path, 2))),
            ("line5\n".to_owned(), "line4\n".to_owned())
        );
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 3);

        // A piece that crosses the limit is split after its last line that fits; a restart goes on where it was.
        let mut log = Rotating::open(&path, 10).expect("opened");
        log.write(b"a\nb\nccc\n");
        assert_eq!((text(&numbered(&path, 1)), text(&path)), ("line6\na\nb\n".to_owned(), "ccc\n".to_owned()));
    }
}
