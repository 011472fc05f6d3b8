//! From settings to a running server, and to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use velatura::pipeline::{Model, Pipeline, PrecisionChoice};
use velatura_tensor::device;

use crate::app::{App, Shared};
use crate::guard::Guard;
use crate::jobs::Jobs;
use crate::links::Links;
use crate::routes;
use crate::settings::Settings;
use crate::store::{Store, StoreError};
use crate::worker::Worker;

/// How long connections may take to come to their end when the server stops. A step of a large model takes seconds.
const FAREWELL: Duration = Duration::from_secs(20);

/// Why a server could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}; choose another with --host and --port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's own words.
        source: io::Error,
    },
    /// Everyone on the network could paint.
    #[error(
        "refusing to listen on {0}, beyond this machine, without a key: name a file of keys with --api-key-file, \
         or say --no-auth if the network is to be trusted"
    )]
    NoKey(std::net::IpAddr),
    /// The job database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder for it.
    #[error("--data {}: cannot make the folder: {source}", path.display())]
    Data {
        /// The folder.
        path: std::path::PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// The model.
    #[error(transparent)]
    Model(#[from] velatura::Error),
    /// The system refused a thread or the like.
    #[error("cannot run the server: {0}")]
    System(#[from] io::Error),
}

/// Serves `model` until the process is told to end (SIGINT or SIGTERM): then the step at hand is finished, and what waits
/// is kept. `announce` is told the address as soon as the server listens; the model is loaded after that.
///
/// # Errors
/// [`ServeError`].
pub fn serve(
    settings: Settings,
    trusted: bool,
    model: Model,
    precision: PrecisionChoice,
    announce: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    if !settings.host.is_loopback() && settings.keys.is_empty() && !trusted {
        return Err(ServeError::NoKey(settings.host));
    }
    if let Some(path) = &settings.data {
        std::fs::create_dir_all(path).map_err(|source| ServeError::Data {
            path: path.clone(),
            source,
        })?;
    }
    let store = Store::open(settings.data.as_deref())?;
    let links = Links::new(store.secret("links")?);
    let jobs = Arc::new(Jobs::new(
        store,
        &settings.limits,
        settings.retention.clone(),
    )?);
    let app: App = Arc::new(Shared {
        jobs: jobs.clone(),
        model,
        pipeline: OnceLock::new(),
        limits: settings.limits.clone(),
        guard: Guard::new(&settings),
        links,
        followers: Arc::new(Semaphore::new(settings.limits.followers)),
        openapi: OnceLock::new(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(&settings, app, precision, announce));
    jobs.stop();
    // Handlers that still wait for the disk are waited for; those that hang are not.
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

async fn run(
    settings: &Settings,
    app: App,
    precision: PrecisionChoice,
    announce: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let address = SocketAddr::new(settings.host, settings.port);
    let listen = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    announce(listener.local_addr().map_err(listen)?);

    let worker = worker(app.clone(), precision)?;
    let router = routes::router(app.clone(), cors(settings));
    let (jobs, loaded) = (app.jobs.clone(), worker.loaded);
    let (told, goodbye) = tokio::sync::oneshot::channel::<Result<(), velatura::Error>>();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
        let result = tokio::select! {
            () = signal() => Ok(()),
            error = failed(loaded) => Err(error),
        };
        tracing::info!("stopping: this step is finished, and what waits is kept");
        jobs.stop();
        let _ = told.send(result);
    });
    let serving = tokio::spawn(serving.into_future());
    let result = goodbye.await.unwrap_or(Ok(()));
    if tokio::time::timeout(FAREWELL, serving).await.is_err() {
        tracing::warn!("some connections did not come to their end");
    }
    let thread = worker.thread;
    let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    Ok(result?)
}

/// The worker's thread, and what came of loading the model.
struct Running {
    thread: std::thread::JoinHandle<()>,
    loaded: tokio::sync::oneshot::Receiver<Result<(), velatura::Error>>,
}

/// Loads the model and paints, on threads of its own.
fn worker(app: App, precision: PrecisionChoice) -> io::Result<Running> {
    let (tell, loaded) = tokio::sync::oneshot::channel();
    // The worker computes where this thread does.
    let gpu = device::current();
    let work = move || match app.model.load(precision) {
        Ok(pipeline) => {
            let pipeline: Arc<Pipeline> = app.pipeline.get_or_init(|| Arc::new(pipeline)).clone();
            let _ = tell.send(Ok(()));
            tracing::info!(model = app.model.name(), "ready");
            Worker::new(app.jobs.clone(), pipeline).run();
        }
        Err(error) => {
            let _ = tell.send(Err(error));
        }
    };
    let thread = std::thread::Builder::new()
        .name("painter".to_string())
        .spawn(move || device::maybe_on(gpu.as_ref(), work))?;
    Ok(Running { thread, loaded })
}

/// Ends when the model could not be loaded.
async fn failed(
    loaded: tokio::sync::oneshot::Receiver<Result<(), velatura::Error>>,
) -> velatura::Error {
    match loaded.await {
        Ok(Err(error)) => error,
        _ => std::future::pending().await,
    }
}

/// Ends when the process is asked to.
async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// Which pages may read answers: those of the origins that were named, and no others.
fn cors(settings: &Settings) -> tower_http::cors::CorsLayer {
    let origins: Vec<HeaderValue> = settings
        .cors_origins
        .iter()
        .filter_map(|origin| origin.parse().ok())
        .collect();
    tower_http::cors::CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
            HeaderName::from_static("x-api-key"),
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([header::LOCATION, header::RETRY_AFTER])
}
