//! Pictures: 8-bit RGB pixels, their way to and from the model's `[-1, 1]`, and PNG files that carry text.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use velatura_tensor::Tensor;

use crate::files::{Existing, write_file};
use crate::{Error, Result};

/// An 8-bit RGB picture, rows from the top, three bytes per pixel.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

/// A `key: text` pair stored in a PNG file.
pub type TextChunk = (String, String);

impl Image {
    /// A picture from its bytes.
    ///
    /// # Panics
    /// When `pixels` does not hold `width * height * 3` bytes.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Image {
        assert_eq!(pixels.len(), width * height * 3, "three bytes per pixel");
        Image {
            width,
            height,
            pixels,
        }
    }

    /// The picture in `x: [1, H, W, 3]`, values in `[-1, 1]`; what lies outside is clamped. Rounds as diffusers'
    /// `VaeImageProcessor` does: half to even, in f32.
    ///
    /// # Panics
    /// When the shape is another.
    pub fn from_tensor(x: &Tensor) -> Image {
        assert!(
            x.shape().len() == 4 && x.dim(0) == 1 && x.dim(3) == 3,
            "expected [1, H, W, 3], found {:?}",
            x.shape()
        );
        let pixels = x
            .as_slice()
            .iter()
            .map(|&value| {
                let unit = (value * 0.5 + 0.5).clamp(0.0, 1.0);
                (unit * 255.0).round_ties_even() as u8
            })
            .collect();
        Image::new(x.dim(2), x.dim(1), pixels)
    }

    /// The picture as `[1, H, W, 3]` in `[-1, 1]`.
    pub fn to_tensor(&self) -> Tensor {
        let values = self
            .pixels
            .iter()
            .map(|&byte| f32::from(byte) / 255.0 * 2.0 - 1.0)
            .collect();
        Tensor::from_vec(values, &[1, self.height, self.width, 3])
    }

    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes: `[height, width, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Reads a PNG, JPEG, WebP, BMP or GIF file (its first frame). Transparent pixels are laid over white.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Format`] when it is not such a picture.
    pub fn read(path: &Path) -> Result<Image> {
        let bytes = std::fs::read(path).map_err(Error::io("read the picture", path))?;
        let decoded = image::load_from_memory(&bytes).map_err(|error| {
            Error::format(
                path,
                format!("expected a PNG, JPEG, WebP, BMP or GIF picture: {error}"),
            )
        })?;
        let rgba = decoded.to_rgba8();
        let (width, height) = (rgba.width() as usize, rgba.height() as usize);
        let pixels = rgba
            .pixels()
            .flat_map(|pixel| {
                let [r, g, b, alpha] = pixel.0.map(u32::from);
                [r, g, b].map(|value| ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
            })
            .collect();
        Ok(Image::new(width, height, pixels))
    }

    /// Writes a PNG file with `text` in it, whole or not at all, and returns the name used.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder is missing or not writable, or the disk is full.
    pub fn write_png(
        &self,
        path: &Path,
        text: &[TextChunk],
        existing: Existing,
    ) -> Result<PathBuf> {
        let bytes = self
            .encode_png(text)
            .map_err(|error| Error::format(path, format!("cannot encode the PNG: {error}")))?;
        write_file(path, &bytes, existing)
    }

    /// The bytes of a PNG file with `text` in it. Text that Latin-1 holds goes into a `tEXt` chunk, any other into
    /// an `iTXt` chunk, as Pillow has it and as other programs expect.
    pub fn encode_png(&self, text: &[TextChunk]) -> Result<Vec<u8>, png::EncodingError> {
        let mut bytes = Vec::new();
        let (width, height) = (self.width as u32, self.height as u32);
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        for (key, value) in text {
            if value.chars().all(|c| u32::from(c) < 256 && c != '\0') {
                encoder.add_text_chunk(key.clone(), value.clone())?;
            } else {
                encoder.add_itxt_chunk(key.clone(), value.clone())?;
            }
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(bytes)
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({}×{})", self.width, self.height)
    }
}

/// The text in a PNG file, in the order of the file.
///
/// # Errors
/// [`Error::Io`] when it cannot be read, [`Error::Format`] when it is not a PNG file.
pub fn read_png_text(path: &Path) -> Result<Vec<TextChunk>> {
    let bytes = std::fs::read(path).map_err(Error::io("read the picture", path))?;
    let broken =
        |error: png::DecodingError| Error::format(path, format!("expected a PNG file: {error}"));
    let reader = png::Decoder::new(Cursor::new(&bytes))
        .read_info()
        .map_err(broken)?;
    let info = reader.info();
    let mut text = Vec::new();
    for chunk in &info.uncompressed_latin1_text {
        text.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    for chunk in &info.utf8_text {
        text.push((chunk.keyword.clone(), chunk.get_text().map_err(broken)?));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_way_to_the_model_and_back() {
        let pixels: Vec<u8> = (0..=255).flat_map(|v| [v, 255 - v, v / 2]).collect();
        let image = Image::new(16, 16, pixels);
        assert_eq!(Image::from_tensor(&image.to_tensor()), image);
    }

    #[test]
    fn values_outside_the_range_are_clamped() {
        let x = Tensor::from_vec(vec![-3.0, 0.0, 3.0], &[1, 1, 1, 3]);
        // 0.5 · 255 = 127.5 lies between 127 and 128; the even one is taken.
        assert_eq!(Image::from_tensor(&x).pixels(), [0, 128, 255]);
    }

    #[test]
    fn text_of_every_kind_survives_in_a_png() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let text = vec![
            ("parameters".to_string(), "a café\nSteps: 20".to_string()),
            (
                "velatura".to_string(),
                "{\"prompt\":\"ein Bär 🐻\"}".to_string(),
            ),
        ];
        let image = Image::new(2, 1, vec![1, 2, 3, 4, 5, 6]);
        image.write_png(&path, &text, Existing::Replace).unwrap();
        assert_eq!(read_png_text(&path).unwrap(), text);
        assert_eq!(Image::read(&path).unwrap(), image);
    }

    #[test]
    fn a_file_that_is_no_picture_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, b"not a picture").unwrap();
        assert!(
            Image::read(&path)
                .unwrap_err()
                .to_string()
                .contains("a.png")
        );
        assert!(read_png_text(&path).is_err());
    }
}
