//! A deployment: its first line, how it ended, why it failed, and the history of many.

use appbase_core::v1::{InstanceExit, ProbeAnswer};
use controller_core::v1::api::{DeploymentView, EndView, FailureView};
use controller_core::v1::state::{DeploymentKind, EndState, Receipt};

use super::table::{Cell, Column, cell, table, toned};
use super::{Paint, Tone, number, plural};
use crate::safe;

/// Log lines of one instance that a failure shows; the record has more.
const LOG_LINES_MAX: usize = 10;

/// Instances that a failure shows: they mostly fail alike.
const FAILURES_MAX: usize = 3;

/// `hello-world 1 -> 2  release 7  d-7f3k`
pub(crate) fn head(view: &DeploymentView, paint: Paint) -> String {
    let versions = match &view.from {
        Some((_, from)) if *from != view.version => format!("{from} -> {}", view.version),
        _ => view.version.to_string(),
    };
    let mut text = paint.bold(&format!("{} {versions}", view.app));
    let mut facts = vec![format!("release {}", view.release), view.id.to_string()];
    match view.kind {
        DeploymentKind::Deploy => {}
        kind => facts.insert(0, kind_word(kind).to_owned()),
    }
    if !view.environment.is_default() {
        facts.push(view.environment.to_string());
    }
    for fact in facts {
        text.push_str("  ");
        text.push_str(&paint.dim(&fact));
    }
    text
}

/// `live after 4.2s; 18204 requests during the change, 0 failed`
pub(crate) fn good_end(end: &EndView, paint: Paint) -> String {
    let begin = match (end.state, end.live_after_ms) {
        (EndState::Staged, _) => paint.tone(Tone::Good, "staged; traffic stays until you activate it"),
        (_, Some(ms)) => paint.tone(Tone::Good, &format!("live after {}", number::duration(ms))),
        (state, None) => paint.tone(Tone::Good, &state.to_string()),
    };
    let receipt = end.receipt.as_ref().map(|receipt| format!("\n{}", self::receipt(receipt, end.cut, paint)));
    format!("{begin}; {}{}", requests(end, paint), receipt.unwrap_or_default())
}

/// `table 57 in force at 2 load balancers; 14 probes of the new instances; 37 in flight ended by themselves, the last after 0.4s`
fn receipt(receipt: &Receipt, cut: u64, paint: Paint) -> String {
    let table = receipt.generation.as_ref().map_or_else(String::new, |generation| format!("table {generation} "));
    let mut text = format!("{table}in force at {}", plural(receipt.members, "load balancer"));
    text.push_str(&format!("; {} of the new instances", plural(receipt.probes, "probe")));
    match receipt.inside.saturating_sub(cut) {
        0 if cut > 0 => {}
        0 => text.push_str("; nothing was in flight"),
        ended => {
            let after = number::duration(receipt.longest_ms);
            text.push_str(&format!("; {ended} in flight then ended by themselves, the last after {after}"));
        }
    }
    paint.dim(&text)
}

fn requests(end: &EndView, paint: Paint) -> String {
    let failed = format!("{} failed", end.failed);
    let failed = if end.failed == 0 { failed } else { paint.tone(Tone::Bad, &failed) };
    let cut = match end.cut {
        0 => String::new(),
        cut => format!(", {}", paint.tone(Tone::Warn, &format!("{cut} cut at the drain deadline"))),
    };
    format!("{} during the change, {failed}{cut}", plural(end.requests, "request"))
}

/// Why a deployment did not end well: what happened, what is known of the instances, what to try.
pub(crate) fn bad_end(view: &DeploymentView, end: &EndView, paint: Paint) -> String {
    let mut text = format!("{} {}\n", paint.tone(Tone::Bad, "error:"), verdict(view, end));
    for (index, failed) in end.failures.iter().take(FAILURES_MAX).enumerate() {
        // Instances that fail alike are told once.
        if index > 0 && alike(failed, &end.failures[index - 1]) {
            continue;
        }
        text.push_str(&instance(failed, paint));
    }
    let shown = end.failures.len().min(FAILURES_MAX);
    if end.failures.len() > shown {
        text.push_str(&row("more", &plural((end.failures.len() - shown) as u64, "other instance"), paint));
    }
    text.push_str(&row("traffic", &requests(end, paint), paint));
    for advice in advice(view, end) {
        text.push_str(&row("try", &advice, paint));
    }
    text
}

fn verdict(view: &DeploymentView, end: &EndView) -> String {
    let reason = end.reason.as_deref().map(|reason| format!(": {}", safe::line(reason))).unwrap_or_default();
    let what = format!(
        "{} {} {}{reason}",
        view.app,
        view.version,
        match end.state {
            EndState::Aborted => "did not go live",
            EndState::Cancelled => "was cancelled",
            EndState::Degraded => "is degraded, a person is needed",
            EndState::Done | EndState::Staged => "ended",
        }
    );
    let serving = match (&view.from, end.state) {
        (_, EndState::Degraded) => return what,
        (Some((_, from)), _) if *from == view.version => "the release before it serves all traffic".to_owned(),
        (Some((_, from)), _) => format!("{from} still serves all traffic"),
        (None, _) => "nothing was serving before it".to_owned(),
    };
    format!("{what}; {serving}")
}

fn instance(failed: &FailureView, paint: Paint) -> String {
    let mut text = row("instance", failed.instance.as_str(), paint);
    if let Some(probe) = &failed.probe {
        text.push_str(&row("probe", &probe_line(probe), paint));
    }
    let mut state: Vec<String> = Vec::new();
    state.extend(failed.exit.as_ref().map(exit_line));
    state.extend((failed.restarts > 0).then(|| plural(failed.restarts.into(), "restart")));
    state.extend(failed.problem.as_deref().map(safe::line));
    if !state.is_empty() {
        text.push_str(&row("state", &state.join(", "), paint));
    }
    let from = failed.log.len().saturating_sub(LOG_LINES_MAX);
    for (index, line) in failed.log[from..].iter().enumerate() {
        text.push_str(&row(if index == 0 { "log" } else { "" }, &safe::line(line), paint));
    }
    text
}

fn alike(one: &FailureView, other: &FailureView) -> bool {
    let essence = |failed: &FailureView| {
        let probe = failed.probe.as_ref().map(|probe| (probe.status, probe.body.clone(), probe.error.clone()));
        let exit = failed.exit.as_ref().map(|exit| (exit.code, exit.signal));
        (probe, exit, failed.problem.clone())
    };
    essence(one) == essence(other)
}

/// `503 after 12 tries, body "db: connection refused"`
fn probe_line(probe: &ProbeAnswer) -> String {
    let answer = match (probe.status, &probe.error) {
        (Some(status), _) => status.to_string(),
        (None, Some(error)) => safe::line(error),
        (None, None) => "no answer yet".to_owned(),
    };
    let tries = match probe.tries {
        1 => "1 try".to_owned(),
        tries => format!("{tries} tries"),
    };
    let body = safe::line(probe.body.trim());
    if body.is_empty() { format!("{answer} after {tries}") } else { format!("{answer} after {tries}, body \"{body}\"") }
}

/// `exited 1 after 0.8s`
fn exit_line(exit: &InstanceExit) -> String {
    let how = match (exit.code, exit.signal) {
        (_, Some(signal)) => format!("killed by {}", signal_word(signal)),
        (Some(code), None) => format!("exited {code}"),
        (None, None) => "ended".to_owned(),
    };
    format!("{how} after {}", number::duration(exit.ran_ms))
}

fn signal_word(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

/// What the facts suggest, then the general way on.
fn advice(view: &DeploymentView, end: &EndView) -> Vec<String> {
    let mut advice = Vec::new();
    let first = end.failures.first();
    let exit = first.and_then(|failed| failed.exit.as_ref());
    let probe = first.and_then(|failed| failed.probe.as_ref());
    match (exit.and_then(|exit| exit.code), exit.and_then(|exit| exit.signal)) {
        (Some(126 | 127), _) if first.is_some_and(lacks_interpreter) => advice.push(
            "a script needs the program of its first line (#!) in the artifact or in `base = IMAGE`; app-base has /bin/sh"
                .into(),
        ),
        (Some(126 | 127), _) => {
            advice.push("name a command in platform.toml that is in the artifact and executable".into())
        }
        (_, Some(9)) => advice.push("raise the memory limit in platform.toml if the kernel ended it".into()),
        _ => {}
    }
    match probe {
        Some(ProbeAnswer { status: Some(404), .. }) => advice.push("name the probe's path in platform.toml".into()),
        Some(ProbeAnswer { status: None, error: Some(error), .. }) if exit.is_none() && error.contains("refused") => {
            advice.push("listen on 0.0.0.0 and the port that PORT names".into());
        }
        _ => {}
    }
    match end.state {
        EndState::Cancelled => advice.push(format!("platformctl deploy {} {}", view.app, view.version)),
        EndState::Degraded => advice.push(format!("platformctl status {}", view.app)),
        _ => advice.push(format!(
            "platformctl config set {} KEY=VALUE --later   and deploy it again, or push a new version and deploy that",
            view.app
        )),
    }
    advice
}

fn lacks_interpreter(failed: &FailureView) -> bool {
    failed.problem.iter().chain(&failed.log).any(|line| line.contains("interpreter"))
}

fn row(word: &str, text: &str, paint: Paint) -> String {
    format!("  {} {text}\n", paint.dim(&format!("{word:<8}")))
}

pub(crate) fn kind_word(kind: DeploymentKind) -> &'static str {
    match kind {
        DeploymentKind::Deploy => "deploy",
        DeploymentKind::Rollback => "rollback",
        DeploymentKind::Activate => "activate",
        DeploymentKind::Config => "config",
    }
}

/// Newest first, as it comes.
pub(crate) fn history(deployments: &[DeploymentView], width: usize, paint: Paint) -> String {
    let columns = [
        Column::Id("DEPLOYMENT"),
        Column::Id("STARTED"),
        Column::Id("KIND"),
        Column::Id("VERSION"),
        Column::Number("RELEASE"),
        Column::Id("END"),
        Column::Number("LIVE AFTER"),
        Column::Number("REQUESTS"),
        Column::Number("FAILED"),
        Column::Text("REASON"),
    ];
    table(&columns, &deployments.iter().map(history_row).collect::<Vec<_>>(), width, paint)
}

fn history_row(view: &DeploymentView) -> Vec<Cell> {
    let end = view.end.as_ref();
    let tone = match end.map(|end| end.state) {
        Some(EndState::Done | EndState::Staged) => Tone::Good,
        Some(EndState::Aborted | EndState::Degraded) => Tone::Bad,
        Some(EndState::Cancelled) => Tone::Warn,
        None => Tone::Bold,
    };
    let number = |value: Option<u64>| cell(value.map(|value| value.to_string()).unwrap_or_default());
    vec![
        cell(&view.id),
        cell(number::time(view.started_unix_ms)),
        cell(kind_word(view.kind)),
        cell(match &view.from {
            Some((_, from)) if *from != view.version => format!("{from} -> {}", view.version),
            _ => view.version.to_string(),
        }),
        number(Some(view.release)),
        toned(tone, end.map_or_else(|| view.phase.clone(), |end| end.state.to_string())),
        cell(end.and_then(|end| end.live_after_ms).map(number::duration).unwrap_or_default()),
        number(end.map(|end| end.requests)),
        match end.map(|end| end.failed) {
            Some(failed) if failed > 0 => toned(Tone::Bad, failed.to_string()),
            failed => number(failed),
        },
        cell(end.and_then(|end| end.reason.clone()).unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(change: serde_json::Value) -> DeploymentView {
        let mut document = json!({
            "id": "d-7f3k", "environment": "production", "app": "hello-world", "kind": "deploy", "release": 7,
            "version": "2", "from": [6, "1"], "started_unix_ms": 1_795_183_331_042_u64, "phase": "starting",
        });
        document.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        serde_json::from_value(document).expect("a deployment")
    }

    fn done() -> serde_json::Value {
        json!({"state": "done", "ended_unix_ms": 1, "live_after_ms": 4210, "requests": 18204, "failed": 0, "cut": 0})
    }

    #[test]
    fn the_first_line() {
        for (change, text) in [
            (json!({}), "hello-world 1 -> 2  release 7  d-7f3k"),
            (json!({"from": null}), "hello-world 2  release 7  d-7f3k"),
            (json!({"from": [6, "2"], "kind": "config"}), "hello-world 2  config  release 7  d-7f3k"),
            (json!({"environment": "staging"}), "hello-world 1 -> 2  release 7  d-7f3k  staging"),
        ] {
            assert_eq!(head(&view(change), Paint::OFF), text);
        }
    }

    #[test]
    fn the_good_ends() {
        for (change, text) in [
            (json!({}), "live after 4.2s; 18204 requests during the change, 0 failed"),
            (json!({"requests": 1, "failed": 1}), "live after 4.2s; 1 request during the change, 1 failed"),
            (
                json!({"cut": 2}),
                "live after 4.2s; 18204 requests during the change, 0 failed, 2 cut at the drain deadline",
            ),
            (
                json!({"state": "staged", "live_after_ms": null}),
                "staged; traffic stays until you activate it; 18204 requests during the change, 0 failed",
            ),
            (
                json!({"receipt": {"generation": {"cluster": "c-1", "epoch": 1, "number": 57}, "members": 2, "probes": 14,
                                   "inside": 37, "longest_ms": 412}}),
                "live after 4.2s; 18204 requests during the change, 0 failed\n\
                 table 1.57 in force at 2 load balancers; 14 probes of the new instances; 37 in flight then ended by themselves, \
                 the last after 0.4s",
            ),
            (
                json!({"receipt": {"members": 1, "probes": 1, "inside": 0, "longest_ms": 0}}),
                "live after 4.2s; 18204 requests during the change, 0 failed\n\
                 in force at 1 load balancer; 1 probe of the new instances; nothing was in flight",
            ),
        ] {
            let mut document = done();
            document.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
            let end: EndView = serde_json::from_value(document).expect("an end");
            assert_eq!(good_end(&end, Paint::OFF), text);
        }
    }

    #[test]
    fn a_failure_says_what_is_known_and_what_to_try() {
        let probe = json!({"tries": 12, "status": 503, "body": "db: \u{1b}[31mconnection refused\n"});
        let exit = json!({"code": 1, "signal": null, "at_unix_ms": 1, "ran_ms": 800});
        let failed = |number: u32| {
            json!({"instance": format!("hello-world-v2-r7-web-{number}"), "probe": probe, "exit": exit, "restarts": 3,
                   "log": ["starting", "panicked: DATABASE_URL is not set"]})
        };
        let view = view(json!({"end": {
            "state": "aborted", "ended_unix_ms": 1, "requests": 18204, "failed": 0, "cut": 0,
            "reason": "not healthy within 60s", "failures": [failed(1), failed(2)],
        }}));
        assert_eq!(
            bad_end(&view, view.end.as_ref().expect("ended"), Paint::OFF),
            "\
error: hello-world 2 did not go live: not healthy within 60s; 1 still serves all traffic
  instance hello-world-v2-r7-web-1
  probe    503 after 12 tries, body \"db: connection refused\"
  state    exited 1 after 0.8s, 3 restarts
  log      starting
           panicked: DATABASE_URL is not set
  traffic  18204 requests during the change, 0 failed
  try      platformctl config set hello-world KEY=VALUE --later   and deploy it again, or push a new version and deploy that
"
        );
    }

    #[test]
    fn the_facts_suggest_what_to_try() {
        for (failed, expected) in [
            (json!({"probe": {"tries": 1, "status": 404}}), "name the probe's path in platform.toml"),
            (
                json!({"probe": {"tries": 9, "error": "connection refused"}}),
                "listen on 0.0.0.0 and the port that PORT names",
            ),
            (
                json!({"exit": {"code": 127, "signal": null, "at_unix_ms": 1, "ran_ms": 1}}),
                "name a command in platform.toml that is in the artifact and executable",
            ),
            (
                json!({"exit": {"code": null, "signal": 9, "at_unix_ms": 1, "ran_ms": 1}}),
                "raise the memory limit in platform.toml if the kernel ended it",
            ),
        ] {
            let mut document = json!({"instance": "i", "restarts": 0});
            document.as_object_mut().expect("an object").extend(failed.as_object().expect("an object").clone());
            let end = json!({"state": "aborted", "ended_unix_ms": 1, "requests": 0, "failed": 0, "cut": 0, "failures": [document]});
            let view = view(json!({"end": end}));
            assert_eq!(advice(&view, view.end.as_ref().expect("ended"))[0], expected);
        }
    }

    #[test]
    fn history_is_one_line_each() {
        let running = view(json!({"phase": "probing", "id": "d-8"}));
        let failed =
            view(json!({"id": "d-6", "end": {"state": "aborted", "ended_unix_ms": 1, "requests": 5, "failed": 0,
                                 "cut": 0, "reason": "not healthy within 60s"}}));
        assert_eq!(
            history(&[running, view(json!({"end": done()})), failed], usize::MAX, Paint::OFF),
            "\
DEPLOYMENT  STARTED               KIND    VERSION  RELEASE  END      LIVE AFTER  REQUESTS  FAILED  REASON
d-8         2026-11-20 14:02:11Z  deploy  1 -> 2         7  probing           -         -       -  -
d-7f3k      2026-11-20 14:02:11Z  deploy  1 -> 2         7  done           4.2s     18204       0  -
d-6         2026-11-20 14:02:11Z  deploy  1 -> 2         7  aborted           -         5       0  not healthy within 60s
"
        );
    }
}
