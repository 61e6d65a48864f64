//! Where words go: data to stdout, talk to stderr. A reader that went away ends the command quietly.

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use serde::Serialize;

use crate::args::Color;
use crate::error::{Exit, Failure};
use crate::render::{Paint, failure};

/// Width that nothing needs to fit: not a terminal.
const WIDTH_FREE: usize = usize::MAX;

pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) terminal: Terminal,
    /// Colours for stdout.
    pub(crate) paint: Paint,
    /// Colours for stderr.
    pub(crate) talk_paint: Paint,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl Output {
    pub(crate) fn new(color: Color, json: bool) -> Self {
        let chosen = |auto: ColorChoice| match color {
            Color::Auto => auto != ColorChoice::Never,
            Color::Always => true,
            Color::Never => false,
        };
        Self {
            json,
            terminal: Terminal { stdout: io::stdout().is_terminal(), stderr: io::stderr().is_terminal() },
            paint: Paint { on: chosen(AutoStream::choice(&io::stdout())) },
            talk_paint: Paint { on: chosen(AutoStream::choice(&io::stderr())) },
        }
    }

    /// Columns of the terminal that stdout is; unbounded when it is none.
    pub(crate) fn width(&self) -> usize {
        if self.terminal.stdout { columns(io::stdout()) } else { WIDTH_FREE }
    }

    /// Columns of the terminal that stderr is.
    pub(crate) fn talk_width(&self) -> usize {
        if self.terminal.stderr { columns(io::stderr()) } else { WIDTH_FREE }
    }

    /// Text, as it is, to stdout.
    pub(crate) fn data(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::quiet(Exit::Done),
            _ => Failure::new(Exit::Unexpected, format!("cannot write to stdout: {error}")),
        })
    }

    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.data(&format!("{text}\n"))
    }

    /// One document, laid out for reading.
    pub(crate) fn document(&self, document: &impl Serialize) -> Result<(), Failure> {
        self.line(&json(serde_json::to_string_pretty(document))?)
    }

    /// One document of a stream: one line.
    pub(crate) fn record(&self, document: &impl Serialize) -> Result<(), Failure> {
        self.line(&json(serde_json::to_string(document))?)
    }

    /// The document with `--json`, else the text.
    pub(crate) fn show(&self, document: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { self.document(document) } else { self.data(&text()) }
    }

    /// A line for people. Nobody listening is no failure.
    pub(crate) fn talk(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// A word and what to type: `undo  platformctl rollback hello-world`.
    pub(crate) fn hint(&self, word: &str, text: &str) {
        if !self.json {
            self.talk(&format!("{} {text}", self.talk_paint.dim(&format!("{word}:"))));
        }
    }

    pub(crate) fn failure(&self, failed: &Failure) {
        if failed.message.is_empty() {
            return;
        }
        if self.json {
            let document = serde_json::json!({"error": {
                "exit": failed.exit as u8, "code": failed.code, "message": failed.message,
                "hints": failed.hints.iter().map(|(word, text)| format!("{word}: {text}")).collect::<Vec<_>>(),
            }});
            self.talk(&document.to_string());
        } else {
            self.talk(failure::failure(failed, self.talk_paint).trim_end());
        }
    }
}

fn json(text: serde_json::Result<String>) -> Result<String, Failure> {
    text.map_err(|error| Failure::new(Exit::Unexpected, format!("cannot write this as JSON: {error}")))
}

fn columns(terminal: impl rustix::fd::AsFd) -> usize {
    match rustix::termios::tcgetwinsize(terminal) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => 80,
    }
}
