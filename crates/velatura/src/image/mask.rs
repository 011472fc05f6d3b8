//! Masks: which pixels of a picture are painted anew.

use std::path::Path;

use image::imageops::{self, FilterType};
use image::{DynamicImage, GrayImage};

use super::decode;
use crate::{Error, Result};

/// One bit per pixel, rows from the top: true is painted anew, false stays.
#[derive(Clone, PartialEq, Eq)]
pub struct Mask {
    width: usize,
    height: usize,
    painted: Vec<bool>,
}

impl Mask {
    /// A mask from its bits.
    ///
    /// # Panics
    /// When there are not `width * height` of them.
    pub fn new(width: usize, height: usize, painted: Vec<bool>) -> Mask {
        assert_eq!(painted.len(), width * height, "one bit per pixel");
        Mask {
            width,
            height,
            painted,
        }
    }

    /// Reads a picture as a mask: what is nearer to white than to black is painted anew. Colours count by their
    /// luma, as in Pillow; transparency does not count.
    ///
    /// # Errors
    /// As [`Image::read`](super::Image::read).
    pub fn read(path: &Path) -> Result<Mask> {
        let bytes = std::fs::read(path).map_err(Error::io("read the mask", path))?;
        Mask::from_bytes(&bytes).map_err(|error| error.in_file(path))
    }

    /// A mask from the bytes of such a file.
    ///
    /// # Errors
    /// As [`Image::from_bytes`](super::Image::from_bytes).
    pub fn from_bytes(bytes: &[u8]) -> Result<Mask> {
        let rgb = decode(bytes)?.to_rgb8();
        let white = |pixel: &image::Rgb<u8>| {
            let [r, g, b] = pixel.0.map(u32::from);
            // ITU-R 601-2 luma in 16-bit fixed point, rounded.
            (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16 >= 128
        };
        let painted = rgb.pixels().map(white).collect();
        Ok(Mask::new(
            rgb.width() as usize,
            rgb.height() as usize,
            painted,
        ))
    }

    /// A mask from a picture's transparency: what is more than half transparent is painted anew, as OpenAI's API
    /// has it.
    ///
    /// # Errors
    /// As [`Image::from_bytes`](super::Image::from_bytes).
    pub fn from_transparency(bytes: &[u8]) -> Result<Mask> {
        let decoded: DynamicImage = decode(bytes)?;
        let rgba = decoded.to_rgba8();
        let painted = rgba.pixels().map(|pixel| pixel.0[3] < 128).collect();
        Ok(Mask::new(
            rgba.width() as usize,
            rgba.height() as usize,
            painted,
        ))
    }

    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bits: `[height, width]`.
    pub fn painted(&self) -> &[bool] {
        &self.painted
    }

    /// Whether the pixel at column `x` of row `y` is painted anew.
    ///
    /// # Panics
    /// When it is outside.
    pub fn is_painted(&self, x: usize, y: usize) -> bool {
        assert!(x < self.width, "column {x} of {}", self.width);
        self.painted[y * self.width + x]
    }

    /// The other way round: what was to be painted stays.
    pub fn inverted(&self) -> Mask {
        let painted = self.painted.iter().map(|painted| !painted).collect();
        Mask::new(self.width, self.height, painted)
    }

    /// The same mask in another size.
    ///
    /// # Panics
    /// When a side is 0 or does not fit 32 bits.
    pub fn resized(&self, width: usize, height: usize) -> Mask {
        let side = |side: usize| u32::try_from(side).expect("sides of 32 bits");
        let gray = GrayImage::from_raw(side(self.width), side(self.height), self.gray())
            .expect("one byte per pixel");
        let new = imageops::resize(&gray, side(width), side(height), FilterType::Triangle);
        let painted = new.pixels().map(|pixel| pixel.0[0] >= 128).collect();
        Mask::new(width, height, painted)
    }

    /// How much each pixel is painted when the edge is blurred with this standard deviation: 0 to 1.
    pub(super) fn softened(&self, sigma: f32) -> Vec<f32> {
        let gray = GrayImage::from_raw(self.width as u32, self.height as u32, self.gray())
            .expect("one byte per pixel");
        let soft = imageops::blur(&gray, sigma);
        soft.pixels()
            .map(|pixel| f32::from(pixel.0[0]) / 255.0)
            .collect()
    }

    /// The bytes of a PNG file: white is painted, black stays.
    pub fn encode_png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut bytes = Vec::new();
        let (width, height) = (self.width as u32, self.height as u32);
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.gray())?;
        writer.finish()?;
        Ok(bytes)
    }

    /// One byte per pixel: 255 is painted.
    pub(super) fn gray(&self) -> Vec<u8> {
        self.painted
            .iter()
            .map(|&painted| if painted { 255 } else { 0 })
            .collect()
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({}×{})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;

    #[test]
    fn white_is_painted_and_survives_a_file() {
        let picture = Image::new(3, 1, vec![255, 255, 255, 100, 100, 100, 0, 255, 0]);
        let mask = Mask::from_bytes(&picture.encode_png(&[]).unwrap()).unwrap();
        // Green alone has a luma of 150.
        assert_eq!(mask.painted(), [true, false, true]);
        assert_eq!(Mask::from_bytes(&mask.encode_png().unwrap()).unwrap(), mask);
        assert_eq!(mask.inverted().painted(), [false, true, false]);
        let opaque = Mask::from_transparency(&mask.encode_png().unwrap()).unwrap();
        assert_eq!(opaque.painted(), [false; 3]);
    }

    #[test]
    fn another_size_keeps_the_halves() {
        let mask = Mask::new(2, 1, vec![true, false]);
        let large = mask.resized(8, 4);
        assert!(large.is_painted(1, 3) && !large.is_painted(6, 0));
        assert_eq!(large.resized(2, 1), mask);
    }
}
