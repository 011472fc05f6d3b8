//! AUTOMATIC1111's API, for the programs that speak it. Its jobs are the native API's: they wait in the same queue, and are
//! kept as long.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::Uri;
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use velatura::image::png_text;
use velatura::metadata::{PARAMETERS_KEY, Recipe};

use crate::app::{self, App, Json, blocking, body};
use crate::metrics::resident_memory;
use crate::order::Attachments;
use crate::problem::Problem;
use crate::store::{State as JobState, now};
use crate::wire_sdapi::{self as wire, Asked};

type Answer = Result<axum::Json<Value>, Wrong>;

pub(super) fn router() -> Router<App> {
    let routes = Router::new()
        .route("/txt2img", post(txt2img))
        .route("/img2img", post(img2img))
        .route("/progress", get(progress))
        .route("/interrupt", post(interrupt))
        .route("/samplers", get(|| async { axum::Json(wire::samplers()) }))
        .route(
            "/schedulers",
            get(|| async { axum::Json(wire::schedulers()) }),
        )
        .route("/sd-models", get(sd_models))
        .route("/options", get(options).post(set_options))
        .route("/png-info", post(png_info))
        .route("/memory", get(memory))
        // There are no extensions, and clients ask for them first.
        .route(
            "/scripts",
            get(|| async { axum::Json(json!({"txt2img": [], "img2img": []})) }),
        );
    Router::new().nest("/sdapi/v1", routes)
}

/// A problem in the shape that the web UI's clients read.
struct Wrong(Problem);

impl From<Problem> for Wrong {
    fn from(problem: Problem) -> Wrong {
        Wrong(problem)
    }
}

impl axum::response::IntoResponse for Wrong {
    fn into_response(self) -> Response {
        let Wrong(problem) = self;
        problem.with_body(json!({
            "error": problem.title,
            "detail": problem.detail,
            "body": "",
            "errors": problem.detail,
        }))
    }
}

async fn txt2img(State(app): State<App>, request: Request) -> Answer {
    paint(app, request, false).await
}

async fn img2img(State(app): State<App>, request: Request) -> Answer {
    paint(app, request, true).await
}

async fn paint(app: App, request: Request, with_picture: bool) -> Answer {
    let bytes = body(request, &app).await?;
    let (id, asked) = blocking(&app, move |app| {
        let fields: Map<String, Value> = app::parse(&bytes)?;
        let mut asked = wire::read(fields, with_picture, &app.model.name())?;
        // The web UI scales the picture to 512×512 where nobody says a size; here it keeps its own.
        let wish = std::mem::take(&mut asked.wish);
        let submitted = app.submit(wish, None);
        let (id, _) = submitted.map_err(|problem| problem.renamed(wire::NAMES))?;
        Ok((id, asked))
    })
    .await?;
    app.jobs.wait(id).await?;
    Ok(blocking(&app, move |app| {
        let view = app.jobs.view(id)?;
        if view.job.state == JobState::Failed {
            return Err(Problem::internal(view.job.error.unwrap_or_default()));
        }
        let attachments = app
            .jobs
            .store()
            .attachments(id)
            .map_err(Problem::internal)?;
        answer(app, id, &asked, &attachments)
    })
    .await?)
}

/// Every picture that was finished: all of them, or those before an interruption.
fn answer(
    app: &app::Shared,
    id: Uuid,
    asked: &Asked,
    attachments: &Attachments,
) -> Result<axum::Json<Value>, Problem> {
    let view = app.jobs.view(id)?;
    let mut images = Vec::new();
    let mut recipes = Vec::new();
    for (number, recipe) in &view.job.pictures {
        let recipe: Recipe = serde_json::from_str(recipe).map_err(Problem::internal)?;
        recipes.push(recipe);
        if asked.send_images {
            images.push(BASE64.encode(app.jobs.picture(id, *number)?));
        }
    }
    if asked.include_init_images
        && let Some(init) = &attachments.init
    {
        images.push(BASE64.encode(init));
    }
    let timestamp = view.job.created.to_string();
    Ok(axum::Json(json!({
        "images": images,
        "parameters": asked.parameters,
        "info": wire::info(&recipes, asked.batch_size, &timestamp),
    })))
}

#[derive(Deserialize)]
struct ProgressQuery {
    skip_current_image: Option<bool>,
}

async fn progress(State(app): State<App>, uri: Uri) -> Answer {
    let query = Query::<ProgressQuery>::try_from_uri(&uri).map_err(|error| {
        Problem::field("skip_current_image", "true or false", error.body_text())
    })?;
    let with_image = !query.skip_current_image.unwrap_or(false);
    Ok(blocking(&app, move |app| {
        let running = app.jobs.running().map(|id| app.jobs.view(id)).transpose()?;
        let step = running.as_ref().and_then(|view| view.live.as_ref()?.progress());
        let stopping = running.as_ref().and_then(|view| view.live.as_ref()).is_some_and(|live| live.is_cancelled());
        let preview = step.as_ref().and_then(|step| step.preview.clone());
        let image = preview.filter(|_| with_image).and_then(|url| Some(url.split_once(',')?.1.to_string()));
        Ok(axum::Json(json!({
            "progress": step.as_ref().map_or(0.0, |step| step.progress),
            "eta_relative": step.as_ref().map_or(0.0, |step| step.seconds_left),
            "state": {
                "skipped": false,
                "interrupted": stopping,
                "stopping_generation": stopping,
                "job": running.as_ref().map_or(String::new(), |view| view.job.id.to_string()),
                "job_count": app.jobs.unfinished(),
                "job_timestamp": running.as_ref().map_or(0, |view| view.job.started.unwrap_or(0)).to_string(),
                "job_no": step.as_ref().map_or(0, |step| step.picture),
                "sampling_step": step.as_ref().map_or(0, |step| step.step),
                "sampling_steps": step.as_ref().map_or(0, |step| step.steps),
            },
            "current_image": image,
            "textinfo": null,
        })))
    })
    .await?)
}

async fn interrupt(State(app): State<App>) -> Answer {
    Ok(blocking(&app, |app| {
        if let Some(id) = app.jobs.running() {
            app.jobs.cancel(id)?;
        }
        Ok(axum::Json(json!({})))
    })
    .await?)
}

/// The one model, its name and hash.
fn identity(app: &app::Shared) -> Result<(String, String), Problem> {
    let pipeline = app.pipeline()?;
    let plan = app.model.plan(&velatura::pipeline::Request {
        seed: Some(0),
        ..Default::default()
    })?;
    let model = pipeline.recipe(&plan).model;
    Ok((model.name, model.hash))
}

async fn sd_models(State(app): State<App>) -> Answer {
    Ok(blocking(&app, |app| {
        let (name, hash) = identity(app)?;
        Ok(axum::Json(json!([{
            "title": format!("{name} [{hash}]"),
            "model_name": name,
            "hash": hash,
            "sha256": null,
            // Where it lies is nobody's business.
            "filename": name,
            "config": null,
        }])))
    })
    .await?)
}

async fn options(State(app): State<App>) -> Answer {
    Ok(blocking(&app, |app| {
        let (name, hash) = identity(app)?;
        Ok(axum::Json(json!({
            "sd_model_checkpoint": format!("{name} [{hash}]"),
            "sd_checkpoint_hash": hash,
            "sd_vae": "Automatic",
            "CLIP_stop_at_last_layers": 1,
            "samples_format": "png",
            "enable_pnginfo": true,
            "eta_noise_seed_delta": 0,
        })))
    })
    .await?)
}

async fn set_options(
    State(app): State<App>,
    settings: Result<Json<Map<String, Value>>, Problem>,
) -> Answer {
    wire::check_settings(&settings?.value, &app.model.name(), "")?;
    Ok(axum::Json(Value::Null))
}

#[derive(Deserialize)]
struct PngInfo {
    image: String,
}

async fn png_info(State(app): State<App>, request: Request) -> Answer {
    let bytes: Bytes = body(request, &app).await?;
    Ok(blocking(&app, move |_| {
        let PngInfo { image } = app::parse(&bytes)?;
        let bytes = app::decode_base64("image", &image)?;
        let chunks = png_text(&bytes).map_err(|error| app::not_a_picture("image", &error))?;
        let text = chunks.iter().find(|(key, _)| key == PARAMETERS_KEY);
        let text = text.map_or("", |(_, text)| text);
        let items: Map<String, Value> = chunks
            .iter()
            .map(|(key, text)| (key.clone(), json!(text)))
            .collect();
        let parameters = if text.is_empty() {
            Map::new()
        } else {
            wire::items(text)
        };
        Ok(axum::Json(
            json!({"info": text, "items": items, "parameters": parameters}),
        ))
    })
    .await?)
}

async fn memory() -> axum::Json<Value> {
    let pairs = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bytes = |name: &str| {
        let line = pairs.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes: Option<i64> =
            line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
        kibibytes.map(|kibibytes| kibibytes * 1024)
    };
    axum::Json(json!({
        "ram": {"free": bytes("MemAvailable:"), "used": resident_memory(), "total": bytes("MemTotal:")},
        "cuda": {"error": "there is no graphics processor in use"},
        "time": now(),
    }))
}
