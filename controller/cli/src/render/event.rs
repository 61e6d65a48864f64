//! Events and log lines of a stream.

use controller_core::v1::api::EventView;
use controller_core::v1::state::EventKind;

use super::{Paint, Tone, number};
use crate::safe;

/// `2026-11-20 14:02:11Z  hello-world  flipped  generation 1.118 …`
pub(crate) fn event(event: &EventView, paint: Paint) -> String {
    let place = match (&event.app, &event.environment) {
        (Some(app), Some(environment)) if !environment.is_default() => format!("{app} ({environment})"),
        (Some(app), _) => app.to_string(),
        (None, _) => "-".to_owned(),
    };
    let tone = match event.kind {
        EventKind::DeploymentAborted | EventKind::DeploymentDegraded | EventKind::StepFailed => Tone::Bad,
        EventKind::DeploymentCancelled | EventKind::CertificateEnds | EventKind::CertificateFailed => Tone::Warn,
        EventKind::DeploymentDone | EventKind::Flipped => Tone::Good,
        _ => Tone::Plain,
    };
    format!(
        "{}  {place:<16}  {}  {}",
        paint.dim(&number::time(event.unix_ms)),
        paint.tone(tone, &format!("{:<20}", kind_word(event.kind))),
        safe::line(&event.text)
    )
}

/// The word on the wire.
fn kind_word(kind: EventKind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// `<instance> | <line>` as a terminal may have it.
pub(crate) fn log_line(line: &str, paint: Paint) -> String {
    match line.split_once(" | ") {
        Some((instance, text)) => format!("{} {}", paint.dim(&format!("{} |", safe::line(instance))), safe::line(text)),
        None => safe::line(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_each() {
        let happened: EventView = serde_json::from_value(serde_json::json!({
            "number": 9, "unix_ms": 1_795_183_331_042_u64, "environment": "staging", "app": "shop",
            "kind": "deployment-aborted", "text": "not healthy\u{1b}[2J within 60s",
        }))
        .expect("an event");
        assert_eq!(
            event(&happened, Paint::OFF),
            "2026-11-20 14:02:11Z  shop (staging)    deployment-aborted    not healthy within 60s"
        );
        assert_eq!(log_line("shop-web-1 | a\u{1b}[31mb | c", Paint::OFF), "shop-web-1 | ab | c");
    }
}
