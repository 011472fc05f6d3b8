//! The run on a terminal: a few lines at the bottom that are drawn anew, everything else above them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::machine;
use crate::progress::{Row, short};

/// Places of the sparkline.
const PLACES: usize = 40;
/// Its heights.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The lines at the bottom, while there are some: whatever is written meanwhile has to go above them.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Says something on standard error, above the lines of the run that is watched there.
pub fn say(message: &str) {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match shown {
        Some(bar) => bar.suspend(|| eprintln!("{message}")),
        None => eprintln!("{message}"),
    }
}

/// The lines at the bottom of the terminal.
pub(crate) struct Live {
    bar: ProgressBar,
}

impl Live {
    /// Begins after step `first` of `steps`.
    pub fn start(first: u64, steps: u64) -> Live {
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
        // The template is a constant; a bad one would only cost the bar its looks.
        if let Ok(style) = ProgressStyle::with_template(
            // The bar takes what the line leaves it, at 80 columns too.
            "{wide_bar:.cyan/dim} {pos}/{len} steps, {percent} %, {elapsed_precise} so far{prefix}\n{msg}",
        ) {
            bar.set_style(style);
        }
        bar.set_position(first);
        bar.enable_steady_tick(Duration::from_secs(1));
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Live { bar }
    }

    /// Step `step` is done.
    pub fn step(&self, step: u64) {
        self.bar.set_position(step);
    }

    /// Shows the newest of `rows`, with `left` being the time left in words.
    pub fn row(&self, rows: &[Row], left: &str) {
        if let Some(row) = rows.last() {
            self.bar.set_position(row.step);
            self.bar.set_prefix(format!(", {left} left"));
            self.bar.set_message(lines(row, rows));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.bar.abandon();
        SHOWN.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What stands below the bar.
fn lines(row: &Row, rows: &[Row]) -> String {
    let losses: Vec<f32> = rows.iter().map(|row| row.loss).collect();
    let parts: String = (row.parts.iter())
        .filter_map(|(name, value)| Some(format!("{name} {:.4} · ", value.as_f64()?)))
        .collect();
    let gigabytes = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
    let memory = machine::memory()
        .zip(machine::peak_memory())
        .map(|(now, peak)| format!(" · memory {}, peak {}", gigabytes(now), gigabytes(peak)));
    format!(
        "loss {:.4} {}{}\n{parts}gradient {} · rate {:.2e}\n{:.1} images/s{}",
        row.loss,
        sparkline(&losses),
        trend(&losses)
            .map(|trend| format!(" {trend}"))
            .unwrap_or_default(),
        short(row.gradient_norm.into()),
        row.learning_rate,
        row.images_per_second,
        memory.unwrap_or_default()
    )
}

/// The course of `values` from their smallest to their largest, on a logarithmic scale where all are positive.
fn sparkline(values: &[f32]) -> String {
    let places = PLACES.min(values.len());
    let positive = values.iter().all(|&value| value > 0.0);
    let means: Vec<f32> = (0..places)
        .map(|place| {
            let piece = place * values.len() / places..(place + 1) * values.len() / places;
            let mean = values[piece.clone()].iter().sum::<f32>() / piece.len() as f32;
            if positive { mean.ln() } else { mean }
        })
        .collect();
    let low = means.iter().copied().fold(f32::INFINITY, f32::min);
    let high = means.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let top = (HEIGHTS.len() - 1) as f32;
    let height = |mean: f32| ((mean - low) / (high - low).max(1e-6) * top).round();
    means
        .into_iter()
        .map(|mean| HEIGHTS[height(mean) as usize])
        .collect()
}

/// How the last tenth of the values lies to the tenth before; nothing where there are too few to say.
fn trend(values: &[f32]) -> Option<String> {
    let tenth = values.len() / 10;
    if tenth < 2 {
        return None;
    }
    let (before, last) = values[values.len() - 2 * tenth..].split_at(tenth);
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    let change = 100.0 * (mean(last) / mean(before) - 1.0);
    let arrow = match change {
        ..-0.5 => '↘',
        0.5.. => '↗',
        _ => '→',
    };
    Some(format!("{arrow} {change:+.1} %"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_loss_falls() {
        let losses: Vec<f32> = (0..400).map(|i| (-0.01 * i as f32).exp()).collect();
        let line = sparkline(&losses);
        assert_eq!(line.chars().count(), PLACES);
        assert!(line.starts_with('█') && line.ends_with('▁'), "{line}");
        // e^(−0.4) − 1
        assert_eq!(trend(&losses).as_deref(), Some("↘ -33.0 %"));
        assert_eq!(trend(&[1.0; 40]).as_deref(), Some("→ +0.0 %"));
        assert_eq!(trend(&[1.0; 19]), None);
        assert_eq!(sparkline(&[3.0, -1.0, 3.0]), "█▁█");
        assert_eq!((sparkline(&[]), sparkline(&[2.0])), ("".into(), "▁".into()));
    }

    #[test]
    fn every_figure_is_there() {
        let row = Row {
            step: 7,
            loss: 0.25,
            parts: [("kl".to_owned(), 21.5.into())].into_iter().collect(),
            gradient_norm: 0.5,
            learning_rate: 1e-4,
            images_per_second: 81.25,
            seconds: 9.0,
        };
        let text = lines(&row, std::slice::from_ref(&row));
        for part in [
            "loss 0.2500 ▁",
            "kl 21.5",
            "gradient 0.5000",
            "1.00e-4",
            "81.2 images/s",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
        assert_eq!(text.lines().count(), 3);
    }
}
