//! What all handlers share, and how they read what clients send.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use uuid::Uuid;
use velatura::image::{Image, Mask};
use velatura::pipeline::{Model, Pipeline};

use crate::guard::Guard;
use crate::jobs::Jobs;
use crate::links::Links;
use crate::order::Wish;
use crate::problem::Problem;
use crate::settings::Limits;
use crate::store::Key;

/// A client that takes longer to send its request is let go, in seconds.
const BODY_SECONDS: u64 = 60;

/// What all handlers share.
pub struct Shared {
    /// The queue.
    pub jobs: Arc<Jobs>,
    /// The model's configs.
    pub model: Model,
    /// The model, as soon as it has been loaded.
    pub pipeline: OnceLock<Arc<Pipeline>>,
    /// What a request may ask for.
    pub limits: Limits,
    /// Who may ask.
    pub(crate) guard: Guard,
    /// Signed links to pictures.
    pub(crate) links: Links,
    /// One permit for each client that follows events.
    pub(crate) followers: Arc<Semaphore>,
    /// The OpenAPI document, in JSON.
    pub(crate) openapi: OnceLock<String>,
}

/// A handle on it.
pub type App = Arc<Shared>;

impl Shared {
    /// The loaded model.
    ///
    /// # Errors
    /// 503 while it is being loaded.
    pub fn pipeline(&self) -> Result<&Arc<Pipeline>, Problem> {
        self.pipeline
            .get()
            .ok_or_else(|| Problem::unavailable("the model is being loaded", 2))
    }

    /// Makes a wish an accepted job; true when it is new. Blocks: scales pictures and waits for the disk.
    ///
    /// # Errors
    /// As [`Wish::order`] and [`Jobs::submit`].
    pub fn submit(&self, wish: Wish, key: Option<Key>) -> Result<(Uuid, bool), Problem> {
        let (order, attachments) = wish.order(&self.model, &self.limits)?;
        self.jobs.submit(order, attachments, key)
    }
}

/// Runs what waits for the disk or for the processor beside the event loop.
///
/// # Errors
/// The work's own, and 500 when it panics.
pub async fn blocking<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Shared) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let app = app.clone();
    match tokio::task::spawn_blocking(move || work(&app)).await {
        Ok(result) => result,
        Err(error) => Err(Problem::internal(error)),
    }
}

/// A JSON body and its bytes.
pub struct Json<T> {
    /// What it says.
    pub value: T,
    /// How it was spelled.
    pub bytes: Bytes,
}

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
        // A browser sends this type to other origins only after asking; forms and plain text it sends at once.
        let kind = kind.split(';').next().unwrap_or("").trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            let detail = format!("Content-Type: expected application/json, found {kind:?}");
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let bytes = body(request, app).await?;
        let value = parse(&bytes)?;
        Ok(Json { value, bytes })
    }
}

/// The whole body of a request.
///
/// # Errors
/// 413 when it is too large, 400 when it is cut short, 408 when it takes too long.
pub async fn body(request: Request, app: &App) -> Result<Bytes, Problem> {
    let read = Bytes::from_request(request, app);
    match tokio::time::timeout(Duration::from_secs(BODY_SECONDS), read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) => Err(unreadable(rejection.status(), &rejection.body_text(), app)),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {BODY_SECONDS} seconds"),
        )),
    }
}

/// Why a body could not be read.
pub(crate) fn unreadable(status: StatusCode, why: &str, app: &App) -> Problem {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        let most = app.limits.body_bytes;
        return Problem::new(
            status,
            format!("the body is larger than {most} bytes, the most that is read"),
        );
    }
    Problem::new(
        StatusCode::BAD_REQUEST,
        format!("the body cannot be read: {why}"),
    )
}

/// Reads JSON.
///
/// # Errors
/// 400 when it is none, 422 with the field when a value is not what it should be.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if !inner.is_data() {
            let detail = format!("the body is not JSON: {inner}");
            return Problem::new(StatusCode::BAD_REQUEST, detail);
        }
        let mut problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, inner.to_string());
        if path != "." && path != "?" {
            problem.detail = format!("{path}: {inner}");
            problem.field = Some(path);
        }
        problem
    })?;
    match reader.end() {
        Ok(()) => Ok(value),
        Err(error) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format!("the body is not JSON: {error}"),
        )),
    }
}

/// The bytes of a file that came as base64 or as a data URL.
///
/// # Errors
/// 422.
pub fn decode_base64(field: &str, text: &str) -> Result<Vec<u8>, Problem> {
    let data = match text.strip_prefix("data:") {
        Some(url) => url.split_once(";base64,").map_or("", |(_, data)| data),
        None => text,
    };
    let data: String = data.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = BASE64.decode(data).unwrap_or_default();
    if bytes.is_empty() {
        let expected = "a picture file in base64, or a data URL of one";
        return Err(Problem::field(field, expected, "something else"));
    }
    Ok(bytes)
}

/// A picture that came as base64.
///
/// # Errors
/// 422 when it is no picture.
pub fn picture(field: &str, text: &str) -> Result<Image, Problem> {
    let bytes = decode_base64(field, text)?;
    Image::from_bytes(&bytes).map_err(|error| not_a_picture(field, &error))
}

/// A mask that came as base64.
///
/// # Errors
/// 422 when it is no picture.
pub fn mask(field: &str, text: &str) -> Result<Mask, Problem> {
    let bytes = decode_base64(field, text)?;
    Mask::from_bytes(&bytes).map_err(|error| not_a_picture(field, &error))
}

/// Blames `field` for what the decoder says.
pub fn not_a_picture(field: &str, error: &velatura::Error) -> Problem {
    Problem {
        field: Some(field.to_string()),
        ..Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("{field}: {error}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Body {
        steps: Option<usize>,
    }

    #[test]
    fn a_wrong_body_says_what_is_wrong_with_it() {
        let problem = |body: &str| parse::<Body>(body.as_bytes()).unwrap_err();
        let wrong = problem(r#"{"steps": "many"}"#);
        assert_eq!((wrong.status, wrong.field.as_deref()), (422, Some("steps")));
        assert!(wrong.detail.contains("many"), "{}", wrong.detail);
        let unknown = problem(r#"{"stepz": 3}"#);
        assert!(unknown.status == 422 && unknown.detail.contains("stepz"));
        for broken in ["", "{", "[1", r#"{"steps": 3} x"#, "\u{0}"] {
            assert_eq!(problem(broken).status, 400, "{broken:?}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(problem(&deep).status, 422);
    }

    #[test]
    fn pictures_come_as_base64_or_data_urls() {
        let png = Image::new(1, 1, vec![1, 2, 3]).encode_png(&[]).unwrap();
        let text = BASE64.encode(&png);
        for text in [text.clone(), format!("data:image/png;base64,{text}")] {
            assert_eq!(picture("init", &text).unwrap().pixels(), [1, 2, 3]);
        }
        for text in ["", "data:", "*", "data:image/png,abc"] {
            assert_eq!(picture("init", text).unwrap_err().field.unwrap(), "init");
        }
        let problem = picture("init", &BASE64.encode("no picture")).unwrap_err();
        assert!(
            problem.detail.starts_with("init: expected a PNG"),
            "{}",
            problem.detail
        );
    }
}
