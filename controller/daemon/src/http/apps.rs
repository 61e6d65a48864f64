//! Apps: status, history, logs, values and routes.

use std::collections::BTreeSet;
use std::time::Duration;

use appbase_core::{AppName, InstanceId, SectionKey};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use controller_core::render::live_release;
use controller_core::v1::api::{AppStatus, DeploymentView, RouteTest, RouteView};
use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{Stream, StreamExt};
use kit::problem::Problem;
use node::{ComputeError, LogLine, LogRequest};
use reqwest::Url;
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
const LOG_TAIL_MAX: usize = 10_000;
/// How soon who follows an app's logs gets those of a new instance.
const LOG_LOOK: Duration = Duration::from_millis(500);

pub(super) async fn logs(
    State(shared): State<App>,
    Path(app): Path<String>,
    Query(query): Query<InEnvironment>,
    Query(wanted): Query<LogQuery>,
) -> Result<Response, Problem> {
    let app = app_name(&app)?;
    let mut request = LogRequest { tail: wanted.tail.unwrap_or(100).min(LOG_TAIL_MAX), follow: wanted.follow };
    let ids = instances(&shared, &app, &query, wanted.instance.as_ref())?;
    let mut logs = Logs { shared, lines: SelectAll::new(), known: BTreeSet::new() };
    logs.add(ids, request).await;
    let lines = if wanted.follow && wanted.instance.is_none() {
        // Of instances that come later, from their beginning.
        request.tail = LOG_TAIL_MAX;
        logs.with_new_ones(app, query, request).boxed()
    } else {
        logs.lines.boxed()
    };
    let lines = lines.map(|line| Ok::<_, std::io::Error>(Bytes::from(line)));
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

/// Lines of several instances as they come.
struct Logs {
    shared: App,
    lines: SelectAll<BoxStream<'static, String>>,
    known: BTreeSet<InstanceId>,
}

impl Logs {
    /// Those that are not read yet; one without a log so far is looked for again.
    async fn add(&mut self, ids: Vec<InstanceId>, request: LogRequest) {
        self.known.retain(|id| ids.contains(id));
        for id in ids {
            if self.lines.len() >= LOG_INSTANCES_MAX || self.known.contains(&id) {
                continue;
            }
            match self.shared.compute.logs(&id, request).await {
                Ok(lines) => {
                    self.known.insert(id.clone());
                    self.lines.push(lines.map(move |line| text(&id, line)).boxed());
                }
                Err(ComputeError::Unknown(_)) => {}
                Err(error) => {
                    self.known.insert(id.clone());
                    self.lines.push(stream::iter([format!("{id} | ({error})\n")]).boxed());
                }
            }
        }
    }

    /// Never ends by itself.
    fn with_new_ones(self, app: AppName, query: InEnvironment, request: LogRequest) -> impl Stream<Item = String> {
        let look = tokio::time::interval(LOG_LOOK);
        stream::unfold((self, look, app, query), move |(mut logs, mut look, app, query)| async move {
            loop {
                tokio::select! {
                    Some(line) = logs.lines.next(), if !logs.lines.is_empty() => {
                        return Some((line, (logs, look, app, query)));
                    }
                    _ = look.tick() => {
                        let ids = instances(&logs.shared, &app, &query, None).unwrap_or_default();
                        logs.add(ids, request).await;
                    }
                }
            }
        })
    }
}

fn text(id: &InstanceId, line: Result<LogLine, ComputeError>) -> String {
    match line {
        Ok(line) => format!("{id} | {}\n", line.text),
        Err(error) => format!("{id} | ({error})\n"),
    }
}

/// Where a value or route comes from that the environment no longer wants.
const TAKEN_BACK: &str = "environment (goes with the next deployment)";

/// One value and where it comes from.
#[derive(Debug, Serialize)]
pub(super) struct ValueView {
    key: String,
    value: String,
    /// `environment`, `app file`, `environment (not deployed)`, or [`TAKEN_BACK`].
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
    let taken_back = |key: &String| live.is_some_and(|live| live.overlay.values.contains(key));
    views.extend(from_file.map(|(key, value)| ValueView {
        key: key.clone(),
        value: value.clone(),
        origin: if taken_back(key) { TAKEN_BACK } else { "app file" }.to_owned(),
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
        let origin = |route| match (overlay.contains(route), record.overlay.routes.contains(route)) {
            (true, _) => "environment",
            (false, true) => TAKEN_BACK,
            (false, false) => "app file",
        };
        let absent =
            overlay.iter().filter(|route| !deployed.contains(route)).map(|r| (r, "environment (not deployed)"));
        views.extend(deployed.iter().map(|route| (route, origin(route))).chain(absent).map(|(route, origin)| {
            RouteView {
                environment: environment.clone(),
                app: app.clone(),
                route: route.shown(),
                origin: origin.to_owned(),
            }
        }));
    }
    Json(views)
}

#[derive(Debug, Deserialize)]
pub(super) struct TestQuery {
    url: String,
    #[serde(default)]
    method: Option<String>,
    /// Lines of a head, each `Name: value`.
    #[serde(default)]
    headers: Option<String>,
}

/// Asks an lb which rule and which instances a URL would get, without sending it.
pub(super) async fn test_route(State(shared): State<App>, Query(query): Query<TestQuery>) -> Answer<RouteTest> {
    let bad =
        || Problem::new(400, "bad-url", format!("\"{}\" is no URL: use http://host/path", query.url.escape_debug()));
    let url = Url::parse(&query.url).map_err(|_| bad())?;
    let host = url.host_str().ok_or_else(bad)?;
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let client = kit::client::Client::new(&shared.config.lb_admin, None);
    let mut path = Url::parse("http://lb/v1/route").expect("a well-formed URL");
    path.query_pairs_mut().append_pair("host", host).append_pair("path", &target);
    for (name, value) in [("method", &query.method), ("headers", &query.headers)] {
        if let Some(value) = value {
            path.query_pairs_mut().append_pair(name, value);
        }
    }
    let path = format!("{}?{}", path.path(), path.query().unwrap_or_default());
    let request = client.request(reqwest::Method::GET, &path).timeout(std::time::Duration::from_secs(5));
    let answer = match client.send(request).await {
        Ok(response) => client.json(response).await.map_err(|error| Problem::unexpected(&error))?,
        Err(kit::client::ClientError::Refused(problem)) => return Err(problem),
        Err(error) => return Err(Problem::new(503, "lb-unreachable", "lb does not answer").detail(error.to_string())),
    };
    Ok(Json(answer))
}
