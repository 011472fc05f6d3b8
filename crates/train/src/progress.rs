//! Telling how the run goes: a live view on a terminal, plain lines elsewhere, `metrics.jsonl` and TensorBoard's events
//! always.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::events::Events;
use crate::live::Live;
use crate::objective::Figures;

/// One row of `metrics.jsonl`: means over the steps since the row before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The last step of the row.
    pub step: u64,
    /// The loss that is minimised.
    pub loss: f32,
    /// Its terms and other figures, by name.
    #[serde(flatten)]
    pub parts: serde_json::Map<String, serde_json::Value>,
    /// The gradient's norm before clipping.
    pub gradient_norm: f32,
    /// Of the last step.
    pub learning_rate: f64,
    /// Throughput.
    pub images_per_second: f32,
    /// Seconds of training so far, this call only.
    pub seconds: f32,
}

/// The run's voice.
pub struct Progress {
    live: Option<Live>,
    metrics: File,
    path: PathBuf,
    steps: u64,
    batch_size: usize,
    log_every: u64,
    began: Instant,
    /// Time spent training, without checkpoints and samples.
    busy: Duration,
    done: u64,
    window: Window,
    rows: Vec<Row>,
    events: Events,
}

#[derive(Default)]
struct Window {
    steps: u64,
    loss: f64,
    norm: f64,
    parts: Vec<(&'static str, f64)>,
    busy: Duration,
}

impl Progress {
    /// Goes on after step `first`; rows of later steps, which an interrupted run has left, are dropped.
    ///
    /// # Errors
    /// `metrics.jsonl` cannot be read or written.
    pub fn start(
        run: &Path,
        first: u64,
        steps: u64,
        batch_size: usize,
        log_every: u64,
    ) -> Result<Progress> {
        let path = run.join("metrics.jsonl");
        let rows = keep_rows(&path, first)?;
        let metrics = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let events = Events::start(run, &rows)?;
        let live = std::io::stderr()
            .is_terminal()
            .then(|| Live::start(first, steps));
        Ok(Progress {
            live,
            metrics,
            path,
            steps,
            batch_size,
            log_every,
            began: Instant::now(),
            busy: Duration::ZERO,
            done: 0,
            window: Window::default(),
            rows,
            events,
        })
    }

    /// Takes in step `step`, which took `took`.
    ///
    /// # Errors
    /// `metrics.jsonl` cannot be written.
    pub fn step(
        &mut self,
        step: u64,
        figures: &Figures,
        norm: f64,
        rate: f64,
        took: Duration,
    ) -> Result<()> {
        let window = &mut self.window;
        window.steps += 1;
        window.loss += f64::from(figures.loss);
        window.norm += norm;
        window.busy += took;
        for (name, value) in &figures.parts {
            match window.parts.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += f64::from(*value),
                None => window.parts.push((name, f64::from(*value))),
            }
        }
        self.done += 1;
        self.busy += took;
        if step.is_multiple_of(self.log_every) || step == self.steps || self.done == 1 {
            self.report(step, rate)?;
        } else if let Some(live) = &self.live {
            live.step(step);
        }
        Ok(())
    }

    fn report(&mut self, step: u64, rate: f64) -> Result<()> {
        let window = std::mem::take(&mut self.window);
        let n = window.steps as f64;
        let row = Row {
            step,
            loss: (window.loss / n) as f32,
            parts: window
                .parts
                .iter()
                .map(|(name, sum)| ((*name).to_string(), ((sum / n) as f32).into()))
                .collect(),
            gradient_norm: (window.norm / n) as f32,
            learning_rate: rate,
            images_per_second: (n * self.batch_size as f64 / window.busy.as_secs_f64().max(1e-9))
                as f32,
            seconds: self.began.elapsed().as_secs_f32(),
        };
        // What is left goes by the whole run so far, saving and sampling included.
        let each = self.began.elapsed().as_secs_f64() / self.done as f64;
        let left = duration(each * self.steps.saturating_sub(step) as f64);
        let parts: String = window
            .parts
            .iter()
            .map(|(name, sum)| format!(", {name} {:.4}", sum / n))
            .collect();
        if self.live.is_none() {
            eprintln!(
                "step {step}/{}: loss {:.4}{parts}, gradient {}, rate {:.2e}, {:.1} images/s, {left} left",
                self.steps,
                row.loss,
                short(row.gradient_norm.into()),
                rate,
                row.images_per_second
            );
        }
        let mut text = serde_json::to_string(&row).unwrap_or_default();
        text.push('\n');
        self.metrics
            .write_all(text.as_bytes())
            .map_err(Error::io("write", &self.path))?;
        self.events.row(&row)?;
        self.rows.push(row);
        if let Some(live) = &self.live {
            live.row(&self.rows, &left);
        }
        Ok(())
    }

    /// Passes samples on to TensorBoard: a PNG file's bytes and its size.
    ///
    /// # Errors
    /// The disk is full.
    pub fn picture(&mut self, step: u64, png: &[u8], size: (u32, u32)) -> Result<()> {
        self.events.picture(step, png, size)
    }

    /// All rows so far, those of earlier calls included.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

/// The rows up to step `last`; the file is rewritten if it holds later ones or half a line.
fn keep_rows(path: &Path, last: u64) -> Result<Vec<Row>> {
    let Ok(file) = File::open(path) else {
        return Ok(Vec::new());
    };
    let mut kept = Vec::new();
    let mut text = String::new();
    let mut dropped = false;
    for line in BufReader::new(file).lines() {
        let line = line.map_err(Error::io("read", path))?;
        match serde_json::from_str::<Row>(&line) {
            Ok(row) if row.step <= last => {
                kept.push(row);
                text.push_str(&line);
                text.push('\n');
            }
            _ => dropped = true,
        }
    }
    if dropped {
        velatura::checkpoint::write_atomically(path, |out| out.write_all(text.as_bytes()))?;
    }
    Ok(kept)
}

/// "2 h 05 min", "3 min 20 s" or "12 s".
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.round().max(0.0) as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

/// A number in at most seven characters: four digits that count, or five before the point.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    if !(1e-3..1e5).contains(&size) {
        return format!("{value:.1e}");
    }
    let decimals = (3.0 - size.log10().floor()).clamp(0.0, 4.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_means_and_later_ones_are_dropped_on_resume() {
        let run = tempfile::tempdir().unwrap();
        let second = Duration::from_secs(1);
        let mut progress = Progress::start(run.path(), 0, 6, 4, 2).unwrap();
        for step in 1..=6 {
            let figures = Figures {
                loss: step as f32,
                parts: vec![("kl", 2.0)],
            };
            progress.step(step, &figures, 1.0, 1e-3, second).unwrap();
        }
        // The first step reports at once, so that a person sees that it runs.
        let seen: Vec<(u64, f32)> = progress
            .rows()
            .iter()
            .map(|row| (row.step, row.loss))
            .collect();
        assert_eq!(seen, [(1, 1.0), (2, 2.0), (4, 3.5), (6, 5.5)]);
        assert_eq!(progress.rows()[1].images_per_second, 4.0);
        drop(progress);
        let again = Progress::start(run.path(), 4, 6, 4, 2).unwrap();
        assert_eq!(again.rows().len(), 3);
        assert_eq!(again.rows()[2].parts["kl"], 2.0);
        let text = std::fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn numbers_are_short_and_small_ones_are_not_nothing() {
        let written = [0.0, 0.53064, 1.791, 272.41, 10513.34, 3e-5, 123456.0].map(short);
        let expected = ["0", "0.5306", "1.791", "272.4", "10513", "3.0e-5", "1.2e5"];
        assert_eq!(written, expected);
    }

    #[test]
    fn durations_are_read_by_people() {
        assert_eq!(
            [12.4, 200.0, 7500.0].map(duration),
            ["12 s", "3 min 20 s", "2 h 05 min"]
        );
    }
}
