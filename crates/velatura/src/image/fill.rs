//! Filling what is to be repainted with the colours around it, so that a picture is gone from there before painting begins.

use super::{Image, Mask};

/// A picture whose pixels count more or less: red, green and blue times the weight, and the weight.
struct Level {
    width: usize,
    height: usize,
    pixels: Vec<[f32; 4]>,
}

impl Image {
    /// The picture with what `mask` paints filled from its surroundings: pull and push (Gortler et al., "The Lumigraph",
    /// 1996, section 3.4). Grey where there are no surroundings.
    ///
    /// # Panics
    /// When the sizes differ.
    pub fn filled(&self, mask: &Mask) -> Image {
        let size = (self.width, self.height);
        assert_eq!(size, (mask.width(), mask.height()), "mask");
        let pixels = self.pixels.chunks_exact(3).zip(mask.painted());
        let pixels = pixels.map(|(rgb, &painted)| {
            let weight = if painted { 0.0 } else { 1.0 };
            let [r, g, b] = [0, 1, 2].map(|c| f32::from(rgb[c]) * weight);
            [r, g, b, weight]
        });
        let full = Level {
            width: self.width,
            height: self.height,
            pixels: pixels.collect(),
        };
        let colours = full.filled();
        let pixels = colours.into_iter().flatten().map(|v| v.round() as u8);
        let mut image = Image::new(self.width, self.height, pixels.collect());
        // What is known stays to the pixel.
        image.keep_outside(mask, self);
        image
    }
}

impl Level {
    /// Its colours, where it has none those of the next coarser level.
    fn filled(&self) -> Vec<[f32; 3]> {
        const GREY: [f32; 3] = [128.0; 3];
        let coarse = (self.width > 1 || self.height > 1).then(|| self.coarser());
        let below = coarse.as_ref().map(Level::filled);
        let mut colours = Vec::with_capacity(self.pixels.len());
        for (i, [r, g, b, weight]) in self.pixels.iter().enumerate() {
            let rest = match (&coarse, &below) {
                _ if *weight == 1.0 => GREY,
                (Some(coarse), Some(below)) => {
                    coarse.between(below, i % self.width, i / self.width)
                }
                _ => GREY,
            };
            let [x, y, z] = rest.map(|colour| colour * (1.0 - weight));
            colours.push([r + x, g + y, b + z]);
        }
        colours
    }

    /// Half as large: four pixels become one, which counts as much as they do together, and at most once.
    fn coarser(&self) -> Level {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let mut pixels = vec![[0f32; 4]; width * height];
        for (i, pixel) in self.pixels.iter().enumerate() {
            let sum = &mut pixels[i / self.width / 2 * width + i % self.width / 2];
            sum.iter_mut().zip(pixel).for_each(|(sum, v)| *sum += v);
        }
        for pixel in &mut pixels {
            let most = pixel[3].max(1.0);
            pixel.iter_mut().for_each(|v| *v /= most);
        }
        Level {
            width,
            height,
            pixels,
        }
    }

    /// The colour of this level under the pixel at (x, y) of the next finer one, between the middles of its own pixels.
    fn between(&self, colours: &[[f32; 3]], x: usize, y: usize) -> [f32; 3] {
        let along = |at: usize, length: usize| {
            let place = (at as f32 - 0.5) / 2.0;
            let low = place.floor();
            let clamp = |i: f32| (i.max(0.0) as usize).min(length - 1);
            (clamp(low), clamp(low + 1.0), place - low)
        };
        let (left, right, across) = along(x, self.width);
        let (top, bottom, down) = along(y, self.height);
        let at = |x: usize, y: usize, c: usize| colours[y * self.width + x][c];
        [0, 1, 2].map(|c| {
            let upper = at(left, top, c) * (1.0 - across) + at(right, top, c) * across;
            let lower = at(left, bottom, c) * (1.0 - across) + at(right, bottom, c) * across;
            upper * (1.0 - down) + lower * down
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_flow_in_from_around() {
        // Red on the left, blue on the right, and a green thing between them that shall vanish.
        let (width, height) = (30, 20);
        let pixel = |i: usize| match i % width {
            0..10 => [200, 0, 0],
            10..20 => [0, 250, 0],
            _ => [0, 0, 100],
        };
        let picture = Image::new(width, height, (0..width * height).flat_map(pixel).collect());
        let bits = (0..width * height).map(|i| (10..20).contains(&(i % width)));
        let mask = Mask::new(width, height, bits.collect());
        let filled = picture.filled(&mask);
        for (i, new) in filled.pixels().chunks(3).enumerate() {
            if mask.painted()[i] {
                assert_eq!(new[1], 0, "no green at {i}");
                assert!(new[0] > 0 || new[2] > 0);
            } else {
                assert_eq!(new, pixel(i));
            }
        }
        let red = |x: usize| filled.pixels()[3 * (10 * width + x)];
        assert!(red(10) > red(19), "{} {}", red(10), red(19));

        let all = Mask::new(width, height, vec![true; width * height]);
        assert!(picture.filled(&all).pixels().iter().all(|v| *v == 128));
        let one = Image::new(1, 1, vec![1, 2, 3]);
        assert_eq!(one.filled(&Mask::new(1, 1, vec![false])), one);
    }
}
