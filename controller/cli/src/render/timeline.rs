//! A deployment as it goes: events become phases, phases become lines.

use controller_core::v1::api::EventView;
use controller_core::v1::state::EventKind;

use super::{Paint, Tone, cut, number};

/// No wider than this, however wide the terminal is: durations stay near their text.
const WIDTH_MAX: usize = 78;

/// What an event is about, in the order in which a deployment goes through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Begin,
    Start,
    Health,
    Switch,
    Drain,
    Stop,
}

impl Phase {
    fn word(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Start => "start",
            Self::Health => "health",
            Self::Switch => "switch",
            Self::Drain => "drain",
            Self::Stop => "stop",
        }
    }
}

/// Collects events; a phase is told when the next one begins.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    current: Option<(Phase, EventView)>,
    /// When the phase before the current one ended.
    since_unix_ms: Option<u64>,
}

/// A phase that is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    phase: Phase,
    text: String,
    took_ms: u64,
}

impl Timeline {
    /// Takes the next event; answers the phase that ended with it.
    pub(crate) fn push(&mut self, event: &EventView) -> Option<Told> {
        self.since_unix_ms.get_or_insert(event.unix_ms);
        let phase = phase_of(event.kind, self.current.as_ref().is_some_and(|(phase, _)| *phase >= Phase::Switch))?;
        match &mut self.current {
            // Instances go through the phases side by side: a straggler does not turn the deployment back.
            Some((current, _)) if phase < *current => None,
            Some((current, last)) if phase == *current => {
                *last = event.clone();
                None
            }
            _ => {
                let told = self.finish();
                self.current = Some((phase, event.clone()));
                told
            }
        }
    }

    /// The phase that was under way, at the end.
    pub(crate) fn finish(&mut self) -> Option<Told> {
        let (phase, last) = self.current.take()?;
        let since = self.since_unix_ms.replace(last.unix_ms).unwrap_or(last.unix_ms);
        // The beginning says nothing that the first line did not.
        (phase != Phase::Begin).then(|| Told {
            phase,
            text: crate::safe::line(&last.text),
            took_ms: last.unix_ms.saturating_sub(since),
        })
    }

    /// The status line: the phase under way, and what it waits for when that is known.
    pub(crate) fn status(&self, waiting: &[String], width: usize) -> String {
        let (word, text) = match &self.current {
            Some((phase, event)) => (phase.word(), event.text.as_str()),
            None => ("begin", "waiting for the first event"),
        };
        let text = waiting.first().map_or(text, String::as_str);
        let more = if waiting.len() > 1 { format!(" (and {} more)", waiting.len() - 1) } else { String::new() };
        cut(&format!("{word:<7} {}{more}", crate::safe::line(text)), width.min(WIDTH_MAX).saturating_sub(14))
    }
}

impl Told {
    /// `  ok health  3/3 up            4.0s`
    pub(crate) fn line(&self, width: usize, paint: Paint) -> String {
        let width = width.min(WIDTH_MAX);
        let took = number::duration(self.took_ms);
        let space = width.saturating_sub(14 + took.len());
        let text = cut(&self.text, space.saturating_sub(1));
        let gap = " ".repeat(space.saturating_sub(text.chars().count()).max(1));
        format!("  {} {:<7} {text}{gap}{}", paint.tone(Tone::Good, "ok"), self.phase.word(), paint.dim(&took))
    }
}

/// One event as a stamped line, where nothing can be rewritten: `14:02:11.042Z  health  3/3 up`.
pub(crate) fn stamped(event: &EventView, paint: Paint) -> String {
    let word = phase_of(event.kind, false).map_or_else(|| last_word(event.kind), Phase::word);
    format!("{}  {word:<7} {}", paint.dim(&number::moment(event.unix_ms)), crate::safe::line(&event.text))
}

/// Whether this event says how the deployment ended.
pub(crate) fn is_end(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::DeploymentDone
            | EventKind::DeploymentStaged
            | EventKind::DeploymentAborted
            | EventKind::DeploymentCancelled
            | EventKind::DeploymentDegraded
    )
}

fn phase_of(kind: EventKind, flipped: bool) -> Option<Phase> {
    match kind {
        EventKind::DeploymentStarted => Some(Phase::Begin),
        EventKind::InstanceCreated | EventKind::InstanceStarted => Some(Phase::Start),
        EventKind::InstancesUp => Some(Phase::Health),
        EventKind::Flipped => Some(Phase::Switch),
        EventKind::Draining | EventKind::Drained => Some(Phase::Drain),
        // Before the flip these are what stood in the way in the idle slot, not a phase of the new release.
        EventKind::InstanceStopped | EventKind::InstanceRemoved => flipped.then_some(Phase::Stop),
        EventKind::Changed
        | EventKind::WarmEnded
        | EventKind::StepFailed
        | EventKind::CertificateIssued
        | EventKind::CertificateEnds
        | EventKind::CertificateFailed
        | EventKind::DeploymentDone
        | EventKind::DeploymentStaged
        | EventKind::DeploymentAborted
        | EventKind::DeploymentCancelled
        | EventKind::DeploymentDegraded => None,
    }
}

fn last_word(kind: EventKind) -> &'static str {
    match kind {
        EventKind::DeploymentDone => "done",
        EventKind::DeploymentStaged => "staged",
        EventKind::DeploymentAborted => "aborted",
        EventKind::DeploymentCancelled => "cancelled",
        EventKind::DeploymentDegraded => "degraded",
        EventKind::StepFailed => "retry",
        EventKind::InstanceStopped | EventKind::InstanceRemoved => "stop",
        EventKind::WarmEnded => "warm",
        _ => "change",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(unix_ms: u64, kind: EventKind, text: &str) -> EventView {
        EventView { number: unix_ms, unix_ms, environment: None, app: None, deployment: None, kind, text: text.into() }
    }

    #[test]
    fn phases_are_told_once_with_their_time() {
        let events = [
            event(1_000, EventKind::DeploymentStarted, "deploying hello-world 2"),
            event(1_100, EventKind::InstanceRemoved, "retired release 5"),
            event(1_600, EventKind::InstanceCreated, "web-1 created"),
            event(2_200, EventKind::InstanceStarted, "2/2 running"),
            event(4_000, EventKind::InstancesUp, "1/2 up"),
            event(4_100, EventKind::InstanceStarted, "2/2 running"),
            event(6_200, EventKind::InstancesUp, "2/2 up"),
            event(6_250, EventKind::Flipped, "generation 1.118\u{1b}[2J in force at lb-1 and dns-1"),
            event(6_260, EventKind::Draining, "41 requests in flight"),
            event(8_500, EventKind::Drained, "release 6: 41 requests ended, 0 cut"),
            event(8_510, EventKind::DeploymentDone, "done"),
        ];
        let mut timeline = Timeline::default();
        let mut text = String::new();
        for event in &events {
            let told = timeline.push(event).into_iter().chain(is_end(event.kind).then(|| timeline.finish()).flatten());
            for told in told {
                text.push_str(&told.line(usize::MAX, Paint::OFF));
                text.push('\n');
            }
        }
        assert_eq!(
            text,
            "  ok start   2/2 running                                                 1.2s
  ok health  2/2 up                                                      4.0s
  ok switch  generation 1.118 in force at lb-1 and dns-1                0.05s
  ok drain   release 6: 41 requests ended, 0 cut                         2.2s
"
        );
    }

    #[test]
    fn the_status_line_says_what_is_waited_for() {
        let mut timeline = Timeline::default();
        timeline.push(&event(1_000, EventKind::InstanceStarted, "2/2 running"));
        assert_eq!(timeline.status(&[], 80), "start   2/2 running");
        let waiting = ["web-1: 503 from /health".to_owned(), "web-2: 503".to_owned()];
        assert_eq!(timeline.status(&waiting, 80), "start   web-1: 503 from /health (and 1 more)");
        assert_eq!(timeline.status(&waiting, 40), "start   web-1: 503 from /…");
    }

    #[test]
    fn a_stamped_line_stands_alone() {
        let up = event(1_795_183_331_042, EventKind::InstancesUp, "2/2 up");
        assert_eq!(stamped(&up, Paint::OFF), "14:02:11.042Z  health  2/2 up");
    }
}
