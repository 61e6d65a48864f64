//! The API: requests in, views out. One file per noun; errors are problems.

mod apps;
mod certificates;
mod changes;
mod deployments;
mod events;
mod members;
mod tokens;

use std::sync::Arc;

use appbase_core::{AppName, EnvironmentName};
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router, middleware};
use controller_core::v1::api::{ControllerInfo, PlanView, PlatformStatus};
use kit::admin::Admin;
use kit::problem::Problem;
use serde::Deserialize;

use crate::access::guard;
use crate::run::Shared;
use crate::views;

/// Bodies of requests are documents, never files.
const BODY_BYTES_MAX: usize = 2 << 20;
/// A status has up to 2 KiB for each instance of a table.
const STATUS_BYTES_MAX: usize = 32 << 20;

pub(crate) type App = Arc<Shared>;
pub(crate) type Answer<T> = Result<Json<T>, Problem>;

pub(crate) fn router(shared: App) -> Router {
    let admin: Arc<dyn Admin> = Arc::new(Ready(Arc::clone(&shared)));
    Router::new()
        .route("/v1", get(info))
        .route("/v1/status", get(status))
        .route("/v1/plan", get(plan))
        .route("/v1/apps/{app}", get(apps::show))
        .route("/v1/apps/{app}/deployments", post(deployments::deploy))
        .route("/v1/apps/{app}/rollback", post(deployments::rollback))
        .route("/v1/apps/{app}/activate", post(deployments::activate))
        .route("/v1/apps/{app}/staged", delete(deployments::unstage))
        .route("/v1/apps/{app}/history", get(apps::history))
        .route("/v1/apps/{app}/logs", get(apps::logs))
        .route("/v1/apps/{app}/config", get(apps::config))
        .route("/v1/deployments/{id}", get(deployments::show))
        .route("/v1/deployments/{id}/cancel", post(deployments::cancel))
        .route("/v1/events", get(events::list))
        .route("/v1/change-sets", post(changes::apply).get(changes::list))
        .route("/v1/routes", get(apps::routes))
        .route("/v1/routes/test", get(apps::test_route))
        .route("/v1/traffic", get(members::traffic))
        .route("/v1/members/{id}/table", get(members::table))
        .route("/v1/members/{id}/status", put(members::status).layer(DefaultBodyLimit::max(STATUS_BYTES_MAX)))
        .route("/v1/members/{id}", delete(members::forget))
        .route("/v1/tokens", post(tokens::create).get(tokens::list))
        .route("/v1/tokens/{id}", delete(tokens::revoke))
        .route("/v1/certificates", post(certificates::add).get(certificates::list))
        .route("/v1/certificates/{id}", delete(certificates::remove))
        .route("/v1/authority", get(certificates::authority))
        .route("/v1/repository-access", post(tokens::repository))
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
        .merge(kit::admin::router(admin))
}

async fn info(State(shared): State<App>) -> Json<ControllerInfo> {
    Json(views::info(&shared))
}

async fn status(State(shared): State<App>) -> Json<PlatformStatus> {
    Json(views::platform(&shared))
}

async fn plan(State(shared): State<App>) -> Json<PlanView> {
    Json(views::plan(&shared))
}

async fn unknown() -> Problem {
    Problem::new(404, "unknown-path", "there is nothing at this path")
}

/// `?environment=`; the default one when absent.
#[derive(Debug, Deserialize)]
pub(crate) struct InEnvironment {
    #[serde(default = "EnvironmentName::default_name")]
    pub environment: EnvironmentName,
}

pub(crate) fn app_name(text: &str) -> Result<AppName, Problem> {
    AppName::parse(text).map_err(|error| Problem::new(400, "bad-name", error.to_string()))
}

pub(crate) fn unknown_app(app: &AppName, environment: &EnvironmentName) -> Problem {
    Problem::new(404, "unknown-app", format!("there is no app {app} in {environment}"))
        .hint("see which there are: platformctl status")
}

struct Ready(App);

impl Admin for Ready {
    fn ready(&self) -> Result<(), String> {
        if self.0.tables.generation().number == 0 {
            return Err("the first table is not out yet".to_owned());
        }
        Ok(())
    }

    fn metrics(&self) -> String {
        let generation = self.0.tables.generation();
        let records = crate::records::lock(&self.0.records);
        let running = records.deployments.values().filter(|deployment| deployment.end.is_none()).count();
        format!(
            "# TYPE platform_controller_generation gauge\nplatform_controller_generation {}\n\
             # TYPE platform_controller_apps gauge\nplatform_controller_apps {}\n\
             # TYPE platform_controller_deployments_running gauge\nplatform_controller_deployments_running {running}\n",
            generation.number,
            records.runs.len(),
        )
    }
}
