//! The native API.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, watch};
use uuid::Uuid;

use crate::app::{App, Json, blocking};
use crate::links::picture_path;
use crate::live::{Event, Live};
use crate::problem::Problem;
use crate::store::Key;
use crate::wire::{JobBody, JobList, ListQuery, ModelBody, NAMES, SubmitBody, model_body};

/// The longest idempotency key.
const LONGEST_KEY: usize = 255;
/// Jobs on a page of the list.
const PAGE: usize = 50;
const LARGEST_PAGE: usize = 200;

/// Submit a job
///
/// Answers as soon as the job is on the disk. With an `Idempotency-Key`, the same request may be sent again without
/// making a second job: it is answered with the first one.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "jobs", request_body = SubmitBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "Any text that no other request uses")),
    responses(
        (status = 201, description = "Accepted and kept", body = JobBody),
        (status = 200, description = "The job that this key had brought before", body = JobBody),
        (status = 400, description = "Not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No key, or a wrong one", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is impossible", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The queue is full; Retry-After says when to try again", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn submit(
    State(app): State<App>,
    headers: HeaderMap,
    body: Json<SubmitBody>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers, &body.bytes)?;
    let (view, new) = blocking(&app, move |app| {
        let submitted = app.submit(body.value.wish()?, key);
        let (id, new) = submitted.map_err(|problem| problem.renamed(NAMES))?;
        Ok((app.jobs.view(id)?, new))
    })
    .await?;
    let location = format!("/v1/jobs/{}", view.job.id);
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((
        status,
        [(header::LOCATION, location)],
        axum::Json(JobBody::from(view)),
    )
        .into_response())
}

/// The key that a client gave, and what it was given with.
fn idempotency_key(headers: &HeaderMap, body: &[u8]) -> Result<Option<Key>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= LONGEST_KEY => Ok(Some(Key {
            key: key.to_string(),
            fingerprint: Sha256::digest(body).to_vec(),
        })),
        _ => Err(Problem::field(
            "Idempotency-Key",
            format!("1 to {LONGEST_KEY} plain characters"),
            format!("{} bytes", value.len()),
        )),
    }
}

/// List jobs, newest first
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs", params(ListQuery),
    responses((status = 200, body = JobList), (status = 422, body = Problem, content_type = "application/problem+json"))
)]
pub async fn list(State(app): State<App>, uri: Uri) -> Result<axum::Json<JobList>, Problem> {
    let query = Query::<ListQuery>::try_from_uri(&uri)
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.body_text()))?
        .0;
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        let expected = format!("a number from 1 to {LARGEST_PAGE}");
        return Err(Problem::field("limit", expected, limit));
    }
    let before = match query.before {
        Some(id) => Some(
            Uuid::parse_str(&id).map_err(|_| Problem::field("before", "the id of a job", &id))?,
        ),
        None => None,
    };
    let jobs = blocking(&app, move |app| app.jobs.list(limit, before, query.state)).await?;
    let next = (jobs.len() == limit).then(|| jobs.last().map(|view| view.job.id.to_string()));
    Ok(axum::Json(JobList {
        jobs: jobs.into_iter().map(JobBody::from).collect(),
        next: next.flatten(),
    }))
}

/// One job
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, body = JobBody), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<axum::Json<JobBody>, Problem> {
    let id = parse_id(&id)?;
    let view = blocking(&app, move |app| app.jobs.view(id)).await?;
    Ok(axum::Json(view.into()))
}

/// Forget a job that has come to its end, and its pictures
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path)),
    responses(
        (status = 204, description = "Forgotten"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It waits or runs", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn forget(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let id = parse_id(&id)?;
    blocking(&app, move |app| app.jobs.forget(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Stop a job
///
/// One that waits stops at once, one that runs within a step. Finished pictures are kept; a job that has come to its end
/// stays as it is.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, body = JobBody), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub async fn cancel(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<axum::Json<JobBody>, Problem> {
    let id = parse_id(&id)?;
    let view = blocking(&app, move |app| {
        app.jobs.cancel(id)?;
        app.jobs.view(id)
    })
    .await?;
    Ok(axum::Json(view.into()))
}

/// The PNG file of a picture
#[utoipa::path(
    get, path = "/v1/jobs/{id}/pictures/{number}", tag = "jobs", params(("id" = String, Path), ("number" = usize, Path)),
    responses((status = 200, content_type = "image/png"), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub async fn picture(
    State(app): State<App>,
    Path((id, number)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let number: usize = number
        .parse()
        .map_err(|_| Problem::not_found(format!("picture {number:?}")))?;
    let png = blocking(&app, move |app| app.jobs.picture(id, number)).await?;
    // A finished picture never changes.
    let headers = [
        (header::CONTENT_TYPE, "image/png"),
        (
            header::CACHE_CONTROL,
            "private, max-age=31536000, immutable",
        ),
    ];
    Ok((headers, png).into_response())
}

/// The model, its defaults, and what requests may ask for
#[utoipa::path(get, path = "/v1/model", tag = "jobs", responses((status = 200, body = ModelBody)))]
pub async fn model(State(app): State<App>) -> Result<axum::Json<ModelBody>, Problem> {
    blocking(&app, model_body).await.map(axum::Json)
}

/// Follow a job
///
/// Server-sent events, from the beginning or, with `Last-Event-ID`, from where a client was: `queued`, `started`, `step`
/// (with time left and now and then a small preview), `picture`, and at the end `done`, `failed` or `cancelled`.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", tag = "jobs",
    params(("id" = String, Path), ("Last-Event-ID" = Option<usize>, Header)),
    responses(
        (status = 200, body = Event, content_type = "text/event-stream"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn events(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let last = headers.get("last-event-id").map(HeaderValue::to_str);
    let from = match last {
        Some(Ok(number)) => number
            .parse::<usize>()
            .map_or(0, |last| last.saturating_add(1)),
        _ => 0,
    };
    let permit = app
        .followers
        .clone()
        .try_acquire_owned()
        .map_err(|_| Problem {
            retry_after: Some(5),
            ..Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many clients follow events",
            )
        })?;
    let view = blocking(&app, move |app| app.jobs.view(id)).await?;
    let follower = match view.live.clone() {
        Some(live) => Follower {
            length: live.watch(),
            live: Some(live),
            pending: VecDeque::new(),
            next: from,
            stops: app.jobs.stops(),
            ended: false,
            _counted: Counted::new(&app, permit),
        },
        None => {
            // The job has come to its end: what is left to tell is what came of it.
            let job = &view.job;
            let pictures = job.pictures.iter().map(|(number, _)| Event::Picture {
                number: *number,
                seed: job.order.seeds.get(*number).copied().unwrap_or_default(),
                url: picture_path(job.id, *number),
            });
            let end = Event::end(job.state, job.error.as_deref());
            Follower {
                length: watch::channel(0).1,
                live: None,
                pending: pictures.chain(end).enumerate().collect(),
                next: 0,
                stops: app.jobs.stops(),
                ended: false,
                _counted: Counted::new(&app, permit),
            }
        }
    };
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
    let mut response = Sse::new(follow(follower))
        .keep_alive(keep_alive)
        .into_response();
    // Proxies shall pass events on at once.
    let headers = response.headers_mut();
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// One that follows a job.
struct Follower {
    live: Option<Arc<Live>>,
    length: watch::Receiver<usize>,
    /// Events that were read and not sent yet, with their numbers.
    pending: VecDeque<(usize, Event)>,
    /// The number of the next event to read.
    next: usize,
    stops: watch::Receiver<bool>,
    ended: bool,
    _counted: Counted,
}

/// A follower in the metrics, as long as it lives.
struct Counted {
    app: App,
    _permit: OwnedSemaphorePermit,
}

impl Counted {
    fn new(app: &App, permit: OwnedSemaphorePermit) -> Counted {
        app.jobs.metrics.followers.inc();
        Counted {
            app: app.clone(),
            _permit: permit,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.app.jobs.metrics.followers.dec();
    }
}

fn follow(follower: Follower) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    stream::unfold(follower, |mut follower| async move {
        let (number, event) = follower.read().await?;
        follower.ended = event.is_end();
        let data = serde_json::to_string(&event).unwrap_or_default();
        let event = sse::Event::default()
            .id(number.to_string())
            .event(event.name())
            .data(data);
        Some((Ok(event), follower))
    })
}

impl Follower {
    /// The next event; none after the last, and when the server stops.
    async fn read(&mut self) -> Option<(usize, Event)> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            let live = self.live.as_ref()?;
            let length = *self.length.borrow_and_update();
            // The numbers of an earlier run of the server may be beyond this log.
            if self.next > length {
                self.next = 0;
            }
            let events = live.since(self.next);
            if !events.is_empty() {
                self.pending = (self.next..).zip(events).collect();
                self.next += self.pending.len();
                continue;
            }
            tokio::select! {
                changed = self.length.changed() => changed.ok()?,
                _ = self.stops.wait_for(|stop| *stop) => return None,
            }
        }
    }
}

pub(super) fn parse_id(id: &str) -> Result<Uuid, Problem> {
    Uuid::parse_str(id).map_err(|_| Problem::not_found(format!("job {id:?}")))
}
