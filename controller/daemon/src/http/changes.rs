//! Change sets: the only writers of what is wanted.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use appbase_core::{AppName, EnvironmentName, ProcessName, SectionKey};
use axum::extract::{Query, State};
use axum::{Extension, Json};
use controller_core::desired::{CHANGE_SET_BYTES_MAX, OPERATIONS_MAX};
use controller_core::render::live_release;
use controller_core::v1::api::{ChangeSetAnswer, ChangeSetRequest, DeployAnswer, OperationResult};
use controller_core::v1::state::{ChangeSet, DeploymentKind, Desired, DesiredApp, EventKind, Operation};
use kit::problem::Problem;
use serde::Deserialize;

use super::{Answer, App};
use crate::access::Caller;
use crate::deploy::{self, Target, Wanted};
use crate::journal::About;
use crate::records::{Records, Write, lock};

#[derive(Debug, Deserialize)]
pub(super) struct ChangeQuery {
    /// Deploy the live version again with the new values and routes.
    #[serde(default)]
    deploy: bool,
    /// Seconds to wait until the members that can be reached act by it.
    #[serde(default)]
    wait: u64,
}

/// A change that is not in force after this time waits for something that lasts.
const WAIT_MAX: u64 = 30;

pub(super) async fn apply(
    State(shared): State<App>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ChangeQuery>,
    Json(request): Json<ChangeSetRequest>,
) -> Answer<ChangeSetAnswer> {
    check_size(&request)?;
    if query.deploy {
        // What cannot be deployed now is not stored either: a refusal changes nothing.
        let records = lock(&shared.records);
        let key = |(environment, app)| SectionKey::app(&environment, &app);
        if let Some(running) = touched(&request.operations).into_iter().find_map(|app| records.running(&key(app))) {
            return Err(deploy::busy(running));
        }
        let is_staged = |app: &(EnvironmentName, AppName)| records.run(&key(app.clone())).staged.is_some();
        if let Some((_, app)) = touched(&request.operations).into_iter().find(is_staged) {
            return Err(deploy::staged(&app));
        }
    }
    let number = write(&shared, &caller.name, request.operations.clone()).await?;
    shared.look_again.notify_one();
    let results = request.operations.iter().map(|operation| OperationResult {
        id: operation.id.clone(),
        result: "ok".to_owned(),
        data: serde_json::Value::Null,
        output: String::new(),
    });
    let results = results.collect();
    let mut deployment = None;
    if query.deploy {
        for (environment, app) in touched(&request.operations) {
            let answer = deploy_live(&shared, &caller.name, environment, app).await.map_err(|problem| {
                problem.hint(
                    "the change is stored and comes with the next deploy; to take it back: config unset, route rm",
                )
            })?;
            deployment = answer.and_then(|answer| answer.deployment);
        }
    }
    let in_force = match query.wait.min(WAIT_MAX) {
        0 => None,
        seconds => Some(in_force(&shared, &request.operations, Duration::from_secs(seconds)).await),
    };
    Ok(Json(ChangeSetAnswer { number, results, deployment, in_force }))
}

/// Waits until every member that can be reached has the tables as they are for these apps now.
async fn in_force(shared: &App, operations: &[Operation], limit: Duration) -> bool {
    let apps = apps_of(operations.iter());
    let taken = |records: &Records| apps.iter().all(|(environment, app)| shared.is_in_force(records, environment, app));
    shared.until(limit, taken).await.is_some()
}

fn check_size(request: &ChangeSetRequest) -> Result<(), Problem> {
    let size = serde_json::to_vec(request).map_or(usize::MAX, |bytes| bytes.len());
    if request.operations.is_empty() {
        return Err(Problem::new(400, "empty-change-set", "a change set has at least one operation"));
    }
    if request.operations.len() > OPERATIONS_MAX || size > CHANGE_SET_BYTES_MAX {
        return Err(Problem::new(
            413,
            "change-set-too-large",
            format!("at most {OPERATIONS_MAX} operations and {CHANGE_SET_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

async fn write(shared: &App, author: &str, operations: Vec<Operation>) -> Result<u64, Problem> {
    let _pen = shared.pen.lock().await;
    let (change, desired) = {
        let records = lock(&shared.records);
        let (number, unix_ms) = (records.head + 1, shared.clock.unix_ms());
        let change = ChangeSet { number, unix_ms, author: author.to_owned(), operations };
        let desired =
            records.desired.apply(&change).map_err(|error| Problem::new(422, error.code, error.to_string()))?;
        refuse_senseless(&records, &change, &desired)?;
        (change, desired)
    };
    let number = change.number;
    let words: Vec<String> = change.operations.iter().map(Operation::in_words).collect();
    let mut apps = apps_of(change.operations.iter());
    shared.commit(vec![Write::Change(change, desired)]).await?;
    let text = format!("{} (change set {number}, by {author})", words.join(", "));
    let about = match (apps.pop_first(), apps.is_empty()) {
        (Some((environment, app)), true) => About { environment: Some(environment), app: Some(app), deployment: None },
        _ => About::default(),
    };
    shared.journal.write(shared.clock.unix_ms(), &about, EventKind::Changed, &text);
    // What people wait for does not wait for a look at the engine.
    if shared.decides.load(Ordering::Relaxed)
        && let Err(error) = shared.publish().await
    {
        tracing::error!(%error, "tables not published; the loop tries again");
    }
    Ok(number)
}

/// What is well-formed and could never do anything: a host of another app, a process that is not there.
fn refuse_senseless(records: &Records, change: &ChangeSet, desired: &Desired) -> Result<(), Problem> {
    for operation in &change.operations {
        let apps = apps_of(std::iter::once(operation));
        let Some((environment, app)) = apps.first() else { continue };
        let key = SectionKey::app(environment, app);
        let text = |name: &str| operation.params.get(name).and_then(serde_json::Value::as_str);
        match (operation.group.as_str(), operation.command.as_str()) {
            ("route", "add") => {
                let routes = desired.app(environment, app).map(|app| app.routes.clone()).unwrap_or_default();
                if let Some((other, route)) = records.route_conflict(&key, &routes) {
                    return Err(deploy::route_taken(&other, &route)
                        .hint("choose another host or path; who has which: platformctl route ls"));
                }
            }
            ("app", "split") => {
                let staged = records.run(&key).staged;
                let wanted = operation.params.get("release").and_then(serde_json::Value::as_u64);
                if staged.is_none() || wanted != staged {
                    return Err(deploy::nothing_staged(app));
                }
            }
            ("app", "preview") => {
                let same = |other: &DesiredApp| other.preview.is_some() && other.preview.as_deref() == text("secret");
                let all = desired.environments.values().flat_map(|apps| apps.values());
                if all.filter(|other| same(other)).count() > 1 {
                    return Err(Problem::new(409, "secret-taken", "another app has this secret: make a new one"));
                }
            }
            ("app", "scale") => {
                let live = records.runs.get(&key).and_then(live_release);
                let live = live.and_then(|live| records.releases.get(&key)?.get(&live));
                let staged = records.run(&key).staged.and_then(|staged| records.releases.get(&key)?.get(&staged));
                let process = text("process").and_then(|text| ProcessName::parse(text).ok());
                let none = operation.params.get("instances").and_then(serde_json::Value::as_u64) == Some(0);
                if let (Some(live), Some(process)) = (live, process)
                    && !none
                    && !live.release.processes.contains_key(&process)
                    && !staged.is_some_and(|staged| staged.release.processes.contains_key(&process))
                {
                    let names: Vec<_> = live.release.processes.keys().map(ToString::to_string).collect();
                    let title = format!("{app} has no process {process}");
                    return Err(Problem::new(404, "unknown-process", title)
                        .detail(format!("its live version has {}", names.join(", "))));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Apps whose values or routes were changed.
fn touched(operations: &[Operation]) -> BTreeSet<(EnvironmentName, AppName)> {
    apps_of(operations.iter().filter(|o| matches!(o.group.as_str(), "config" | "route")))
}

fn apps_of<'a>(operations: impl Iterator<Item = &'a Operation>) -> BTreeSet<(EnvironmentName, AppName)> {
    let of = |operation: &Operation| {
        let text = |key: &str| operation.params.get(key).and_then(serde_json::Value::as_str);
        let environment = text("environment")
            .map_or_else(|| Some(EnvironmentName::default_name()), |t| EnvironmentName::parse(t).ok());
        Some((environment?, AppName::parse(text("app")?).ok()?))
    };
    operations.filter_map(of).collect()
}

async fn deploy_live(
    shared: &App,
    author: &str,
    environment: EnvironmentName,
    app: AppName,
) -> Result<Option<DeployAnswer>, Problem> {
    let key = SectionKey::app(&environment, &app);
    let live = {
        let records = lock(&shared.records);
        let live = records.runs.get(&key).and_then(live_release);
        live.and_then(|live| records.releases.get(&key)?.get(&live)).map(|record| record.release.version.clone())
    };
    let Some(version) = live else { return Ok(None) };
    let wanted = Wanted {
        environment,
        app,
        target: Target::Version(version),
        kind: DeploymentKind::Config,
        author: author.to_owned(),
        supersede: false,
        stage: false,
        idempotency_key: None,
    };
    deploy::deploy(shared, wanted).await.map(Some)
}

#[derive(Debug, Deserialize)]
pub(super) struct LogQuery {
    #[serde(default)]
    after: u64,
}

/// Answered at once at most.
const PAGE: usize = 100;

pub(super) async fn list(State(shared): State<App>, Query(query): Query<LogQuery>) -> Answer<Vec<ChangeSet>> {
    let entries = shared.store.list("log/").await?;
    let changes = entries.iter().filter_map(|entry| serde_json::from_slice::<ChangeSet>(&entry.value).ok());
    Ok(Json(changes.filter(|change| change.number > query.after).take(PAGE).collect()))
}
