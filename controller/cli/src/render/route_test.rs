//! What a URL would get: the rule that covers it, and the instances behind that.

use appbase_core::v1::Health;
use controller_core::v1::api::RouteTest;
use serde_json::Value;

use super::table::{Cell, Column, cell, table, toned};
use super::{Paint, Tone};
use crate::safe;

pub(crate) fn text(test: &RouteTest, width: usize, paint: Paint) -> String {
    let outcome = word(&test.outcome);
    let tone = if outcome == "forwarded" || outcome == "redirected" { Tone::Good } else { Tone::Warn };
    let mut text = paint.tone(tone, &outcome);
    if !test.detail.is_empty() {
        text.push_str(&format!(": {}", safe::line(&test.detail)));
    }
    text.push('\n');
    let missed = test.considered.iter().filter_map(|rule| Some((rule, rule.miss.as_deref()?)));
    for (rule, miss) in missed {
        let (wants, app) = (rule.route.wants(), &rule.app);
        let line = format!("{} of {}: {}", safe::line(&wants), safe::line(app), safe::line(miss));
        text.push_str(&format!("{}  {}\n", paint.dim("not "), paint.dim(&line)));
    }
    let Some(rule) = &test.rule else { return text };
    text.push_str(&format!("{}  {}\n", paint.dim("rule"), safe::line(&rule.route.wants())));
    let live = rule.live.map_or_else(|| "nothing live".to_owned(), |live| format!("release {live} live"));
    let app = [&rule.app, &rule.route.does(), &rule.environment].map(|name| safe::line(name));
    text.push_str(&format!("{}   {} {} in {}, {live}\n", paint.dim("app"), app[0], app[1], app[2]));
    if let Some(gets) = &test.gets {
        text.push_str(&format!("{}  release {}\n", paint.dim("gets"), safe::line(gets)));
    }
    if !test.instances.is_empty() {
        text.push('\n');
        text.push_str(&instances(test, width, paint));
    }
    text
}

fn instances(test: &RouteTest, width: usize, paint: Paint) -> String {
    let columns = [
        Column::Id("INSTANCE"),
        Column::Number("RELEASE"),
        Column::Id("STATE"),
        Column::Id("HEALTH"),
        Column::Number("IN FLIGHT"),
        Column::Number("LATENCY"),
        Column::Id("ADDRESS"),
        Column::Id("TAKES IT"),
    ];
    let rows: Vec<Vec<Cell>> = test
        .instances
        .iter()
        .map(|instance| {
            let seen = instance.seen;
            let (tone, health) = match seen.health {
                Health::Up if seen.ejected => (Tone::Warn, "ejected".to_owned()),
                Health::Up => (Tone::Good, word(&seen.health)),
                Health::Down => (Tone::Bad, word(&seen.health)),
                Health::Pending => (Tone::Dim, word(&seen.health)),
            };
            let latency = seen.latency_us.map(|us| format!("{:.1} ms", us as f64 / 1_000.0));
            vec![
                cell(&instance.instance),
                cell(instance.release.to_string()),
                cell(word(&instance.state)),
                toned(tone, health),
                cell(seen.in_flight.to_string()),
                cell(latency.unwrap_or_else(|| "-".to_owned())),
                cell(instance.address.to_string()),
                match (seen.eligible, seen.backs_off) {
                    (true, true) => toned(Tone::Warn, "asked to wait"),
                    (true, false) => toned(Tone::Good, "yes"),
                    (false, _) => toned(Tone::Dim, "no"),
                },
            ]
        })
        .collect();
    table(&columns, &rows, width, paint)
}

/// A word of the wire, as it stands there.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(document: Value) -> String {
        text(&serde_json::from_value(document).expect("an answer of lb"), usize::MAX, Paint::OFF)
    }

    #[test]
    fn rule_and_instances() {
        let instance = |id: &str, release: u64, state: &str, eligible: bool| {
            json!({"instance": id, "release": release, "weight": 1, "address": "10.0.0.9:8080", "state": state,
                   "health": "up", "in_flight": 2, "eligible": eligible})
        };
        let mut forwarded = json!({
            "host": "shop.example", "path": "/a", "outcome": "forwarded", "detail": "",
            "rule": {"environment": "production", "app": "shop", "process": "web", "host": null, "path": "/", "live": 2},
            "instances": [instance("shop-v2-r2-web-1", 2, "active", true), instance("shop-v1-r1-web-1", 1, "standby", false)],
        });
        forwarded["instances"][0]["ejected"] = json!(true);
        forwarded["instances"][0]["latency_us"] = json!(1_260);
        assert_eq!(
            shown(forwarded),
            "\
forwarded
rule  */
app   shop web in production, release 2 live

INSTANCE          RELEASE  STATE    HEALTH   IN FLIGHT  LATENCY  ADDRESS        TAKES IT
shop-v2-r2-web-1        2  active   ejected          2   1.3 ms  10.0.0.9:8080  yes
shop-v1-r1-web-1        1  standby  up               2        -  10.0.0.9:8080  no
"
        );
        let missed = json!({"environment": "production", "app": "shop", "host": null, "path": "/x", "methods": ["PUT"],
                            "process": "web", "miss": "another method"});
        let nothing = json!({"host": "a", "path": "/", "rule": null, "outcome": "no-route", "considered": [missed],
                             "detail": "no route takes\u{1b}[2J it", "instances": []});
        assert_eq!(shown(nothing), "no-route: no route takes it\nnot   */x PUT of shop: another method\n");
    }
}
