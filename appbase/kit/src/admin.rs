//! The admin endpoint of every daemon: `/livez`, `/readyz`, `/metrics`, and the health check that asks it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

/// What a daemon says of itself. Cheap to call: it is asked every few seconds.
pub trait Admin: Send + Sync + 'static {
    /// Ok when it can do its work; otherwise why not, in one line.
    fn ready(&self) -> Result<(), String>;
    /// Prometheus text format.
    fn metrics(&self) -> String;
}

/// `/livez` answers as long as the process does, `/readyz` 503 with the reason while not ready.
pub fn router(admin: Arc<dyn Admin>) -> Router {
    let ready = Arc::clone(&admin);
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                match ready.ready() {
                    Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
                    Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
                }
            }),
        )
        .route(
            "/metrics",
            get(move || async move {
                ([(axum::http::header::CONTENT_TYPE, "text/plain; version=0.0.4")], admin.metrics())
            }),
        )
}

/// What the `healthcheck` subcommand of a daemon does: asks its own `/livez`, within 3 seconds. Not `/readyz`: lb and dns
/// are ready with their first table, which the controller publishes, which starts after them.
pub async fn healthcheck(address: SocketAddr) -> Result<(), String> {
    let ip = if address.ip().is_unspecified() { std::net::Ipv4Addr::LOCALHOST.into() } else { address.ip() };
    let url = format!("http://{}/livez", SocketAddr::new(ip, address.port()));
    let request = reqwest::Client::new().get(&url).timeout(Duration::from_secs(3)).send();
    let answer = request.await.map_err(|error| crate::problem::chain(&error))?;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(answer.text().await.unwrap_or_default().trim().to_owned())
}
