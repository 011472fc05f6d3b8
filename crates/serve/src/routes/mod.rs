//! The routes, and what is done around every request.

mod jobs;
mod openai;
mod operations;
pub(crate) mod page;
mod sdapi;

use std::any::Any;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use tracing::Instrument;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::guard::guard;
use crate::problem::Problem;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Velatura",
        description = "Pictures from text with Stable Diffusion. Jobs are durable: accepted means kept. Errors are \
                       problem documents (RFC 9457).",
    ),
    tags(
        (name = "jobs", description = "Submit, follow, list and cancel"),
        (name = "operations", description = "For those who run the server"),
    ),
    security(("key" = [])),
    modifiers(&Key),
)]
struct Document;

/// How a client presents its key.
struct Key;

impl utoipa::Modify for Key {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("key", scheme);
    }
}

/// All routes, ready to be served.
pub(crate) fn router(app: App, cors: CorsLayer) -> Router {
    let (native, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(jobs::submit, jobs::list))
        .routes(routes!(jobs::get, jobs::forget))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::events))
        .routes(routes!(jobs::picture))
        .routes(routes!(jobs::model))
        .routes(routes!(operations::healthz))
        .routes(routes!(operations::readyz))
        .routes(routes!(operations::metrics))
        .split_for_parts();
    let _ = app.openapi.set(document.to_json().unwrap_or_default());
    Router::new()
        .merge(native)
        .merge(page::router())
        .merge(sdapi::router())
        .merge(openai::router())
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_so)
        .layer(DefaultBodyLimit::max(app.limits.body_bytes))
        .layer(from_fn_with_state(app.clone(), guard))
        .layer(cors)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), observe))
        .with_state(app)
}

async fn nothing_here(uri: Uri) -> Problem {
    Problem::not_found(uri.path())
}

async fn not_so() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this address knows other methods; the header Allow lists them",
    )
}

/// A panic in a handler is a bug of ours; it costs this request and not the server.
fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let words = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied());
    Problem::internal(format!("a handler panicked: {}", words.unwrap_or("?"))).into_response()
}

/// Gives each request an id, which its answer and its lines in the log carry, and counts it.
async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    const ID: &str = "x-request-id";
    let start = Instant::now();
    let given = request.headers().get(ID).filter(|id| {
        let bytes = id.as_bytes();
        bytes.len() <= 64 && bytes.iter().all(u8::is_ascii_graphic)
    });
    let id = match given {
        Some(id) => id.clone(),
        None => HeaderValue::from_str(&Uuid::now_v7().to_string())
            .unwrap_or(HeaderValue::from_static("-")),
    };
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "other".to_string(), |path| path.as_str().to_string());
    let method = request.method().clone();
    let path = request.uri().path().to_string();
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or("-"));
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    let time = start.elapsed();
    app.jobs.metrics.request(&route, status, time);
    span.in_scope(|| {
        tracing::info!(%method, path, status, ms = time.as_secs_f64() * 1e3, "answered");
    });
    let headers = response.headers_mut();
    headers.insert(ID, id);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
