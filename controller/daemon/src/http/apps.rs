//! Apps: status, history, logs, values and routes.

use appbase_core::{AppName, InstanceId, SectionKey};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use controller_core::render::live_release;
use controller_core::v1::api::{AppStatus, DeploymentView, RouteView};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use kit::problem::Problem;
use node::{ComputeError, LogLine, LogRequest};
use serde::{Deserialize, Serialize};

use super::{Answer, App, InEnvironment, app_name, unknown_app};
use crate::records::lock;
use crate::views;

pub(super) async fn show(
    State(shared): State<App>,
    Path(app): Path<String>,
    Query(query): Query<InEnvironment>,
) -> Answer<AppStatus> {
    let app = app_name(&app)?;
    let shown = shared.shown();
    let records = lock(&shared.records);
    if !records.runs.contains_key(&SectionKey::app(&query.environment, &app)) {
        return Err(unknown_app(&app, &query.environment));
    }
    Ok(Json(views::app_status(&shared, &records, &shown, &query.environment, &app)))
}

pub(super) async fn history(
    State(shared): State<App>,
    Path(app): Path<String>,
    Query(query): Query<InEnvironment>,
) -> Answer<Vec<DeploymentView>> {
    let app = app_name(&app)?;
    let key = SectionKey::app(&query.environment, &app);
    let records = lock(&shared.records);
    if !records.runs.contains_key(&key) {
        return Err(unknown_app(&app, &query.environment));
    }
    let history = records.history(&key);
    Ok(Json(history.into_iter().map(|deployment| views::deployment(&shared, &records, deployment)).collect()))
}

#[derive(Debug, Deserialize)]
pub(super) struct LogQuery {
    #[serde(default)]
    tail: Option<usize>,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    instance: Option<InstanceId>,
}

/// At most this many instances are read at once.
const LOG_INSTANCES_MAX: usize = 64;

pub(super) async fn logs(
    State(shared): State<App>,
    Path(app): Path<String>,
    Query(query): Query<InEnvironment>,
    Query(wanted): Query<LogQuery>,
) -> Result<Response, Problem> {
    let app = app_name(&app)?;
    let request = LogRequest { tail: wanted.tail.unwrap_or(100).min(10_000), follow: wanted.follow };
    let ids = instances(&shared, &app, &query, wanted.instance.as_ref())?;
    let mut streams: Vec<BoxStream<'static, String>> = Vec::new();
    for id in ids.into_iter().take(LOG_INSTANCES_MAX) {
        match shared.compute.logs(&id, request).await {
            Ok(lines) => streams.push(lines.map(move |line| text(&id, line)).boxed()),
            Err(ComputeError::Unknown(_)) => {}
            Err(error) => streams.push(stream::iter([format!("{id} | ({error})\n")]).boxed()),
        }
    }
    let lines = stream::select_all(streams).map(|line| Ok::<_, std::io::Error>(Bytes::from(line)));
    Ok(([(axum::http::header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(lines)).into_response())
}

fn instances(
    shared: &App,
    app: &AppName,
    query: &InEnvironment,
    only: Option<&InstanceId>,
) -> Result<Vec<InstanceId>, Problem> {
    let records = lock(&shared.records);
    let run = records.runs.get(&SectionKey::app(&query.environment, app));
    let run = run.ok_or_else(|| unknown_app(app, &query.environment))?;
    let ids: Vec<_> = run.instances.keys().filter(|id| only.is_none_or(|only| only == *id)).cloned().collect();
    match only {
        Some(only) if ids.is_empty() => {
            Err(Problem::new(404, "unknown-instance", format!("{app} has no instance {only}")))
        }
        _ => Ok(ids),
    }
}

fn text(id: &InstanceId, line: Result<LogLine, ComputeError>) -> String {
    match line {
        Ok(line) => format!("{id} | {}\n", line.text),
        Err(error) => format!("{id} | ({error})\n"),
    }
}

/// One value and where it comes from.
#[derive(Debug, Serialize)]
pub(super) struct ValueView {
    key: String,
    value: String,
    /// `environment`, `app file`, or `environment (not deployed)`.
    origin: String,
}

pub(super) async fn config(
    State(shared): State<App>,
    Path(app): Path<String>,
    Query(query): Query<InEnvironment>,
) -> Answer<Vec<ValueView>> {
    let app = app_name(&app)?;
    let key = SectionKey::app(&query.environment, &app);
    let records = lock(&shared.records);
    let run = records.runs.get(&key);
    let overlay = records.desired_app(&query.environment, &app).values;
    if run.is_none() && overlay.is_empty() {
        return Err(unknown_app(&app, &query.environment));
    }
    let live = run.and_then(live_release).and_then(|live| records.releases.get(&key)?.get(&live));
    let in_force = live.map(views::values_in_force).unwrap_or_default();
    let mut views: Vec<ValueView> = overlay
        .iter()
        .map(|(key, value)| {
            let deployed = in_force.get(key) == Some(value);
            let origin = if deployed { "environment" } else { "environment (not deployed)" };
            ValueView { key: key.clone(), value: value.clone(), origin: origin.to_owned() }
        })
        .collect();
    let from_file = in_force.iter().filter(|(key, _)| !overlay.contains_key(*key));
    views.extend(from_file.map(|(key, value)| ValueView {
        key: key.clone(),
        value: value.clone(),
        origin: "app file".to_owned(),
    }));
    views.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(Json(views))
}

pub(super) async fn routes(State(shared): State<App>) -> Json<Vec<RouteView>> {
    let records = lock(&shared.records);
    let mut views = Vec::new();
    for (key, run) in &records.runs {
        let SectionKey::App { environment, app } = key else { continue };
        let Some(record) = live_release(run).and_then(|live| records.releases.get(key)?.get(&live)) else { continue };
        let overlay = records.desired_app(environment, app).routes;
        let deployed = &record.release.traffic.routes;
        let origin = |route| if overlay.contains(route) { "environment" } else { "app file" };
        let absent =
            overlay.iter().filter(|route| !deployed.contains(route)).map(|r| (r, "environment (not deployed)"));
        views.extend(deployed.iter().map(|route| (route, origin(route))).chain(absent).map(|(route, origin)| {
            RouteView {
                environment: environment.clone(),
                app: app.clone(),
                route: route.clone(),
                origin: origin.to_owned(),
            }
        }));
    }
    Json(views)
}

#[derive(Debug, Deserialize)]
pub(super) struct TestQuery {
    url: String,
}

/// Asks an lb which rule and which instances a URL would get, without sending it.
pub(super) async fn test_route(State(shared): State<App>, Query(query): Query<TestQuery>) -> Result<Response, Problem> {
    let bad =
        || Problem::new(400, "bad-url", format!("\"{}\" is no URL: use http://host/path", query.url.escape_debug()));
    let url = reqwest::Url::parse(&query.url).map_err(|_| bad())?;
    let host = url.host_str().ok_or_else(bad)?;
    let client = kit::client::Client::new(&shared.config.lb_admin, None);
    let mut path = reqwest::Url::parse("http://lb/v1/route").expect("a well-formed URL");
    path.query_pairs_mut().append_pair("host", host).append_pair("path", url.path());
    let path = format!("{}?{}", path.path(), path.query().unwrap_or_default());
    let request = client.request(reqwest::Method::GET, &path).timeout(std::time::Duration::from_secs(5));
    let answer: serde_json::Value = match client.send(request).await {
        Ok(response) => client.json(response).await.map_err(|error| Problem::unexpected(&error))?,
        Err(kit::client::ClientError::Refused(problem)) => return Err(problem),
        Err(error) => return Err(Problem::new(503, "lb-unreachable", "lb does not answer").detail(error.to_string())),
    };
    Ok(Json(answer).into_response())
}
