//! Pictures: 8-bit RGB pixels, their way to and from the model's `[-1, 1]`, and PNG files that carry text.

mod crop;
mod fill;
mod mask;

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};
use velatura_tensor::Tensor;

pub use self::crop::Region;
pub use self::mask::Mask;
use crate::files::{Existing, write_file};
use crate::{Error, Result};

/// The largest picture that is read, in pixels: half as many again as a phone's camera of 2026 takes.
const MAX_PIXELS: u64 = 100_000_000;
/// The longest text that is read from a PNG file, unpacked. The longest recipe is some 10 kB.
const MAX_TEXT: usize = 1 << 20;

/// An 8-bit RGB picture, rows from the top, three bytes per pixel.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

pub use png::EncodingError as PngError;

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

    /// Reads a PNG, JPEG, WebP, BMP or GIF file (its first frame), upright as its EXIF orientation says. Transparent
    /// pixels are laid over white.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Format`] when it is not such a picture.
    pub fn read(path: &Path) -> Result<Image> {
        let bytes = std::fs::read(path).map_err(Error::io("read the picture", path))?;
        Image::from_bytes(&bytes).map_err(|error| error.in_file(path))
    }

    /// A picture from the bytes of such a file; see [`Image::read`].
    ///
    /// # Errors
    /// [`Error::Format`] when they are no such picture, or one of more than a hundred million pixels: a few kilobytes
    /// may claim to be terabytes, so the size is looked at before anything is unpacked.
    pub fn from_bytes(bytes: &[u8]) -> Result<Image> {
        Ok(Image::over_white(&decode(bytes)?))
    }

    fn over_white(decoded: &DynamicImage) -> Image {
        let rgba = decoded.to_rgba8();
        let (width, height) = (rgba.width() as usize, rgba.height() as usize);
        let pixels = rgba
            .pixels()
            .flat_map(|pixel| {
                let [r, g, b, alpha] = pixel.0.map(u32::from);
                [r, g, b].map(|value| ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
            })
            .collect();
        Image::new(width, height, pixels)
    }

    /// The square in the middle, its shorter side scaled to `side` by a bicubic filter: as CLIP's preprocessing does it.
    ///
    /// # Panics
    /// When a side is 0 or does not fit 32 bits.
    pub fn middle_square(&self, side: usize) -> Image {
        let short = self.width.min(self.height);
        let scaled = |length: usize| length * side / short;
        let (width, height) = (scaled(self.width), scaled(self.height));
        let of = |length: usize| u32::try_from(length).expect("sides of 32 bits");
        let own = RgbImage::from_raw(of(self.width), of(self.height), self.pixels.clone())
            .expect("three bytes per pixel");
        let new = imageops::resize(&own, of(width), of(height), FilterType::CatmullRom);
        let (left, top) = ((width - side) / 2, (height - side) / 2);
        let cut = imageops::crop_imm(&new, of(left), of(top), of(side), of(side));
        Image::new(side, side, cut.to_image().into_raw())
    }

    /// The same picture in another size, by Lanczos' filter.
    ///
    /// # Panics
    /// When a side is 0 or does not fit 32 bits.
    pub fn resized(&self, width: usize, height: usize) -> Image {
        let side = |side: usize| u32::try_from(side).expect("sides of 32 bits");
        let own = RgbImage::from_raw(side(self.width), side(self.height), self.pixels.clone())
            .expect("three bytes per pixel");
        let new = imageops::resize(&own, side(width), side(height), FilterType::Lanczos3);
        Image::new(width, height, new.into_raw())
    }

    /// Takes every pixel that `mask` does not paint from `original`.
    ///
    /// # Panics
    /// When the sizes differ.
    pub fn keep_outside(&mut self, mask: &Mask, original: &Image) {
        let size = (self.width, self.height);
        assert_eq!(size, (original.width, original.height), "original");
        assert_eq!(size, (mask.width(), mask.height()), "mask");
        let pixels = self
            .pixels
            .chunks_exact_mut(3)
            .zip(original.pixels.chunks_exact(3));
        for ((own, theirs), &painted) in pixels.zip(mask.painted()) {
            if !painted {
                own.copy_from_slice(theirs);
            }
        }
    }

    /// The picture where `mask` paints, `original` everywhere else; the two are blended inside the mask's edge over about
    /// `blur` pixels.
    ///
    /// # Panics
    /// When the sizes differ.
    pub fn within(mut self, mask: &Mask, original: &Image, blur: f32) -> Image {
        self.keep_outside(mask, original);
        if blur <= 0.0 {
            return self;
        }
        let soft = mask.softened(blur);
        let pixels = self
            .pixels
            .chunks_exact_mut(3)
            .zip(original.pixels.chunks_exact(3));
        for (((own, theirs), &painted), &weight) in pixels.zip(mask.painted()).zip(&soft) {
            if painted {
                for (own, theirs) in own.iter_mut().zip(theirs) {
                    let (new, old) = (f32::from(*own), f32::from(*theirs));
                    *own = (old + (new - old) * weight).round() as u8;
                }
            }
        }
        self
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

/// Unpacks a picture, upright.
fn decode(bytes: &[u8]) -> Result<DynamicImage> {
    let broken = |error: image::ImageError| {
        Error::format(
            "",
            format!("expected a PNG, JPEG, WebP, BMP or GIF picture: {error}"),
        )
    };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| broken(error.into()))?;
    // Nothing is unpacked before the size has been looked at, and then within limits of ours.
    reader.no_limits();
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Error::format(
            "",
            format!(
                "expected a picture of at most {MAX_PIXELS} pixels, found {width}×{height}; scale it down"
            ),
        ));
    }
    let mut limits = Limits::default();
    // Eight bytes per pixel: 16 bits in four channels.
    limits.max_alloc = Some(8 * MAX_PIXELS);
    decoder.set_limits(limits).map_err(broken)?;
    let orientation = decoder.orientation().map_err(broken)?;
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(broken)?;
    decoded.apply_orientation(orientation);
    Ok(decoded)
}

/// The text in a PNG file, in the order of the file.
///
/// # Errors
/// [`Error::Io`] when it cannot be read, [`Error::Format`] when it is not a PNG file.
pub fn read_png_text(path: &Path) -> Result<Vec<TextChunk>> {
    let bytes = std::fs::read(path).map_err(Error::io("read the picture", path))?;
    png_text(&bytes).map_err(|error| error.in_file(path))
}

/// The text in the bytes of a PNG file: plain, packed and Unicode, in this order.
///
/// # Errors
/// [`Error::Format`] when it is not a PNG file, or a text is longer than a mebibyte.
pub fn png_text(bytes: &[u8]) -> Result<Vec<TextChunk>> {
    let broken =
        |error: png::DecodingError| Error::format("", format!("expected a PNG file: {error}"));
    let mut reader = png::Decoder::new(Cursor::new(bytes))
        .read_info()
        .map_err(broken)?;
    // Text may also stand behind the picture.
    reader.finish().map_err(broken)?;
    let mut info = reader.info().clone();
    let mut text = Vec::new();
    for chunk in &info.uncompressed_latin1_text {
        text.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    for chunk in &mut info.compressed_latin1_text {
        chunk.decompress_text_with_limit(MAX_TEXT).map_err(broken)?;
        text.push((chunk.keyword.clone(), chunk.get_text().map_err(broken)?));
    }
    for chunk in &mut info.utf8_text {
        chunk.decompress_text_with_limit(MAX_TEXT).map_err(broken)?;
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
    fn a_bomb_is_refused_before_it_is_unpacked() {
        // The header of a PNG of 2³¹−1 squared pixels, with the right checksum, and nothing behind it.
        let mut bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        bomb.extend([
            0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 8, 0, 0, 0, 0,
        ]);
        let mut crc = 0xffff_ffffu32;
        for byte in &bomb[12..] {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 {
                    (crc >> 1) ^ 0xedb8_8320
                } else {
                    crc >> 1
                };
            }
        }
        bomb.extend((!crc).to_be_bytes());
        bomb.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
        let error = Image::from_bytes(&bomb).unwrap_err().to_string();
        assert!(error.contains("2147483647×2147483647"), "{error}");
    }

    #[test]
    fn what_the_mask_does_not_paint_is_kept() {
        let original = Image::new(2, 1, vec![1, 2, 3, 4, 5, 6]);
        let mut image = Image::new(2, 1, vec![9; 6]);
        image.keep_outside(&Mask::new(2, 1, vec![true, false]), &original);
        assert_eq!(image.pixels(), [9, 9, 9, 4, 5, 6]);
        assert_eq!(original.resized(4, 2).width(), 4);

        // Blended only inside the mask, more and more towards its middle.
        let original = Image::new(9, 1, vec![0; 27]);
        let mask = Mask::new(9, 1, (0..9).map(|x| x >= 3).collect());
        let image = Image::new(9, 1, vec![200; 27]).within(&mask, &original, 1.5);
        let reds: Vec<u8> = image.pixels().chunks(3).map(|pixel| pixel[0]).collect();
        assert_eq!(reds[..3], [0, 0, 0]);
        assert!(reds[3] > 50 && reds[3] < 180 && reds[8] == 200, "{reds:?}");
        assert!(reds.is_sorted(), "{reds:?}");
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
