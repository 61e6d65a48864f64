//! How far an upload is: a bar on a terminal, nothing elsewhere (the one line at the end says it all).

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(what: &str, bytes: u64, output: &Output) -> Self {
        if !output.terminal.stderr || output.json {
            return Self::silent();
        }
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("pushing {msg} [{bar:30}] {percent:>3}%  {bytes_per_sec}")
            .expect("the template is right")
            .progress_chars("=> ");
        bar.set_style(style);
        bar.set_message(what.to_owned());
        Self(bar)
    }

    pub(super) fn silent() -> Self {
        Self(ProgressBar::hidden())
    }

    pub(super) fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
