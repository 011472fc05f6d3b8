//! One picture: decode, make square, crop, to numbers.

use std::path::Path;

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, Rgb, RgbImage};

/// File name endings that count as pictures.
pub const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "bmp", "gif"];

/// Whether the file's name ends like a picture's.
pub fn is_picture(file: &Path) -> bool {
    file.extension()
        .and_then(|ending| ending.to_str())
        .is_some_and(|ending| {
            EXTENSIONS
                .iter()
                .any(|known| ending.eq_ignore_ascii_case(known))
        })
}

/// Reads width and height from the header only; the cheap test of whether this is a picture at all.
///
/// # Errors
/// The decoder's message.
pub fn dimensions(file: &Path) -> Result<(u32, u32), String> {
    let reader = ImageReader::open(file)
        .and_then(ImageReader::with_guessed_format)
        .map_err(|error| error.to_string())?;
    match reader.into_dimensions() {
        Ok((0, _) | (_, 0)) => Err("it is empty".into()),
        Ok(size) => Ok(size),
        Err(error) => Err(error.to_string()),
    }
}

/// Decodes a file: turned as its EXIF says, transparent parts on white.
///
/// # Errors
/// The decoder's message; a picture that would need more than 1 GiB is refused.
pub fn decode(file: &Path) -> Result<RgbImage, String> {
    let mut reader = ImageReader::open(file)
        .and_then(ImageReader::with_guessed_format)
        .map_err(|error| error.to_string())?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(1 << 30);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let orientation = decoder.orientation().map_err(|error| error.to_string())?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    picture.apply_orientation(orientation);
    Ok(on_white(picture))
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

/// Scales the shorter side to `side` and cuts the middle square out.
pub fn square(picture: RgbImage, side: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    if (width, height) == (side, side) {
        return picture;
    }
    let shorter = width.min(height);
    // Cutting first is exact (the square keeps its own scale) and saves resampling what is thrown away.
    let cut = imageops::crop_imm(
        &picture,
        (width - shorter) / 2,
        (height - shorter) / 2,
        shorter,
        shorter,
    )
    .to_image();
    if shorter == side {
        cut
    } else {
        imageops::resize(&cut, side, side, FilterType::Lanczos3)
    }
}

/// Appends the `side`×`side` window at (x, y) to `out` as `[side, side, 3]` in [-1, 1].
///
/// # Panics
/// When the window leaves the picture.
pub fn append_window(picture: &RgbImage, x: usize, y: usize, side: usize, out: &mut Vec<f32>) {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    assert!(
        x + side <= width && y + side <= height,
        "window {x},{y}+{side} in a picture of {width}x{height}"
    );
    let bytes = picture.as_raw();
    for row in y..y + side {
        let start = (row * width + x) * 3;
        out.extend(
            bytes[start..start + side * 3]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_keep_the_middle() {
        let picture = RgbImage::from_fn(30, 10, |x, _| {
            if (10..20).contains(&x) {
                Rgb([255, 0, 0])
            } else {
                Rgb([0; 3])
            }
        });
        let square = square(picture, 10);
        assert_eq!(square.dimensions(), (10, 10));
        assert!(square.pixels().all(|p| p.0 == [255, 0, 0]));
    }

    #[test]
    fn pixels_survive_the_way_to_numbers_and_back() {
        let picture = RgbImage::from_fn(16, 16, |x, y| {
            Rgb([(x * 16) as u8, (y * 16) as u8, (x * y) as u8])
        });
        let mut numbers = Vec::new();
        append_window(&picture, 0, 0, 16, &mut numbers);
        assert_eq!(to_rgb(&numbers, 16, 16).unwrap(), picture);
        let mut window = Vec::new();
        append_window(&picture, 3, 5, 8, &mut window);
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
    }
}
