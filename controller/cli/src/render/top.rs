//! What flows: a line for each release, and its instances below it.

use appbase_core::{AppName, EnvironmentName, SectionKey};
use controller_core::v1::api::{AppStatus, InstanceView, PlatformStatus};
use serde_json::{Value, json};

use super::status::{health, quantile};
use super::table::{Cell, Column, cell, table, toned};
use super::{Paint, Tone};
use crate::rates::{Flow, Rates};

/// Whom somebody wants to see.
pub(crate) struct Filter<'a> {
    pub(crate) app: Option<&'a AppName>,
    pub(crate) environment: Option<&'a EnvironmentName>,
}

impl Filter<'_> {
    fn takes(&self, app: &AppStatus) -> bool {
        self.app.is_none_or(|only| app.app == *only) && self.environment.is_none_or(|only| app.environment == *only)
    }
}

pub(crate) fn top(status: &PlatformStatus, rates: &Rates, filter: &Filter<'_>, width: usize, paint: Paint) -> String {
    let columns = [
        Column::Id("APP"),
        Column::Id("RELEASE"),
        Column::Text("INSTANCE"),
        Column::Id("STATE"),
        Column::Number("REQ/S"),
        Column::Number("FAILED/S"),
        Column::Number("P50"),
        Column::Number("P99"),
        Column::Number("IN FLIGHT"),
        Column::Number("STREAMS"),
    ];
    let apps = status.apps.iter().filter(|app| filter.takes(app));
    let rows: Vec<Vec<Cell>> = apps.flat_map(|app| app_rows(app, rates)).collect();
    if rows.is_empty() {
        return "nothing runs\n".to_owned();
    }
    table(&columns, &rows, width, paint)
}

/// The same as a document.
pub(crate) fn document(status: &PlatformStatus, rates: &Rates, filter: &Filter<'_>) -> Value {
    let instance = |instance: &InstanceView| {
        let ((requests, failed), (streams, in_flight)) = (rates.of_instance(&instance.id), rates.inside(&instance.id));
        json!({"instance": instance.id, "release": instance.release, "state": instance.state, "health": instance.health,
               "requests_per_second": requests, "failed_per_second": failed, "latency_us": instance.latency_us,
               "in_flight": in_flight, "streams": streams})
    };
    let app = |app: &AppStatus| {
        let flows = rates.of_releases(&SectionKey::app(&app.environment, &app.app));
        let flows = flows.iter().map(|(release, flow)| {
            json!({"release": release, "requests_per_second": flow.requests, "failed_per_second": flow.failed,
                   "app_errors_per_second": flow.app_errors, "durations": flow.durations})
        });
        json!({"app": app.app, "environment": app.environment, "releases": flows.collect::<Vec<_>>(),
               "instances": app.instances.iter().map(instance).collect::<Vec<_>>()})
    };
    json!({"apps": status.apps.iter().filter(|app| filter.takes(app)).map(app).collect::<Vec<_>>()})
}

fn app_rows(app: &AppStatus, rates: &Rates) -> Vec<Vec<Cell>> {
    let name =
        if app.environment.is_default() { app.app.to_string() } else { format!("{} {}", app.app, app.environment) };
    let flows = rates.of_releases(&SectionKey::app(&app.environment, &app.app));
    let mut releases: Vec<u64> = app.instances.iter().map(|instance| instance.release).collect();
    releases.sort_unstable_by_key(|release| std::cmp::Reverse(*release));
    releases.dedup();
    let live = app.live.as_ref().map(|live| live.release);
    let mut rows = Vec::new();
    for release in releases {
        let instances: Vec<_> = app.instances.iter().filter(|instance| instance.release == release).collect();
        let flow = flows.get(&release).cloned().unwrap_or_default();
        rows.push(release_row(&name, release, Some(release) == live, &instances, &flow, rates));
        rows.extend(instances.into_iter().map(|instance| instance_row(instance, rates)));
    }
    rows
}

fn release_row(
    app: &str,
    release: u64,
    is_live: bool,
    instances: &[&InstanceView],
    flow: &Flow,
    rates: &Rates,
) -> Vec<Cell> {
    let version = instances.first().map(|instance| instance.version.to_string()).unwrap_or_default();
    let (streams, in_flight) = instances.iter().fold((0, 0), |(streams, requests), instance| {
        let inside = rates.inside(&instance.id);
        (streams + inside.0, requests + inside.1)
    });
    let state = instances.first().map_or("", |instance| instance.state.as_str());
    let quantile = |share| cell(quantile(&flow.durations, share).unwrap_or_default());
    vec![
        toned(Tone::Bold, app),
        toned(Tone::Bold, format!("{version} (r{release})")),
        cell(""),
        if is_live { toned(Tone::Good, "live") } else { cell(state) },
        toned(Tone::Bold, rate(flow.requests)),
        failed(flow.failed + flow.app_errors),
        quantile(50),
        quantile(99),
        cell(in_flight.to_string()),
        cell(streams.to_string()),
    ]
}

fn instance_row(instance: &InstanceView, rates: &Rates) -> Vec<Cell> {
    let ((requests, failures), (streams, in_flight)) = (rates.of_instance(&instance.id), rates.inside(&instance.id));
    let (tone, health) = health(instance);
    vec![
        toned(Tone::Plain, " "),
        toned(Tone::Plain, " "),
        cell(&instance.id),
        toned(tone, health),
        cell(rate(requests)),
        failed(failures),
        cell(instance.latency_us.map(latency).unwrap_or_default()),
        cell(""),
        cell(in_flight.to_string()),
        cell(streams.to_string()),
    ]
}

fn failed(rate: f64) -> Cell {
    toned(if rate > 0.0 { Tone::Bad } else { Tone::Plain }, self::rate(rate))
}

/// `0`, `0.5`, `12.3`, `431`.
fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        ..0.05 => "<0.1".to_owned(),
        ..99.95 => format!("{rate:.1}"),
        _ => format!("{rate:.0}"),
    }
}

fn latency(us: u64) -> String {
    match us {
        0..10_000 => format!("~ {:.1} ms", us as f64 / 1000.0),
        _ => format!("~ {} ms", us / 1000),
    }
}

#[cfg(test)]
mod tests {
    use controller_core::v1::api::MemberTraffic;

    use super::*;

    fn status() -> PlatformStatus {
        let instance = |release: u64, number: u32, state: &str| {
            json!({"id": format!("shop-r{release}-web-{number}"), "process": "web", "number": number, "release": release,
                   "version": release.to_string(), "slot": "blue", "state": state, "phase": "running", "health": "up",
                   "latency_us": 1234, "in_flight": 9, "restarts": 0})
        };
        let shop = json!({
            "environment": "production", "app": "shop", "live": {"release": 2, "version": "2", "slot": "blue"},
            "summary": "serving 2", "routes": [], "scale": {"web": 2}, "hold": false,
            "instances": [instance(1, 1, "draining"), instance(2, 1, "active"), instance(2, 2, "active")],
            "counters": {"requests": 0, "failed": 0, "app_errors": 0},
        });
        let generation = json!({"cluster": "c1", "epoch": 1, "number": 3});
        serde_json::from_value(json!({
            "info": {"cluster": "c1", "epoch": 1, "software": "0.1.0", "repository": "", "engine": "process", "domain": "platform"},
            "generation": generation, "apps": [shop], "members": [], "problems": [],
        }))
        .expect("a status")
    }

    fn said(said_ms: u64, requests: u64) -> MemberTraffic {
        let instances = json!({
            "shop-r2-web-1": {"health": "up", "up_for_ms": 1, "in_flight": 3, "streams": 1, "drained": false, "requests": requests},
            "shop-r2-web-2": {"health": "up", "up_for_ms": 1, "in_flight": 0, "streams": 0, "drained": false, "requests": requests / 2},
        });
        let counters = json!({"2": {"requests": requests, "failed": requests / 100, "app_errors": 0,
                                    "durations": [requests, requests / 50]}});
        serde_json::from_value(json!({"member": "lb-1", "said_ms": said_ms, "status": {
            "kind": "lb", "boot": "a", "in_force": null, "instances": instances, "counters": {"production/shop": counters}}}))
        .expect("what a member says")
    }

    #[test]
    fn releases_and_their_instances() {
        let mut rates = Rates::default();
        rates.take(vec![said(0, 0)]);
        rates.take(vec![said(2_000, 200)]);
        let filter = Filter { app: None, environment: None };
        assert_eq!(
            top(&status(), &rates, &filter, usize::MAX, Paint::OFF),
            "\
APP   RELEASE  INSTANCE       STATE     REQ/S  FAILED/S       P50     P99  IN FLIGHT  STREAMS
shop  2 (r2)   -              live        100       1.0    ≤ 1 ms  ≤ 2 ms          3        1
               shop-r2-web-1  up          100         0  ~ 1.2 ms       -          3        1
               shop-r2-web-2  up         50.0         0  ~ 1.2 ms       -          0        0
shop  1 (r1)   -              draining      0         0         -       -          0        0
               shop-r1-web-1  up            0         0  ~ 1.2 ms       -          0        0
"
        );
        let document = document(&status(), &rates, &filter);
        assert_eq!(document["apps"][0]["releases"][0]["requests_per_second"], 100.0);
        assert_eq!(document["apps"][0]["instances"][1]["in_flight"], 3);
        let other = EnvironmentName::parse("staging").expect("a name");
        let filter = Filter { app: None, environment: Some(&other) };
        assert_eq!(top(&status(), &rates, &filter, usize::MAX, Paint::OFF), "nothing runs\n");
    }
}
