//! Deployments: start, look, cancel.

use appbase_core::{DeploymentId, SectionKey};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use controller_core::v1::api::{DeployAnswer, DeployRequest, DeploymentView, RollbackRequest};
use controller_core::v1::state::DeploymentKind;
use kit::problem::Problem;

use super::{Answer, App, InEnvironment, app_name, unknown_app};
use crate::access::Caller;
use crate::deploy::{self, Target, Wanted};
use crate::records::lock;
use crate::views;

/// Longest idempotency key.
const KEY_BYTES_MAX: usize = 128;

pub(super) async fn deploy(
    State(shared): State<App>,
    Extension(caller): Extension<Caller>,
    Path(app): Path<String>,
    Query(query): Query<InEnvironment>,
    headers: HeaderMap,
    Json(request): Json<DeployRequest>,
) -> Result<(StatusCode, Json<DeployAnswer>), Problem> {
    let wanted = Wanted {
        environment: query.environment,
        app: app_name(&app)?,
        target: Target::Version(request.version),
        kind: DeploymentKind::Deploy,
        author: caller.name,
        supersede: request.supersede,
        stage: request.stage,
        idempotency_key: idempotency_key(&headers)?,
    };
    answered(deploy::deploy(&shared, wanted).await?)
}

pub(super) async fn rollback(
    State(shared): State<App>,
    Extension(caller): Extension<Caller>,
    Path(app): Path<String>,
    Query(query): Query<InEnvironment>,
    headers: HeaderMap,
    Json(request): Json<RollbackRequest>,
) -> Result<(StatusCode, Json<DeployAnswer>), Problem> {
    let app = app_name(&app)?;
    let key = SectionKey::app(&query.environment, &app);
    let target = {
        let records = lock(&shared.records);
        if !records.runs.contains_key(&key) {
            return Err(unknown_app(&app, &query.environment));
        }
        request.to.or_else(|| deploy::rollback_target(&records, &key))
    };
    let release = target.ok_or_else(|| {
        Problem::new(
            409,
            "nothing-before",
            format!("{app} was never live with another release in {}", query.environment),
        )
    })?;
    let wanted = Wanted {
        environment: query.environment,
        app,
        target: Target::Release(release),
        kind: DeploymentKind::Rollback,
        author: caller.name,
        supersede: false,
        stage: false,
        idempotency_key: idempotency_key(&headers)?,
    };
    answered(deploy::deploy(&shared, wanted).await?)
}

/// Makes the staged release live.
pub(super) async fn activate(
    State(shared): State<App>,
    Extension(caller): Extension<Caller>,
    Path(app): Path<String>,
    Query(query): Query<InEnvironment>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<DeployAnswer>), Problem> {
    let wanted = Wanted {
        environment: query.environment,
        target: Target::Staged,
        app: app_name(&app)?,
        kind: DeploymentKind::Activate,
        author: caller.name,
        supersede: false,
        stage: false,
        idempotency_key: idempotency_key(&headers)?,
    };
    answered(deploy::deploy(&shared, wanted).await?)
}

/// Gives the staged release up.
pub(super) async fn unstage(
    State(shared): State<App>,
    Path(app): Path<String>,
    Query(query): Query<InEnvironment>,
) -> Result<StatusCode, Problem> {
    let app = app_name(&app)?;
    deploy::unstage(&shared, &SectionKey::app(&query.environment, &app), &app).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn answered(answer: DeployAnswer) -> Result<(StatusCode, Json<DeployAnswer>), Problem> {
    let status = if answer.deployment.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(answer)))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(text) if !text.is_empty() && text.len() <= KEY_BYTES_MAX => Ok(Some(text.to_owned())),
        _ => Err(Problem::new(400, "bad-idempotency-key", "an idempotency key is 1 to 128 plain characters")),
    }
}

pub(super) async fn show(State(shared): State<App>, Path(id): Path<String>) -> Answer<DeploymentView> {
    let records = lock(&shared.records);
    let deployment = DeploymentId::parse(&id).ok().and_then(|id| records.deployments.get(&id));
    let deployment =
        deployment.ok_or_else(|| Problem::new(404, "unknown-deployment", "there is no such deployment"))?;
    Ok(Json(views::deployment(&shared, &records, deployment)))
}

pub(super) async fn cancel(State(shared): State<App>, Path(id): Path<String>) -> Answer<DeploymentView> {
    let known =
        DeploymentId::parse(&id).map_err(|_| Problem::new(404, "unknown-deployment", "there is no such deployment"))?;
    deploy::cancel(&shared, &known).await?;
    show(State(shared), Path(id)).await
}
