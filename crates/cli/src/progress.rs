//! Telling a person how far the work is: a bar on a terminal, plain lines elsewhere, always on standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line is written at most, the first and the last step always.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

/// Progress through a known number of steps.
pub struct Progress {
    bar: Option<ProgressBar>,
    /// What is counted: `step`, `scene`.
    unit: &'static str,
    total: usize,
    start: Instant,
    last_line: Option<Instant>,
}

impl Progress {
    pub fn new(unit: &'static str, total: usize) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64);
            // The template is a constant, and a bad one would only cost the bar its looks.
            if let Ok(style) = ProgressStyle::with_template(
                "{prefix} {pos}/{len} {bar:40} {elapsed} of {duration}  {msg}",
            ) {
                bar.set_style(style);
            }
            bar.set_prefix(unit);
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        Progress {
            bar,
            unit,
            total,
            start: Instant::now(),
            last_line: None,
        }
    }

    /// `done` steps are behind us.
    pub fn step(&mut self, done: usize) {
        let per_step = self.start.elapsed().as_secs_f64() / done.max(1) as f64;
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
            bar.set_message(format!("{per_step:.2} s each"));
            return;
        }
        let due = self
            .last_line
            .is_none_or(|last| last.elapsed() >= PLAIN_INTERVAL);
        if due || done == self.total {
            eprintln!("{} {done}/{}, {per_step:.2} s each", self.unit, self.total);
            self.last_line = Some(Instant::now());
        }
    }

    /// Takes the bar away, so that what is written next stands on a line of its own.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The most memory that this process has had at once, in MB (10⁶ bytes); none where the system does not tell.
pub fn peak_memory_mb() -> Option<f64> {
    velatura_train::machine::peak_memory().map(|bytes| bytes as f64 / 1e6)
}
