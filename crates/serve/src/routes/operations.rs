//! For those who run the server.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::problem::Problem;

/// Whether the process lives
#[utoipa::path(get, path = "/healthz", tag = "operations", security(()), responses((status = 200, body = str)))]
pub async fn healthz() -> &'static str {
    "ok"
}

/// Whether the server takes requests: the model has been loaded, and it is not about to stop
#[utoipa::path(
    get, path = "/readyz", tag = "operations", security(()),
    responses((status = 200, body = str), (status = 503, body = Problem, content_type = "application/problem+json"))
)]
pub async fn readyz(State(app): State<App>) -> Result<&'static str, Problem> {
    app.pipeline()?;
    if app.jobs.is_stopping() {
        return Err(Problem::unavailable("the server is stopping", 10));
    }
    Ok("ready")
}

/// Figures for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, body = str)))]
pub async fn metrics(State(app): State<App>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.jobs.metrics.text()).into_response()
}
