//! What Prometheus is told.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

type Labels = Vec<(&'static str, String)>;

/// A stage of a job, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From acceptance to the first step.
    Wait,
    /// Prompt to context.
    TextEncoder,
    /// One step.
    Step,
    /// Latents to picture.
    VaeDecode,
    /// Picture to a PNG file on the disk.
    Keep,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Wait => "wait",
            Stage::TextEncoder => "text_encoder",
            Stage::Step => "step",
            Stage::VaeDecode => "vae_decode",
            Stage::Keep => "keep",
        }
    }
}

/// All series.
pub struct Metrics {
    registry: Registry,
    /// Jobs that wait.
    pub queued: Gauge,
    /// Jobs that were begun.
    pub running: Gauge,
    /// Pictures that are being painted at once.
    pub painting: Gauge,
    /// Clients that follow events.
    pub followers: Gauge,
    /// Steps taken; its rate is steps per second.
    pub steps: Counter,
    /// Pictures kept.
    pub pictures: Counter,
    jobs: Family<Labels, Counter>,
    stages: Family<Labels, Histogram>,
    requests: Family<Labels, Counter>,
    latency: Family<Labels, Histogram>,
    memory: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("velatura");
        // From a millisecond to four minutes, each twice the one before.
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 19));
        let metrics = Metrics {
            registry: Registry::default(),
            queued: Gauge::default(),
            running: Gauge::default(),
            painting: Gauge::default(),
            followers: Gauge::default(),
            steps: Counter::default(),
            pictures: Counter::default(),
            jobs: Family::default(),
            stages: Family::new_with_constructor(seconds as fn() -> Histogram),
            requests: Family::default(),
            latency: Family::new_with_constructor(seconds as fn() -> Histogram),
            memory: Gauge::default(),
        };
        registry.register("jobs_queued", "Jobs that wait", metrics.queued.clone());
        registry.register("jobs_running", "Jobs begun", metrics.running.clone());
        registry.register(
            "pictures_painting",
            "Pictures being painted at once",
            metrics.painting.clone(),
        );
        registry.register(
            "followers",
            "Clients that follow events",
            metrics.followers.clone(),
        );
        registry.register("steps", "Steps taken", metrics.steps.clone());
        registry.register("pictures", "Pictures kept", metrics.pictures.clone());
        registry.register("jobs", "Jobs by what became of them", metrics.jobs.clone());
        registry.register_with_unit(
            "stage_duration",
            "Time of each stage of a job",
            Unit::Seconds,
            metrics.stages.clone(),
        );
        registry.register(
            "http_requests",
            "Requests by route and status",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "Time to the head of the answer, by route",
            Unit::Seconds,
            metrics.latency.clone(),
        );
        registry.register_with_unit(
            "resident_memory",
            "Memory of the process",
            Unit::Bytes,
            metrics.memory.clone(),
        );
        Metrics {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    /// Counts a job: `accepted`, or what became of it.
    pub fn job(&self, what: &str) {
        self.jobs
            .get_or_create(&vec![("what", what.to_string())])
            .inc();
    }

    /// Counts the time of a stage.
    pub fn stage(&self, stage: Stage, time: Duration) {
        let labels = vec![("stage", stage.name().to_string())];
        self.stages
            .get_or_create(&labels)
            .observe(time.as_secs_f64());
    }

    /// Counts a request. `route` is the pattern, of which there are few, and not the path, of which there are many.
    pub fn request(&self, route: &str, status: u16, time: Duration) {
        let route = ("route", route.to_string());
        let labels = vec![route.clone(), ("status", status.to_string())];
        self.requests.get_or_create(&labels).inc();
        self.latency
            .get_or_create(&vec![route])
            .observe(time.as_secs_f64());
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        if let Some(memory) = resident_memory() {
            self.memory.set(memory);
        }
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Bytes of memory that this process holds; none where the system does not tell.
pub fn resident_memory() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_series() {
        let metrics = Metrics::default();
        metrics.queued.set(3);
        metrics.job("done");
        metrics.stage(Stage::Step, Duration::from_millis(20));
        metrics.request("/healthz", 200, Duration::from_micros(50));
        let text = metrics.text();
        for line in [
            "velatura_jobs_queued 3",
            "velatura_jobs_total{what=\"done\"} 1",
            "velatura_stage_duration_seconds_count{stage=\"step\"} 1",
            "velatura_http_requests_total{route=\"/healthz\",status=\"200\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
