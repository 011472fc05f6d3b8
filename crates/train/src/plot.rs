//! The loss over the run as a picture.

use std::path::Path;

use image::{Rgb, RgbImage};

use crate::error::{Error, Result};
use crate::progress::Row;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 400;
const MARGIN: u32 = 16;

/// Draws `loss.png` into the run folder: every row in grey, its running mean in red, the loss on a logarithmic
/// scale from the smallest to the largest value. The figures themselves are in `metrics.jsonl`.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write(run: &Path, rows: &[Row]) -> Result<()> {
    let losses: Vec<f32> = rows.iter().map(|row| row.loss.max(1e-12).ln()).collect();
    let path = run.join("loss.png");
    draw(&losses)
        .save(&path)
        .map_err(|error| Error::run(&path, format!("cannot write the plot: {error}")))
}

fn draw(values: &[f32]) -> RgbImage {
    let mut picture = RgbImage::from_pixel(WIDTH, HEIGHT, Rgb([255; 3]));
    let smooth = running_mean(values, values.len() / 50 + 1);
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let span = (high - low).max(1e-6);
    let place = |index: usize, value: f32| {
        let x = index as f32 / (values.len() - 1).max(1) as f32;
        let y = (high - value) / span;
        let on = |share: f32, length: u32| MARGIN as f32 + share * (length - 2 * MARGIN - 1) as f32;
        (on(x, WIDTH), on(y, HEIGHT))
    };
    for (series, colour) in [
        (values, Rgb([190, 190, 190])),
        (&smooth, Rgb([200, 40, 30])),
    ] {
        for (index, pair) in series.windows(2).enumerate() {
            line(
                &mut picture,
                place(index, pair[0]),
                place(index + 1, pair[1]),
                colour,
            );
        }
    }
    picture
}

/// Means over the `width` values before and at each place.
pub(crate) fn running_mean(values: &[f32], width: usize) -> Vec<f32> {
    (0..values.len())
        .map(|end| {
            let window = &values[(end + 1).saturating_sub(width)..=end];
            window.iter().sum::<f32>() / window.len() as f32
        })
        .collect()
}

fn line(picture: &mut RgbImage, from: (f32, f32), to: (f32, f32), colour: Rgb<u8>) {
    let steps = (to.0 - from.0)
        .abs()
        .max((to.1 - from.1).abs())
        .ceil()
        .max(1.0);
    for step in 0..=steps as u32 {
        let share = step as f32 / steps;
        let (x, y) = (
            from.0 + (to.0 - from.0) * share,
            from.1 + (to.1 - from.1) * share,
        );
        picture.put_pixel(
            (x as u32).min(WIDTH - 1),
            (y as u32).min(HEIGHT - 1),
            colour,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_loss_falls_from_left_to_right() {
        let picture = draw(&(0..100).map(|i| 5.0 - 0.05 * i as f32).collect::<Vec<_>>());
        let top = |x: u32| {
            (0..HEIGHT)
                .find(|&y| picture.get_pixel(x, y).0 != [255; 3])
                .unwrap()
        };
        assert!(top(MARGIN) < 30 && top(WIDTH - MARGIN - 2) > HEIGHT - 60);
        // Nothing to draw is drawn without a fuss.
        draw(&[]);
        draw(&[1.0]);
    }
}
