//! A part of a picture, to be repainted in another resolution and put back.

use super::{Image, Mask};

/// A field of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Columns to its left.
    pub x: usize,
    /// Rows above it.
    pub y: usize,
    /// Its width.
    pub width: usize,
    /// Its height.
    pub height: usize,
}

impl Region {
    /// Where a picture of this field's shape lies in the middle of `width`×`height` pixels, as large as fits.
    fn fitted(&self, width: usize, height: usize) -> Region {
        let (w, h) = if self.width * height > width * self.height {
            (width, (self.height * width / self.width).max(1))
        } else {
            ((self.width * height / self.height).max(1), height)
        };
        Region {
            x: width / 2 - w / 2,
            y: height / 2 - h / 2,
            width: w,
            height: h,
        }
    }
}

impl Mask {
    /// The field to repaint: all that is painted, `padding` more on each side, and then widened or heightened to the shape
    /// of `width`×`height` as far as the picture allows; diffusers' `VaeImageProcessor.get_crop_region`. None when nothing
    /// is painted.
    pub fn region(&self, padding: usize, width: usize, height: usize) -> Option<Region> {
        let columns = |x: &usize| (0..self.height()).any(|y| self.is_painted(*x, y));
        let rows = |y: &usize| (0..self.width()).any(|x| self.is_painted(x, *y));
        let left = (0..self.width()).find(columns)?;
        let right = 1 + (0..self.width()).rev().find(columns)?;
        let top = (0..self.height()).find(rows)?;
        let bottom = 1 + (0..self.height()).rev().find(rows)?;
        let x = (
            left.saturating_sub(padding),
            right.saturating_add(padding).min(self.width()),
        );
        let y = (
            top.saturating_sub(padding),
            bottom.saturating_add(padding).min(self.height()),
        );
        // In f64 and in this order, so that the last pixel falls where Python has it.
        let (across, down) = ((x.1 - x.0) as f64, (y.1 - y.0) as f64);
        let ratio = width as f64 / height as f64;
        let (x, y) = if across / down > ratio {
            (x, widened(y, (across / ratio) as usize, self.height()))
        } else {
            (widened(x, (down * ratio) as usize, self.width()), y)
        };
        Some(Region {
            x: x.0,
            y: y.0,
            width: x.1 - x.0,
            height: y.1 - y.0,
        })
    }

    /// The same part of this mask as [`Image::framed`] takes of a picture.
    pub(crate) fn framed(&self, region: Region, width: usize, height: usize) -> Mask {
        let gray = self.gray().into_iter().flat_map(|v| [v; 3]).collect();
        let image = Image::new(self.width(), self.height(), gray).framed(region, width, height);
        let white = image.pixels().chunks_exact(3).map(|pixel| pixel[0] >= 128);
        Mask::new(width, height, white.collect())
    }
}

/// An interval of up to `length` within 0..`limit`, with the given one in its middle where there is room.
fn widened((start, end): (usize, usize), length: usize, limit: usize) -> (usize, usize) {
    let more = length.saturating_sub(end - start);
    let length = (end - start + more).min(limit);
    let start = start.saturating_sub(more / 2).min(limit - length);
    (start, start + length)
}

impl Image {
    /// The field `region`, scaled into the middle of `width`×`height` pixels. Where its shape is another, the rest is
    /// filled with its edges.
    pub(crate) fn framed(&self, region: Region, width: usize, height: usize) -> Image {
        let inner = region.fitted(width, height);
        let scaled = self.cropped(region).resized(inner.width, inner.height);
        let mut pixels = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            let y = y.saturating_sub(inner.y).min(inner.height - 1);
            for x in 0..width {
                let x = x.saturating_sub(inner.x).min(inner.width - 1);
                pixels.extend_from_slice(scaled.pixel(x, y));
            }
        }
        Image::new(width, height, pixels)
    }

    /// Puts a picture that was painted over [`Image::framed`] back into its field.
    pub(crate) fn put_back(&mut self, region: Region, framed: &Image) {
        let inner = region.fitted(framed.width(), framed.height());
        let scaled = framed.cropped(inner).resized(region.width, region.height);
        let row = 3 * region.width;
        for (y, line) in scaled.pixels().chunks_exact(row).enumerate() {
            let at = 3 * ((region.y + y) * self.width + region.x);
            self.pixels[at..at + row].copy_from_slice(line);
        }
    }

    fn cropped(&self, region: Region) -> Image {
        let rows = region.y..region.y + region.height;
        let pixels = rows.flat_map(|y| {
            let at = 3 * (y * self.width + region.x);
            &self.pixels[at..at + 3 * region.width]
        });
        Image::new(region.width, region.height, pixels.copied().collect())
    }

    fn pixel(&self, x: usize, y: usize) -> &[u8] {
        let at = 3 * (y * self.width + x);
        &self.pixels[at..at + 3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(width: usize, height: usize, painted: impl Fn(usize, usize) -> bool) -> Mask {
        let bits = (0..width * height).map(|i| painted(i % width, i / width));
        Mask::new(width, height, bits.collect())
    }

    #[test]
    fn nothing_painted_has_no_region() {
        assert_eq!(mask(8, 8, |_, _| false).region(4, 8, 8), None);
    }

    #[test]
    fn a_part_is_taken_out_and_put_back_where_it_was() {
        let pixels = (0..40 * 30).flat_map(|i| [(i % 40 * 6) as u8, (i / 40 * 8) as u8, 7]);
        let picture = Image::new(40, 30, pixels.collect());
        for (region, size) in [
            (
                Region {
                    x: 4,
                    y: 5,
                    width: 16,
                    height: 16,
                },
                (16, 16),
            ),
            (
                Region {
                    x: 24,
                    y: 14,
                    width: 16,
                    height: 16,
                },
                (64, 64),
            ),
            // Of another shape than what is painted.
            (
                Region {
                    x: 0,
                    y: 3,
                    width: 8,
                    height: 24,
                },
                (48, 48),
            ),
        ] {
            let part = picture.framed(region, size.0, size.1);
            assert_eq!((part.width(), part.height()), size);
            let mut again = Image::new(40, 30, vec![0; 40 * 30 * 3]);
            again.put_back(region, &part);
            for y in 0..30 {
                for x in 0..40 {
                    let inside = (region.x..region.x + region.width).contains(&x)
                        && (region.y..region.y + region.height).contains(&y);
                    let found = again.pixel(x, y);
                    for (found, old) in found.iter().zip(picture.pixel(x, y)) {
                        let expected = if inside { *old } else { 0 };
                        assert!(found.abs_diff(expected) <= 2, "{region:?} at {x}, {y}");
                    }
                }
            }
        }
        // The mask goes with it: the left half of the region, four times as large.
        let region = Region {
            x: 8,
            y: 8,
            width: 16,
            height: 16,
        };
        let half = mask(40, 30, |x, _| x < 16).framed(region, 64, 64);
        assert_eq!(half, mask(64, 64, |x, _| x < 32));
    }
}
