//! OpenAI's API, for the programs that speak it.

use axum::Router;
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use velatura::image::{Image, Mask};

use crate::app::{self, App, Json, Shared, blocking, unreadable};
use crate::links::{LIFETIME, picture_path};
use crate::problem::Problem;
use crate::store::{State as JobState, now};
use crate::wire_openai::{self as wire, Body, Format};

type Answer = Result<axum::Json<Value>, Wrong>;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/v1/images/generations", post(generations))
        .route("/v1/images/edits", post(edits))
        .route("/v1/models", get(models))
        .route("/v1/models/{name}", get(model))
}

/// A problem in OpenAI's shape.
struct Wrong(Problem);

impl From<Problem> for Wrong {
    fn from(problem: Problem) -> Wrong {
        Wrong(problem)
    }
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        let Wrong(problem) = self;
        let mut problem = problem.renamed(wire::NAMES);
        if problem.status == 422 {
            // OpenAI says 400 to what cannot be.
            problem.status = 400;
        }
        problem.with_body(wire::error(&problem))
    }
}

async fn models(State(app): State<App>) -> axum::Json<Value> {
    axum::Json(json!({"object": "list", "data": [wire::model(&app.model.name())]}))
}

async fn model(
    State(app): State<App>,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Answer {
    if name != app.model.name() {
        return Err(Problem::not_found(format!("model {name:?}")).into());
    }
    Ok(axum::Json(wire::model(&name)))
}

async fn generations(
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<Json<Body>, Problem>,
) -> Answer {
    let (wish, format) = body?.value.wish(&app.model.name())?;
    let id = blocking(&app, |app| Ok(app.submit(wish, None)?.0)).await?;
    Ok(finished(app, id, format, &headers).await?)
}

async fn edits(State(app): State<App>, headers: HeaderMap, request: Request) -> Answer {
    let parts = Multipart::from_request(request, &app)
        .await
        .map_err(|error| unreadable(error.status(), &error.body_text(), &app))?;
    let Form {
        fields,
        image,
        mask,
    } = form(parts, &app).await?;
    let (id, format) = blocking(&app, move |app| {
        let body = serde_path_to_error::deserialize(Value::Object(fields))
            .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
        let (mut wish, format) = Body::wish(body, &app.model.name())?;
        let image = image.ok_or_else(|| Problem::field("image", "a picture file", "none"))?;
        wish.request.init =
            Some(Image::from_bytes(&image).map_err(|error| app::not_a_picture("image", &error))?);
        // What is transparent is painted anew: in the mask, or without one in the picture itself.
        let (field, bytes) = match &mask {
            Some(mask) => ("mask", mask),
            None => ("image", &image),
        };
        let holes =
            Mask::from_transparency(bytes).map_err(|error| app::not_a_picture(field, &error))?;
        let any = holes.painted().contains(&true);
        if mask.is_some() && !any {
            let expected = "a picture with transparent parts, which are painted anew";
            return Err(Problem::field("mask", expected, "one without"));
        }
        wish.request.mask = any.then_some(holes);
        Ok((app.submit(wish, None)?.0, format))
    })
    .await?;
    Ok(finished(app, id, format, &headers).await?)
}

/// A form of several parts.
struct Form {
    fields: Map<String, Value>,
    image: Option<Vec<u8>>,
    mask: Option<Vec<u8>>,
}

async fn form(mut parts: Multipart, app: &App) -> Result<Form, Problem> {
    let mut form = Form {
        fields: Map::new(),
        image: None,
        mask: None,
    };
    let broken = |error: axum::extract::multipart::MultipartError| {
        unreadable(error.status(), &error.body_text(), app)
    };
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        let name = part.name().unwrap_or_default().to_string();
        let slot = match name.as_str() {
            "image" | "image[]" => &mut form.image,
            "mask" => &mut form.mask,
            _ => {
                let text = part.text().await.map_err(broken)?;
                let number = ["n", "partial_images", "output_compression"].contains(&name.as_str());
                let value = match text.parse::<u64>() {
                    Ok(value) if number => json!(value),
                    _ if name == "stream" => json!(text == "true"),
                    _ => json!(text),
                };
                form.fields.insert(name, value);
                continue;
            }
        };
        if slot.is_some() {
            return Err(Problem::field(&name, "one picture", "several"));
        }
        *slot = Some(part.bytes().await.map_err(broken)?.to_vec());
    }
    Ok(form)
}

/// Waits for a job and hands out its pictures.
async fn finished(
    app: App,
    id: Uuid,
    format: Format,
    headers: &HeaderMap,
) -> Result<axum::Json<Value>, Problem> {
    app.jobs.wait(id).await?;
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let scheme = headers
        .get("x-forwarded-proto")
        .and_then(|scheme| scheme.to_str().ok());
    let base = format!(
        "{}://{}",
        if scheme == Some("https") {
            "https"
        } else {
            "http"
        },
        host.unwrap_or("localhost")
    );
    blocking(&app, move |app: &Shared| {
        let job = app.jobs.view(id)?.job;
        match job.state {
            JobState::Failed => return Err(Problem::internal(job.error.unwrap_or_default())),
            JobState::Cancelled => {
                return Err(Problem::new(
                    StatusCode::CONFLICT,
                    format!("job {id} was cancelled"),
                ));
            }
            _ => {}
        }
        let images = job
            .pictures
            .iter()
            .map(|&(number, _)| {
                let path = if app.guard.needs_key() {
                    app.links.sign(id, number, now() / 1000 + LIFETIME)
                } else {
                    picture_path(id, number)
                };
                wire::image(format, format!("{base}{path}"), || {
                    Ok(BASE64.encode(app.jobs.picture(id, number)?))
                })
            })
            .collect::<Result<Vec<Value>, Problem>>()?;
        Ok(axum::Json(
            json!({"created": job.created / 1000, "data": images}),
        ))
    })
    .await
}
