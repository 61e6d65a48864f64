//! What runs now: the whole platform, or one app.

use appbase_core::EnvironmentName;
use appbase_core::v1::status::DURATION_BUCKETS_MS;
use appbase_core::v1::{Counters, Health};
use controller_core::v1::api::{AppStatus, ControllerInfo, InstanceView, MemberView, PlatformStatus, StagedView};

use super::list::route_text;
use super::table::{Cell, Column, cell, table, toned};
use super::{Paint, Tone, number, plural};
use crate::safe;

/// Apps, then members, then what is wrong. `only`: the apps of one environment.
pub(crate) fn platform(status: &PlatformStatus, only: Option<&EnvironmentName>, width: usize, paint: Paint) -> String {
    let apps: Vec<&AppStatus> =
        status.apps.iter().filter(|app| only.is_none_or(|only| app.environment == *only)).collect();
    let mut text = if apps.is_empty() { "no apps yet\n".to_owned() } else { app_table(&apps, width, paint) };
    text.push('\n');
    text.push_str(&member_table(status, width, paint));
    text.push_str(&paint.dim(&platform_line(&status.info, &status.generation.to_string())));
    text.push('\n');
    for problem in &status.problems {
        text.push_str(&format!("{} {}\n", paint.tone(Tone::Warn, "problem:"), safe::line(problem)));
    }
    text
}

fn platform_line(info: &ControllerInfo, generation: &str) -> String {
    let mut facts = vec![
        format!("generation {generation}"),
        format!("engine {}", safe::line(&info.engine)),
        format!("domain {}", safe::line(&info.domain)),
    ];
    if !info.lb.is_empty() {
        facts.push(format!("lb {}", safe::line(&info.lb)));
    }
    if !info.dns.is_empty() {
        facts.push(format!("dns {}", safe::line(&info.dns)));
    }
    facts.join("  ")
}

fn app_table(apps: &[&AppStatus], width: usize, paint: Paint) -> String {
    let columns = [
        Column::Id("APP"),
        Column::Id("ENVIRONMENT"),
        Column::Id("VERSION"),
        Column::Number("RELEASE"),
        Column::Number("UP"),
        Column::Number("REQUESTS"),
        Column::Number("FAILED"),
        Column::Text("STATE"),
    ];
    let rows: Vec<Vec<Cell>> = apps
        .iter()
        .map(|app| {
            let (up, wanted) = up(app);
            vec![
                cell(&app.app),
                cell(&app.environment),
                cell(app.live.as_ref().map(|live| live.version.to_string()).unwrap_or_default()),
                cell(app.live.as_ref().map(|live| live.release.to_string()).unwrap_or_default()),
                toned(if up < wanted { Tone::Bad } else { Tone::Good }, format!("{up}/{wanted}")),
                cell(app.counters.requests.to_string()),
                toned(if app.counters.failed > 0 { Tone::Bad } else { Tone::Plain }, app.counters.failed.to_string()),
                cell(state(app)),
            ]
        })
        .collect();
    table(&columns, &rows, width, paint)
}

/// The summary, unless something weighs more.
fn state(app: &AppStatus) -> String {
    let mut words = vec![app.summary.clone()];
    words
        .extend(app.deployment.as_ref().filter(|run| run.end.is_none()).map(|run| format!("{} {}", run.phase, run.id)));
    words.extend(app.hold.then(|| "on hold".to_owned()));
    words.extend(app.maintenance.is_some().then(|| "in maintenance".to_owned()));
    words.join(", ")
}

/// Instances of the live release that are up, and how many there should be.
fn up(app: &AppStatus) -> (usize, usize) {
    let wanted = app.scale.values().map(|count| *count as usize).sum();
    let is_up = |instance: &&InstanceView| match instance.health {
        Some(health) => health == Health::Up,
        None => instance.phase == "running",
    };
    let live = app.live.as_ref().map(|live| live.release);
    (app.instances.iter().filter(|instance| Some(instance.release) == live).filter(is_up).count(), wanted)
}

pub(crate) fn member_table(status: &PlatformStatus, width: usize, paint: Paint) -> String {
    let columns = [
        Column::Id("MEMBER"),
        Column::Id("KIND"),
        Column::Id("STATE"),
        Column::Id("GENERATION"),
        Column::Number("SEEN"),
        Column::Text("REFUSED"),
    ];
    let rows: Vec<Vec<Cell>> = status
        .members
        .iter()
        .map(|member| {
            let (tone, word) = member_state(member, status);
            vec![
                cell(&member.id),
                cell(member.kind.to_string()),
                toned(tone, word),
                cell(member.in_force.as_ref().map(ToString::to_string).unwrap_or_default()),
                cell(member.seen_ms_ago.map(|ms| format!("{} ago", number::duration(ms))).unwrap_or_default()),
                cell(member.refused.clone().unwrap_or_default()),
            ]
        })
        .collect();
    table(&columns, &rows, width, paint)
}

fn member_state(member: &MemberView, status: &PlatformStatus) -> (Tone, &'static str) {
    match (&member.in_force, member.reachable) {
        (_, false) => (Tone::Bad, "unreachable"),
        (None, true) => (Tone::Warn, "no table"),
        (Some(generation), true) if generation.reaches(&status.generation) => (Tone::Good, "current"),
        (Some(_), true) => (Tone::Warn, "behind"),
    }
}

/// One app: facts, then instances.
pub(crate) fn app(status: &AppStatus, width: usize, paint: Paint) -> String {
    let mut text = paint.bold(status.app.as_str());
    if !status.environment.is_default() {
        text.push_str(&paint.dim(&format!("  {}", status.environment)));
    }
    text.push('\n');
    for (word, fact) in facts(status) {
        text.push_str(&format!("  {} {}\n", paint.dim(&format!("{word:<11}")), safe::line(&fact)));
    }
    if !status.instances.is_empty() {
        text.push('\n');
        text.push_str(&instance_table(&status.instances, width, paint));
    }
    text
}

fn facts(status: &AppStatus) -> Vec<(&'static str, String)> {
    let mut facts = vec![("state", state(status))];
    facts.extend(
        status
            .live
            .as_ref()
            .map(|live| ("live", format!("{} (release {}, {})", live.version, live.release, live.slot))),
    );
    facts.extend(status.staged.as_ref().map(|staged| ("staged", staged_text(staged))));
    facts.extend(status.routes.iter().map(|route| ("route", route_text(route))));
    if !status.scale.is_empty() {
        let scale: Vec<String> = status.scale.iter().map(|(process, count)| format!("{process}={count}")).collect();
        facts.push(("scale", scale.join(" ")));
    }
    facts.push(("traffic", traffic(status)));
    if !status.not_deployed.is_empty() {
        facts.push(("changed", format!("{}: in force with the next deploy", status.not_deployed.join(", "))));
    }
    facts.extend(status.maintenance.as_ref().map(|message| ("maintenance", message.clone())));
    facts.extend(status.notice.as_ref().map(|notice| ("notice", notice.clone())));
    if let Some(run) = status.deployment.as_ref().filter(|run| run.end.is_none()) {
        facts.push(("deploying", format!("{} to {}, {}", run.id, run.version, run.phase)));
        facts.extend(run.waiting.iter().map(|waiting| ("waiting", waiting.clone())));
    }
    facts.extend(status.rollback_to.as_ref().map(|(release, version)| {
        ("undo", format!("platformctl rollback {}   (to {version}, release {release})", status.app))
    }));
    facts
}

/// `2 (release 5, green): 10 % of the clients, 2 cohorts; 120 requests, 0 failed`
fn staged_text(staged: &StagedView) -> String {
    let mut gets = Vec::new();
    gets.extend((staged.percent > 0).then(|| format!("{} % of the clients", staged.percent)));
    gets.extend((!staged.cohorts.is_empty()).then(|| plural(staged.cohorts.len() as u64, "cohort")));
    gets.extend((staged.mirror > 0).then(|| format!("copies of {} % of the reads", staged.mirror)));
    let gets = if gets.is_empty() { "no traffic".to_owned() } else { gets.join(", ") };
    let Counters { requests, failed, app_errors, copies, copies_failed, .. } = staged.counters;
    let StagedView { version, release, slot, .. } = staged;
    let mut answered = format!("{}, {failed} failed, {app_errors} app errors", plural(requests, "request"));
    if copies > 0 {
        answered.push_str(&format!("; {copies} copies, {copies_failed} failed"));
    }
    format!("{version} (release {release}, {slot}): {gets}; {answered}")
}

fn traffic(status: &AppStatus) -> String {
    let counters = &status.counters;
    let mut text = format!(
        "{} to this release since lb started, {} failed",
        plural(counters.requests, "request"),
        counters.failed
    );
    if counters.app_errors > 0 {
        text.push_str(&format!(", {}", plural(counters.app_errors, "app error")));
    }
    for (name, share) in [("half", 50), ("95 %", 95), ("99 %", 99)] {
        if let Some(bound) = quantile(&counters.durations, share) {
            text.push_str(&format!("; {name} {bound}"));
        }
    }
    text
}

/// The bucket that `share` percent of the requests do not exceed: `≤ 25 ms`.
pub(super) fn quantile(durations: &[u64], share: u64) -> Option<String> {
    let total: u64 = durations.iter().sum();
    let mut seen = 0;
    for (index, count) in durations.iter().enumerate() {
        seen += count;
        if total > 0 && seen * 100 >= total * share {
            return Some(match DURATION_BUCKETS_MS.get(index) {
                Some(bound) => format!("≤ {bound} ms"),
                None => format!("> {} ms", DURATION_BUCKETS_MS[DURATION_BUCKETS_MS.len() - 1]),
            });
        }
    }
    None
}

fn instance_table(instances: &[InstanceView], width: usize, paint: Paint) -> String {
    let columns = [
        Column::Id("INSTANCE"),
        Column::Id("VERSION"),
        Column::Id("SLOT"),
        Column::Id("TRAFFIC"),
        Column::Id("HEALTH"),
        Column::Number("IN FLIGHT"),
        Column::Number("RESTARTS"),
        Column::Text("ADDRESS"),
    ];
    let rows: Vec<Vec<Cell>> = instances
        .iter()
        .map(|instance| {
            let (tone, health) = health(instance);
            vec![
                cell(&instance.id),
                cell(&instance.version),
                cell(instance.slot.to_string()),
                cell(&instance.state),
                toned(tone, health),
                cell(instance.in_flight.to_string()),
                toned(if instance.restarts > 0 { Tone::Warn } else { Tone::Plain }, instance.restarts.to_string()),
                cell(instance.address.clone().unwrap_or_default()),
            ]
        })
        .collect();
    table(&columns, &rows, width, paint)
}

/// What its engine says when that is not "running", else what lb says.
pub(super) fn health(instance: &InstanceView) -> (Tone, &str) {
    match (instance.phase.as_str(), instance.health) {
        ("running", Some(Health::Up)) if instance.ejected => (Tone::Warn, "ejected"),
        ("running", Some(Health::Down)) if instance.panic => (Tone::Bad, "down, tried"),
        ("running", Some(Health::Up)) => (Tone::Good, "up"),
        ("running", Some(Health::Down)) => (Tone::Bad, "down"),
        ("running", Some(Health::Pending)) => (Tone::Warn, "pending"),
        ("running", None) => (Tone::Good, "running"),
        ("created", _) => (Tone::Warn, "created"),
        (phase, _) => (Tone::Bad, phase),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn instance(number: u32, health: Value, phase: &str) -> Value {
        json!({"id": format!("hello-world-v2-r7-web-{number}"), "process": "web", "number": number, "release": 7,
               "version": "2", "slot": "blue", "state": "active", "phase": phase, "health": health,
               "address": format!("10.210.0.{number}:8080"), "in_flight": 2, "restarts": number - 1})
    }

    fn hello() -> Value {
        json!({
            "environment": "production", "app": "hello-world", "live": {"release": 7, "version": "2", "slot": "blue"},
            "summary": "serving 2 (release 7)",
            "instances": [instance(1, json!("up"), "running"), instance(2, json!("down"), "ended")],
            "routes": [{"host": "hello-world.localhost", "path": "/", "process": "web"}],
            "scale": {"web": 2}, "hold": false, "rollback_to": [6, "1"],
            "counters": {"requests": 18204, "failed": 0, "app_errors": 3,
                         "durations": [9000, 9000, 200, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]},
        })
    }

    #[test]
    fn the_whole_platform() {
        let generation = |number: u64| json!({"cluster": "c1", "epoch": 1, "number": number});
        let shop = json!({"environment": "staging", "app": "shop", "summary": "nothing deployed", "instances": [],
                          "routes": [], "scale": {"web": 1}, "hold": true, "counters": {"requests": 0, "failed": 0, "app_errors": 0}});
        let status: PlatformStatus = serde_json::from_value(json!({
            "info": {"cluster": "c1", "epoch": 1, "software": "0.1.0", "repository": "http://127.0.0.1:8082",
                     "engine": "docker", "domain": "localhost", "dns": "127.0.0.1:1053", "lb": "127.0.0.1:8080"},
            "generation": generation(118),
            "members": [
                {"id": "lb-1", "kind": "lb", "reachable": true, "seen_ms_ago": 400, "in_force": generation(118)},
                {"id": "dns-1", "kind": "dns", "reachable": true, "seen_ms_ago": 1900, "in_force": generation(117)},
                {"id": "lb-2", "kind": "lb", "reachable": false, "seen_ms_ago": 72000, "in_force": generation(90)},
            ],
            "apps": [hello(), shop],
            "problems": ["server s-2 was not seen for 40s"],
        }))
        .expect("a status");
        assert_eq!(
            platform(&status, None, usize::MAX, Paint::OFF),
            "\
APP          ENVIRONMENT  VERSION  RELEASE   UP  REQUESTS  FAILED  STATE
hello-world  production   2              7  1/2     18204       0  serving 2 (release 7)
shop         staging      -              -  0/1         0       0  nothing deployed, on hold

MEMBER  KIND  STATE        GENERATION       SEEN  REFUSED
lb-1    lb    current      1.118        0.4s ago  -
dns-1   dns   behind       1.117        1.9s ago  -
lb-2    lb    unreachable  1.90        1m12s ago  -
generation 1.118  engine docker  domain localhost  lb 127.0.0.1:8080  dns 127.0.0.1:1053
problem: server s-2 was not seen for 40s
"
        );
        let staging = EnvironmentName::parse("staging").expect("a name");
        assert!(!platform(&status, Some(&staging), usize::MAX, Paint::OFF).contains("hello-world"));
    }

    #[test]
    fn one_app() {
        let status: AppStatus = serde_json::from_value(hello()).expect("a status");
        assert_eq!(
            app(&status, usize::MAX, Paint::OFF),
            "\
hello-world
  state       serving 2 (release 7)
  live        2 (release 7, blue)
  route       hello-world.localhost/ -> web
  scale       web=2
  traffic     18204 requests to this release since lb started, 0 failed, 3 app errors; half ≤ 2 ms; 95 % ≤ 2 ms; 99 % ≤ 5 ms
  undo        platformctl rollback hello-world   (to 1, release 6)

INSTANCE                 VERSION  SLOT  TRAFFIC  HEALTH  IN FLIGHT  RESTARTS  ADDRESS
hello-world-v2-r7-web-1  2        blue  active   up              2         0  10.210.0.1:8080
hello-world-v2-r7-web-2  2        blue  active   ended           2         1  10.210.0.2:8080
"
        );
    }
}
