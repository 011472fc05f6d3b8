//! What happens to drawings on their way through a model, in small: they become soft, grainy, a little off in tone.
//! A scorer that has only seen drawings would judge how clean a picture is, not what it shows.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::picture::{decode_bytes, to_rgb};
use crate::random::Choices;

/// A square picture in work: `[side, side, 3]` in [-1, 1].
pub struct Pixels {
    pub side: usize,
    pub values: Vec<f32>,
}

impl Pixels {
    /// Some of all that can happen to a picture, as `choices` says.
    pub fn degrade(&mut self, choices: &mut Choices) {
        if choices.unit() < 0.35 {
            let factor = 1.0 + 2.0 * choices.unit();
            self.shrink_and_grow(factor);
        }
        if choices.unit() < 0.5 {
            self.blur(0.3 + 1.1 * choices.unit());
        }
        if choices.unit() < 0.3 {
            self.warp(choices);
        }
        if choices.unit() < 0.4 {
            self.tone(choices);
        }
        if choices.unit() < 0.5 {
            let strength = 0.12 * choices.unit();
            self.grain(strength, choices);
        }
        if choices.unit() < 0.2 {
            let quality = 25 + choices.below(65) as u8;
            self.jpeg(quality);
        }
    }

    /// Gaussian blur of deviation `sigma` in pixels.
    pub fn blur(&mut self, sigma: f32) {
        let radius = (2.5 * sigma).ceil() as isize;
        let mut kernel: Vec<f32> = (-radius..=radius)
            .map(|x| (-((x * x) as f32) / (2.0 * sigma * sigma)).exp())
            .collect();
        let sum: f32 = kernel.iter().sum();
        kernel.iter_mut().for_each(|weight| *weight /= sum);
        let side = self.side as isize;
        for vertical in [false, true] {
            let mut out = vec![0.0; self.values.len()];
            for y in 0..side {
                for x in 0..side {
                    let to = ((y * side + x) * 3) as usize;
                    for (offset, weight) in (-radius..=radius).zip(&kernel) {
                        let (from_x, from_y) = if vertical {
                            (x, (y + offset).clamp(0, side - 1))
                        } else {
                            ((x + offset).clamp(0, side - 1), y)
                        };
                        let from = ((from_y * side + from_x) * 3) as usize;
                        for c in 0..3 {
                            out[to + c] += weight * self.values[from + c];
                        }
                    }
                }
            }
            self.values = out;
        }
    }

    /// Each pixel from another place: `at` gives it for each (x, y); between pixels it is interpolated.
    fn resample(&mut self, at: impl Fn(f32, f32) -> [f32; 2]) {
        let side = self.side;
        let last = (side - 1) as f32;
        let mut out = Vec::with_capacity(self.values.len());
        for y in 0..side {
            for x in 0..side {
                let [u, v] = at(x as f32, y as f32).map(|place| place.clamp(0.0, last));
                let (x0, y0) = (u as usize, v as usize);
                let (x1, y1) = ((x0 + 1).min(side - 1), (y0 + 1).min(side - 1));
                let (s, t) = (u - x0 as f32, v - y0 as f32);
                for c in 0..3 {
                    let pixel = |x: usize, y: usize| self.values[(y * side + x) * 3 + c];
                    let above = pixel(x0, y0) * (1.0 - s) + pixel(x1, y0) * s;
                    let below = pixel(x0, y1) * (1.0 - s) + pixel(x1, y1) * s;
                    out.push(above * (1.0 - t) + below * t);
                }
            }
        }
        self.values = out;
    }

    /// To a coarser grid and back, by linear interpolation.
    fn shrink_and_grow(&mut self, factor: f32) {
        self.blur(0.4 * factor);
        let coarse = |x: f32| (x / factor).round() * factor;
        self.resample(|x, y| [coarse(x), coarse(y)]);
        self.blur(0.3 * factor);
    }

    /// A gentle wave, so that outlines are not as straight as they were drawn.
    fn warp(&mut self, choices: &mut Choices) {
        use std::f32::consts::TAU;
        let side = self.side as f32;
        let waves = [(); 2].map(|()| {
            let height = 0.015 * side * choices.unit();
            let length = side * (0.15 + 0.5 * choices.unit());
            (height, length, TAU * choices.unit())
        });
        let wave = |(height, length, phase): (f32, f32, f32), x: f32| {
            height * (TAU * x / length + phase).sin()
        };
        self.resample(|x, y| [x + wave(waves[0], y), y + wave(waves[1], x)]);
    }

    /// A little more or less contrast and brightness, and of each colour; names of colours stay true.
    fn tone(&mut self, choices: &mut Choices) {
        let mut between = |spread: f32| spread * (2.0 * choices.unit() - 1.0);
        let (contrast, brightness) = (1.0 + between(0.12), between(0.08));
        let tints = [(); 3].map(|()| between(0.04));
        for pixel in self.values.chunks_exact_mut(3) {
            for (value, tint) in pixel.iter_mut().zip(tints) {
                *value = (*value * contrast + brightness + tint).clamp(-1.0, 1.0);
            }
        }
    }

    /// Uniform noise of at most `strength`.
    fn grain(&mut self, strength: f32, choices: &mut Choices) {
        for value in &mut self.values {
            *value = (*value + strength * (2.0 * choices.unit() - 1.0)).clamp(-1.0, 1.0);
        }
    }

    /// Through JPEG and back.
    fn jpeg(&mut self, quality: u8) {
        let side = self.side as u32;
        let mut bytes = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
        let through = to_rgb(&self.values, side, side)
            .and_then(|picture| {
                let write =
                    encoder.write_image(picture.as_raw(), side, side, ExtendedColorType::Rgb8);
                write.ok()
            })
            .and_then(|()| decode_bytes(&bytes).ok());
        // What cannot be encoded stays as it was; there is nothing that could not.
        if let Some(picture) = through {
            let numbers = picture.as_raw().iter();
            self.values = numbers.map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
        }
    }

    /// Tiles of the picture in another order, some mirrored: all its colours and nothing that it showed.
    pub fn shuffle(&mut self, choices: &mut Choices) {
        let tile = self.side / [8, 16][choices.below(2)];
        let count = self.side / tile;
        let order = choices.permutation(count * count);
        let mut out = vec![0.0; self.values.len()];
        for (to, from) in order.into_iter().enumerate() {
            let from = from as usize;
            let mirrored = choices.below(2) == 1;
            for row in 0..tile {
                for column in 0..tile {
                    let source = if mirrored { tile - 1 - column } else { column };
                    let at = |index: usize, x: usize| {
                        let (tile_y, tile_x) = (index / count, index % count);
                        ((tile_y * tile + row) * self.side + tile_x * tile + x) * 3
                    };
                    let (to, from) = (at(to, column), at(from, source));
                    out[to..to + 3].copy_from_slice(&self.values[from..from + 3]);
                }
            }
        }
        self.values = out;
    }

    /// Noise: of single pixels, of clouds of some size, in one colour or in many.
    pub fn noise(side: usize, choices: &mut Choices) -> Pixels {
        let grey = choices.below(2) == 1;
        let mut values = Vec::with_capacity(side * side * 3);
        let mut normal = || {
            // Twelve uniform numbers make a normal one, well enough for this.
            (0..12).map(|_| choices.unit()).sum::<f32>() - 6.0
        };
        for _ in 0..side * side {
            let first = normal();
            for _ in 0..3 {
                values.push(if grey { first } else { normal() });
            }
        }
        let mut pixels = Pixels { side, values };
        let smooth = [0.0, 1.0, 3.0, 8.0][choices.below(4)];
        if smooth > 0.0 {
            pixels.blur(smooth);
        }
        let count = pixels.values.len() as f32;
        let power: f32 = pixels.values.iter().map(|x| x * x).sum();
        let strength = (0.1 + 0.6 * choices.unit()) / (power / count).sqrt().max(1e-6);
        let base = [(); 3].map(|()| 1.4 * (choices.unit() - 0.5));
        for pixel in pixels.values.chunks_exact_mut(3) {
            for (value, base) in pixel.iter_mut().zip(base) {
                *value = (*value * strength + base).clamp(-1.0, 1.0);
            }
        }
        pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    #[test]
    fn everything_that_can_happen_keeps_size_range_and_a_plain_colour() {
        for seed in 0..40 {
            let mut choices = Choices::new(seed, Purpose::Degrade, 0);
            let mut pixels = Pixels {
                side: 32,
                values: vec![0.25; 32 * 32 * 3],
            };
            pixels.degrade(&mut choices);
            assert_eq!(pixels.values.len(), 32 * 32 * 3);
            // Contrast, brightness, tint, grain and JPEG's rounding at most.
            let near = |x: &f32| (x - 0.25).abs() < 0.03 + 0.08 + 0.04 + 0.12 + 0.05;
            assert!(pixels.values.iter().all(near), "{seed}");
            let noise = Pixels::noise(32, &mut choices);
            assert!(noise.values.iter().all(|x| (-1.0..=1.0).contains(x)));
        }
    }

    #[test]
    fn shuffled_tiles_hold_the_same_pixels() {
        let values: Vec<f32> = (0..64 * 64 * 3).map(|i| i as f32).collect();
        let mut pixels = Pixels {
            side: 64,
            values: values.clone(),
        };
        pixels.shuffle(&mut Choices::new(1, Purpose::Degrade, 0));
        assert_ne!(pixels.values, values);
        pixels.values.sort_by(f32::total_cmp);
        assert_eq!(pixels.values, values);
    }
}
