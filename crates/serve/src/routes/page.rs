//! The page: files that are compiled into the program.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::app::App;

/// Nothing from elsewhere, and nothing that came with a prompt is ever run.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Path, type and content of each file.
const FILES: &[(&str, &str, &str)] = &[
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("../page/index.html"),
    ),
    (
        "/style.css",
        "text/css; charset=utf-8",
        include_str!("../page/style.css"),
    ),
    (
        "/app.js",
        "text/javascript; charset=utf-8",
        include_str!("../page/app.js"),
    ),
    (
        "/api.js",
        "text/javascript; charset=utf-8",
        include_str!("../page/api.js"),
    ),
    (
        "/form.js",
        "text/javascript; charset=utf-8",
        include_str!("../page/form.js"),
    ),
    (
        "/gallery.js",
        "text/javascript; charset=utf-8",
        include_str!("../page/gallery.js"),
    ),
    (
        "/paint.js",
        "text/javascript; charset=utf-8",
        include_str!("../page/paint.js"),
    ),
    (
        "/recipe.js",
        "text/javascript; charset=utf-8",
        include_str!("../page/recipe.js"),
    ),
    (
        "/icon.svg",
        "image/svg+xml",
        include_str!("../page/icon.svg"),
    ),
    (
        "/docs",
        "text/html; charset=utf-8",
        include_str!("../page/docs.html"),
    ),
    (
        "/docs.js",
        "text/javascript; charset=utf-8",
        include_str!("../page/docs.js"),
    ),
];

/// Whether `path` is a file of the page, which holds nothing that would need a key.
pub(crate) fn is_file(path: &str) -> bool {
    path == "/openapi.json" || FILES.iter().any(|file| file.0 == path)
}

pub(super) fn router() -> Router<App> {
    let router = Router::new().route("/openapi.json", get(openapi));
    FILES.iter().fold(router, |router, &(path, kind, content)| {
        router.route(path, get(move || async move { file(kind, content) }))
    })
}

fn file(kind: &'static str, content: &'static str) -> Response {
    let mut response = content.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    // The next version of the program has other files under the same names.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

async fn openapi(State(app): State<App>) -> Response {
    let document = app.openapi.get().cloned().unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}
