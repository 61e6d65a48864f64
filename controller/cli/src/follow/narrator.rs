//! Tells a deployment's events: lines and one status line below them on a terminal, stamped lines elsewhere.

use std::time::Duration;

use controller_core::v1::api::{DeploymentView, EventView};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::error::Failure;
use crate::output::Output;
use crate::render::timeline::{Timeline, is_end, stamped};

pub(super) struct Narrator<'a> {
    output: &'a Output,
    timeline: Timeline,
    status: Option<ProgressBar>,
    waiting: Vec<String>,
    /// The controller does not answer at the moment.
    pub(super) lost: bool,
}

impl<'a> Narrator<'a> {
    pub(super) fn new(output: &'a Output) -> Self {
        let on_terminal = output.terminal.stderr && !output.json;
        let narrator = Self {
            output,
            timeline: Timeline::default(),
            status: on_terminal.then(status_line),
            waiting: Vec::new(),
            lost: false,
        };
        narrator.refresh();
        narrator
    }

    pub(super) fn event(&mut self, event: &EventView) -> Result<(), Failure> {
        if self.output.json {
            return self.output.record(&json!({ "event": event }));
        }
        let told = self.timeline.push(event);
        let Some(status) = &self.status else {
            if !is_end(event.kind) {
                self.output.talk(&stamped(event, self.output.talk_paint));
            }
            return Ok(());
        };
        if let Some(told) = told {
            status.println(told.line(self.output.talk_width(), self.output.talk_paint));
            self.waiting.clear();
        }
        self.refresh();
        Ok(())
    }

    pub(super) fn waiting(&mut self, view: &DeploymentView) {
        self.stream_lost(false);
        self.waiting.clone_from(&view.waiting);
        self.refresh();
    }

    /// Says once that the controller went away, and once that it is back.
    pub(super) fn stream_lost(&mut self, lost: bool) {
        if lost == self.lost {
            return;
        }
        self.lost = lost;
        let text = if lost { "the controller does not answer; trying again" } else { "the controller answers again" };
        match &self.status {
            Some(status) => status.println(format!("  .. {text}")),
            None => self.output.talk(text),
        }
    }

    pub(super) fn finish(&mut self) {
        let told = self.timeline.finish();
        if let (Some(status), Some(told)) = (&self.status, told) {
            status.println(told.line(self.output.talk_width(), self.output.talk_paint));
        }
    }

    fn refresh(&self) {
        if let Some(status) = &self.status {
            status.set_message(self.timeline.status(&self.waiting, self.output.talk_width()));
        }
    }
}

impl Drop for Narrator<'_> {
    fn drop(&mut self) {
        if let Some(status) = &self.status {
            status.finish_and_clear();
        }
    }
}

fn status_line() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("  {spinner} {msg}  {elapsed:>4}")
        .expect("the template is right")
        .tick_strings(&["⠋ ", "⠙ ", "⠹ ", "⠸ ", "⠼ ", "⠴ ", "⠦ ", "⠧ ", "⠇ ", "⠏ ", "  "]);
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
