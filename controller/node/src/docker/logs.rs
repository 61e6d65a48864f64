//! Logs: Docker's chunks as lines.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::DockerEngine;
use crate::{ComputeError, LogLine, LogRequest};

/// A line longer than this is cut, its rest goes on as the next line.
const LINE_BYTES_MAX: usize = 16 << 10;
pub(crate) const TAIL_MAX: usize = 10_000;

/// Puts one stream's chunks together to lines. Pure.
#[derive(Debug, Default)]
struct Lines {
    open: Vec<u8>,
}

impl Lines {
    fn take(&mut self, chunk: &[u8], out: &mut Vec<LogLine>) {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text.strip_suffix(b"\r").unwrap_or(text), true),
                None => (piece, false),
            };
            for part in text.chunks(LINE_BYTES_MAX) {
                if self.open.len() + part.len() > LINE_BYTES_MAX {
                    self.end(out);
                }
                self.open.extend_from_slice(part);
            }
            if ended {
                self.end(out);
            }
        }
    }

    fn end(&mut self, out: &mut Vec<LogLine>) {
        let line = std::mem::take(&mut self.open);
        out.push(LogLine { text: String::from_utf8_lossy(&line).into_owned() });
    }

    fn finish(&mut self, out: &mut Vec<LogLine>) {
        if !self.open.is_empty() {
            self.end(out);
        }
    }
}

impl DockerEngine {
    pub(crate) fn log_lines(
        &self,
        container: &str,
        request: LogRequest,
    ) -> BoxStream<'static, Result<LogLine, ComputeError>> {
        let options = LogsOptions {
            follow: request.follow,
            stdout: true,
            stderr: true,
            tail: request.tail.min(TAIL_MAX).to_string(),
            ..LogsOptions::default()
        };
        let (engine, name) = (self.clone(), container.to_owned());
        let chunks = self.docker.logs(container, Some(options)).map(Some).chain(stream::iter([None]));
        let state = (Lines::default(), Lines::default());
        let lines = chunks.scan(state, move |(out, err), chunk| {
            let mut ready = Vec::new();
            let mut failed = None;
            match chunk {
                Some(Ok(LogOutput::StdErr { message })) => err.take(&message, &mut ready),
                Some(Ok(output)) => out.take(&output.into_bytes(), &mut ready),
                Some(Err(error)) => failed = Some(engine.fault(error, || format!("read the log of {name}"))),
                None => {
                    out.finish(&mut ready);
                    err.finish(&mut ready);
                }
            }
            let items: Vec<Result<LogLine, ComputeError>> = ready.into_iter().map(Ok).chain(failed.map(Err)).collect();
            std::future::ready(Some(stream::iter(items)))
        });
        lines.flatten().boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&[u8]], expect: &[&str]) {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.take(chunk, &mut out);
        }
        lines.finish(&mut out);
        let found: Vec<&str> = out.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn chunks_become_lines() {
        check(&[], &[]);
        check(&[b"a\nb\n"], &["a", "b"]);
        check(&[b"a", b"b\r\n", b"\n", b"c"], &["ab", "", "c"]);
        check(&[b"\xff\n"], &["\u{fffd}"]);
    }

    #[test]
    fn a_long_line_is_cut() {
        let long = vec![b'x'; LINE_BYTES_MAX + 5];
        let whole = "x".repeat(LINE_BYTES_MAX);
        check(&[&long, b"y\nz\n"], &[&whole, "xxxxxy", "z"]);
        check(&[&long[..LINE_BYTES_MAX], b"\n"], &[&whole]);
    }
}
