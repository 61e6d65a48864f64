//! The short lists: plan, routes, values, contexts.

use appbase_core::v1::Route;
use controller_core::v1::api::{PlanView, RouteView, TokenView};

use super::table::{Cell, Column, cell, table, toned};
use super::{Paint, Tone, plural};
use crate::context::Context;
use crate::safe;

/// The steps that the controller would take now.
pub(crate) fn plan(view: &PlanView, paint: Paint) -> String {
    let mut text = String::new();
    for step in &view.steps {
        text.push_str(&format!("  {} {}\n", paint.tone(Tone::Good, "+"), safe::line(step)));
    }
    for line in &view.report {
        text.push_str(&format!("  {} {}\n", paint.tone(Tone::Warn, "!"), safe::line(line)));
    }
    if let Some(wake) = &view.wake {
        text.push_str(&format!("  {} {}\n", paint.dim("…"), safe::line(wake)));
    }
    let summary = match view.steps.len() {
        0 => "nothing to do".to_owned(),
        count => plural(count as u64, "step"),
    };
    format!("{} at generation {}\n{text}", paint.bold(&summary), view.generation)
}

/// `hello.localhost/api -> web`
pub(crate) fn route_text(route: &Route) -> String {
    format!("{} -> {}", route.wants(), route.does())
}

pub(crate) fn routes(routes: &[RouteView], width: usize, paint: Paint) -> String {
    let columns = [
        Column::Id("REQUESTS"),
        Column::Id("APP"),
        Column::Id("GO TO"),
        Column::Id("ENVIRONMENT"),
        Column::Text("ORIGIN"),
    ];
    let rows: Vec<Vec<Cell>> = routes
        .iter()
        .map(|view| {
            vec![
                cell(view.route.wants()),
                cell(&view.app),
                cell(view.route.does()),
                cell(&view.environment),
                cell(&view.origin),
            ]
        })
        .collect();
    table(&columns, &rows, width, paint)
}

/// One value of an app, with where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct ConfigValue {
    pub(crate) key: String,
    /// None: a secret, which is shown to nobody.
    #[serde(default)]
    pub(crate) value: Option<String>,
    pub(crate) origin: String,
}

pub(crate) fn values(values: &[ConfigValue], width: usize, paint: Paint) -> String {
    let columns = [Column::Id("KEY"), Column::Text("VALUE"), Column::Id("ORIGIN")];
    let rows: Vec<Vec<Cell>> = values
        .iter()
        .map(|value| {
            let shown = value.value.as_ref().map_or_else(|| toned(Tone::Dim, "***"), cell);
            vec![cell(&value.key), shown, toned(Tone::Dim, &value.origin)]
        })
        .collect();
    table(&columns, &rows, width, paint)
}

pub(crate) fn contexts(contexts: &[Context], current: Option<&Context>, width: usize, paint: Paint) -> String {
    let columns = [Column::Id(" "), Column::Id("CONTEXT"), Column::Text("URL"), Column::Id("TOKEN")];
    let chosen = current.and_then(|context| context.name.as_deref());
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    let unnamed = current.filter(|context| context.name.is_none());
    for context in unnamed.into_iter().chain(contexts) {
        let name = context.name.as_deref();
        let mark = if name == chosen { toned(Tone::Good, "*") } else { cell(" ") };
        let token = if context.token.is_some() { "yes" } else { "no" };
        rows.push(vec![mark, cell(name.unwrap_or("(login)")), cell(&context.url), cell(token)]);
    }
    table(&columns, &rows, width, paint)
}

pub(crate) fn tokens(tokens: &[TokenView], now_unix_ms: u64, width: usize, paint: Paint) -> String {
    let columns = [Column::Id("TOKEN"), Column::Text("FOR"), Column::Id("MAY"), Column::Id("ENDS")];
    let rows: Vec<Vec<Cell>> = tokens
        .iter()
        .map(|token| {
            let left = token.expires_unix_ms.saturating_sub(now_unix_ms) / 3_600_000;
            let ends = match left {
                0 => toned(Tone::Dim, "within the hour, or over"),
                1..48 => cell(format!("in {left} h")),
                _ => cell(format!("in {} d", left / 24)),
            };
            let may = if token.read_only { "look" } else { "everything" };
            vec![cell(&token.id), cell(&token.name), cell(may), ends]
        })
        .collect();
    table(&columns, &rows, width, paint)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_plan() {
        let generation = json!({"cluster": "c1", "epoch": 1, "number": 118});
        let view = |steps: Value, report: Value, wake: Value| -> PlanView {
            serde_json::from_value(json!({"generation": generation, "steps": steps, "wake": wake, "report": report}))
                .expect("a plan")
        };
        assert_eq!(plan(&view(json!([]), json!([]), json!(null)), Paint::OFF), "nothing to do at generation 1.118\n");
        assert_eq!(
            plan(&view(json!(["create a", "start a"]), json!(["shop: no image"]), json!("in 5s: settle")), Paint::OFF),
            "2 steps at generation 1.118\n  + create a\n  + start a\n  ! shop: no image\n  … in 5s: settle\n"
        );
    }

    #[test]
    fn values_and_routes() {
        let shown: Vec<ConfigValue> = serde_json::from_value(json!([
            {"key": "GREETING", "value": "hello", "origin": "overlay"},
            {"key": "TOKEN", "value": null, "origin": "secret"},
        ]))
        .expect("values");
        assert_eq!(
            values(&shown, usize::MAX, Paint::OFF),
            "KEY       VALUE  ORIGIN\nGREETING  hello  overlay\nTOKEN     ***    secret\n"
        );
        let shown: Vec<RouteView> = serde_json::from_value(json!([
            {"environment": "production", "app": "shop", "route": {"path": "/api", "process": "web"}, "origin": "app file"},
        ]))
        .expect("routes");
        assert_eq!(
            routes(&shown, usize::MAX, Paint::OFF),
            "REQUESTS  APP   GO TO  ENVIRONMENT  ORIGIN\n*/api     shop  web    production   app file\n"
        );
    }
}
