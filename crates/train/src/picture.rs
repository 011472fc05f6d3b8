//! One picture: decode, bring to its shape, to numbers.

use std::io::{BufRead, Cursor, Seek, Write};
use std::path::Path;

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage};
use velatura::checkpoint::write_atomically;
use velatura_tensor::Tensor;

use crate::error::{Error, Result};

/// File name endings that count as pictures.
pub const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "bmp", "gif"];

/// Whether the file's name ends like a picture's.
pub fn is_picture(file: &Path) -> bool {
    file.extension()
        .and_then(|ending| ending.to_str())
        .is_some_and(is_ending)
}

/// Whether a picture's name ends like this, after its dot.
pub fn is_ending(ending: &str) -> bool {
    EXTENSIONS
        .iter()
        .any(|known| ending.eq_ignore_ascii_case(known))
}

/// Reads width and height from the header only; the cheap test of whether this is a picture at all.
///
/// # Errors
/// The decoder's message.
pub fn dimensions(file: &Path) -> Result<(u32, u32), String> {
    if file.metadata().is_ok_and(|about| about.len() == 0) {
        return Err("it is empty".into());
    }
    let reader = ImageReader::open(file)
        .and_then(ImageReader::with_guessed_format)
        .map_err(in_one_line)?;
    match reader.into_dimensions() {
        Ok((0, _) | (_, 0)) => Err("it is empty".into()),
        Ok(size) => Ok(size),
        Err(error) => Err(in_one_line(error)),
    }
}

/// Decodes a file: turned as its EXIF says, transparent parts on white.
///
/// # Errors
/// The decoder's message; a picture that would need more than 1 GiB is refused.
pub fn decode(file: &Path) -> Result<RgbImage, String> {
    decode_from(ImageReader::open(file).map_err(in_one_line)?)
}

/// [`decode`] for a file that is in memory.
///
/// # Errors
/// As [`decode`].
pub fn decode_bytes(bytes: &[u8]) -> Result<RgbImage, String> {
    decode_from(ImageReader::new(Cursor::new(bytes)))
}

fn decode_from<R: BufRead + Seek>(reader: ImageReader<R>) -> Result<RgbImage, String> {
    let mut reader = reader.with_guessed_format().map_err(in_one_line)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(1 << 30);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(in_one_line)?;
    let orientation = decoder.orientation().map_err(in_one_line)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(in_one_line)?;
    picture.apply_orientation(orientation);
    Ok(on_white(picture))
}

/// The decoders' messages, some of which end or break lines.
fn in_one_line(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn on_white(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let rgba = picture.into_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, a] = rgba.get_pixel(x, y).0;
        let blend =
            |c: u8| ((u32::from(c) * u32::from(a) + 255 * (255 - u32::from(a)) + 127) / 255) as u8;
        Rgb([blend(r), blend(g), blend(b)])
    })
}

/// Scales a picture until it just covers `width`×`height`, and cuts off what is left over.
///
/// `place` says where the piece lies that stays, across and down: 0 at the beginning, 0.5 in the middle, almost 1 at
/// the end.
pub fn fit(picture: RgbImage, [width, height]: [usize; 2], place: [f32; 2]) -> RgbImage {
    let (width, height) = (width as u32, height as u32);
    if picture.dimensions() == (width, height) {
        return picture;
    }
    let (whole_width, whole_height) = picture.dimensions();
    // side·a/b, rounded; what comes out is at most `side` for the side that is too long.
    let scaled = |side: u32, a: u32, b: u32| {
        let (side, a, b) = (u64::from(side), u64::from(a), u64::from(b));
        ((side * a + b / 2) / b).max(1) as u32
    };
    let cut_width = scaled(whole_height, width, height).min(whole_width);
    let cut_height = scaled(whole_width, height, width).min(whole_height);
    let offset = |room: u32, place: f32| (room as f32 * place) as u32;
    // Cutting first is exact (the piece keeps its own scale) and saves resampling what is thrown away.
    let cut = imageops::crop_imm(
        &picture,
        offset(whole_width - cut_width, place[0]),
        offset(whole_height - cut_height, place[1]),
        cut_width,
        cut_height,
    )
    .to_image();
    if cut.dimensions() == (width, height) {
        cut
    } else {
        imageops::resize(&cut, width, height, FilterType::Lanczos3)
    }
}

/// Left and right exchanged.
pub fn mirrored(picture: &RgbImage) -> RgbImage {
    imageops::flip_horizontal(picture)
}

/// Appends the `width`×`height` window at (x, y) to `out` as `[height, width, 3]` in [-1, 1].
///
/// # Panics
/// When the window leaves the picture.
pub fn append_window(
    picture: &RgbImage,
    [x, y]: [usize; 2],
    [width, height]: [usize; 2],
    out: &mut Vec<f32>,
) {
    let whole = [picture.width() as usize, picture.height() as usize];
    assert!(
        x + width <= whole[0] && y + height <= whole[1],
        "window {x},{y}+{width}x{height} in a picture of {whole:?}"
    );
    let bytes = picture.as_raw();
    for row in y..y + height {
        let start = (row * whole[0] + x) * 3;
        out.extend(
            bytes[start..start + width * 3]
                .iter()
                .map(|&byte| f32::from(byte) / 127.5 - 1.0),
        );
    }
}

/// `pixels: [height, width, 3]` in [-1, 1] to 8 bits, rounding, with what lies outside cut off.
pub fn to_rgb(pixels: &[f32], width: u32, height: u32) -> Option<RgbImage> {
    let bytes = pixels
        .iter()
        .map(|&value| ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8)
        .collect();
    RgbImage::from_raw(width, height, bytes)
}

/// The first `most` of the pictures `[B, H, W, 3]` in [-1, 1].
pub fn pictures_of(pixels: &Tensor, most: usize) -> Vec<RgbImage> {
    let (height, width) = (pixels.dim(1), pixels.dim(2));
    let each = pixels.as_slice().chunks_exact(height * width * 3);
    each.take(most)
        .filter_map(|pixels| to_rgb(pixels, width as u32, height as u32))
        .collect()
}

/// Writes a PNG file, whole or not at all, and returns its bytes.
///
/// # Errors
/// The place is not writable, or the disk is full.
pub fn write_png(picture: &RgbImage, path: &Path) -> Result<Vec<u8>> {
    let mut png = Cursor::new(Vec::new());
    picture
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|error| Error::run(path, format!("cannot make the picture: {error}")))?;
    let png = png.into_inner();
    write_atomically(path, |out| out.write_all(&png))?;
    Ok(png)
}

/// Pictures of one size side by side, `columns` a row, two white pixels between them.
pub fn grid(pictures: &[RgbImage], columns: usize) -> RgbImage {
    const GAP: u32 = 2;
    let Some(first) = pictures.first() else {
        return RgbImage::new(1, 1);
    };
    let columns = columns.clamp(1, pictures.len());
    let rows = pictures.len().div_ceil(columns);
    let (width, height) = first.dimensions();
    let mut sheet = RgbImage::from_pixel(
        columns as u32 * (width + GAP) - GAP,
        rows as u32 * (height + GAP) - GAP,
        Rgb([255, 255, 255]),
    );
    for (index, picture) in pictures.iter().enumerate() {
        let (column, row) = ((index % columns) as u32, (index / columns) as u32);
        imageops::replace(
            &mut sheet,
            picture,
            i64::from(column * (width + GAP)),
            i64::from(row * (height + GAP)),
        );
    }
    sheet
}

/// Pictures of any sizes one below the other, eight white pixels between them.
pub fn stacked(pictures: &[RgbImage]) -> RgbImage {
    const GAP: u32 = 8;
    let width = pictures.iter().map(RgbImage::width).max().unwrap_or(1);
    let heights = pictures.iter().map(|picture| picture.height() + GAP);
    let height = heights.sum::<u32>().saturating_sub(GAP).max(1);
    let mut sheet = RgbImage::from_pixel(width, height, Rgb([255, 255, 255]));
    let mut top = 0;
    for picture in pictures {
        imageops::replace(&mut sheet, picture, 0, top);
        top += i64::from(picture.height() + GAP);
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pixel says where it was.
    fn numbered(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 0]))
    }

    #[test]
    fn what_is_cut_off_lies_where_it_is_wanted() {
        let first = |size, place| fit(numbered(30, 10), size, place).get_pixel(0, 0).0;
        assert_eq!(first([10, 10], [0.0, 0.0]), [0, 0, 0]);
        assert_eq!(first([10, 10], [0.5, 0.5]), [10, 0, 0]);
        assert_eq!(first([10, 10], [0.999, 0.999]), [19, 0, 0]);
        // Too high for this shape: cut above and below, and nothing at the sides.
        let cut = fit(numbered(30, 10), [30, 6], [0.0, 0.5]);
        assert_eq!(
            (cut.dimensions(), cut.get_pixel(0, 0).0),
            ((30, 6), [0, 2, 0])
        );
        // Any size goes into any other, also the smallest.
        for (width, height) in [(1, 1), (1, 200), (199, 1), (33, 57)] {
            let picture = fit(numbered(width, height), [24, 16], [0.9, 0.1]);
            assert_eq!(picture.dimensions(), (24, 16));
        }
    }

    #[test]
    fn a_mirror_exchanges_left_and_right_only() {
        let mirrored = mirrored(&numbered(5, 3));
        assert_eq!(mirrored.get_pixel(0, 2).0, [4, 2, 0]);
    }

    #[test]
    fn pixels_survive_the_way_to_numbers_and_back() {
        let picture = RgbImage::from_fn(16, 16, |x, y| {
            Rgb([(x * 16) as u8, (y * 16) as u8, (x * y) as u8])
        });
        let mut numbers = Vec::new();
        append_window(&picture, [0, 0], [16, 16], &mut numbers);
        assert_eq!(to_rgb(&numbers, 16, 16).unwrap(), picture);
        let mut window = Vec::new();
        append_window(&picture, [3, 5], [8, 6], &mut window);
        assert_eq!(window.len(), 8 * 6 * 3);
        assert_eq!(window[..3], numbers[(5 * 16 + 3) * 3..][..3]);
    }

    #[test]
    fn transparent_parts_become_white() {
        let rgba = image::RgbaImage::from_pixel(2, 1, image::Rgba([10, 20, 30, 0]));
        assert_eq!(on_white(rgba.into()).get_pixel(0, 0).0, [255, 255, 255]);
    }

    #[test]
    fn a_grid_has_room_for_all() {
        let pictures = vec![RgbImage::new(8, 8); 5];
        assert_eq!(grid(&pictures, 3).dimensions(), (28, 18));
        let rows = [RgbImage::new(28, 18), RgbImage::new(9, 4)];
        let sheet = stacked(&rows);
        assert_eq!(sheet.dimensions(), (28, 30));
        assert_eq!(sheet.get_pixel(8, 26).0, [0; 3]);
        assert_eq!(sheet.get_pixel(9, 26).0, [255; 3]);
    }
}
