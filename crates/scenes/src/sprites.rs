//! A folder of named sprites: `sprites.jsonl` and the pictures it names.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tiny_skia::{Pixmap, PremultipliedColorU8};

use crate::colour::{Colour, hsv};
use crate::error::SceneError;
use crate::truth::Place;

/// From this share on, the pixels of one hue decide what colour a sprite is said to have.
const SINGLE_HUE: f32 = 0.6;
/// Pixels this far (degrees) from the dominant hue turn with it.
const TURNING_RANGE: f32 = 40.0;
/// A sprite wider or higher than this is refused: it would be read whole into memory.
const MAX_SIDE: u32 = 4096;

/// One named picture on transparent ground, cut to its opaque box.
#[derive(Debug)]
pub struct Sprite {
    pub name: String,
    pub plural: String,
    /// Where it belongs; `thing` in the file counts as ground.
    pub place: Place,
    /// `thing`: it can be anywhere.
    pub anywhere: bool,
    /// The dominant hue in degrees.
    pub hue: f32,
    /// The share of opaque pixels near that hue.
    pub single_hue_fraction: f32,
    width: u32,
    height: u32,
    /// RGBA, not premultiplied.
    pixels: Vec<u8>,
}

impl Sprite {
    /// Whether turning its hue gives it another colour rather than a mixture.
    pub(crate) fn can_turn(&self) -> bool {
        self.single_hue_fraction >= SINGLE_HUE
    }
}

/// The named (`core`) sprites of a folder.
#[derive(Debug)]
pub struct SpriteSet {
    sprites: Vec<Sprite>,
    notice: Option<String>,
}

impl SpriteSet {
    /// Reads `dir/sprites.jsonl`, the picture of every line with `core: true` (PNG or WebP), and `dir/LICENSE.txt` where
    /// there is one.
    ///
    /// # Errors
    /// A file that can't be read; a line that isn't JSON or lacks a field; a field with an impossible
    /// value; a picture that is broken or empty: each with file, line, field, expected and found.
    pub fn load(dir: &Path) -> Result<Self, SceneError> {
        let file = dir.join("sprites.jsonl");
        let text = std::fs::read_to_string(&file).map_err(|source| {
            let file = file.clone();
            match source.kind() {
                ErrorKind::NotFound => SceneError::NoSpriteFolder { file },
                _ => SceneError::Read { path: file, source },
            }
        })?;
        let mut sprites = Vec::new();
        for (i, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let record = Record::parse(&file, i + 1, line)?;
            if record.core()? {
                sprites.push(record.sprite(dir)?);
            }
        }
        if sprites.is_empty() {
            return Err(SceneError::NoSprites {
                file,
                lines: text.lines().count(),
            });
        }
        let licence = dir.join("LICENSE.txt");
        let notice = match std::fs::read_to_string(&licence) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(source) => {
                return Err(SceneError::Read {
                    path: licence,
                    source,
                });
            }
        };
        Ok(Self { sprites, notice })
    }

    /// The licence of the pictures, which what is made from them has to carry.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// The sprites, in the order of the file.
    pub fn sprites(&self) -> &[Sprite] {
        &self.sprites
    }

    /// Sprite `index` scaled so that its longer side is `side` pixels, premultiplied; each pixel is
    /// the mean of what it covers.
    pub(crate) fn pixels(
        &self,
        index: usize,
        side: u32,
        flip: bool,
        hue: Option<Colour>,
    ) -> Pixmap {
        let sprite = &self.sprites[index];
        let longer = sprite.width.max(sprite.height);
        let scaled = |length: u32| (length * side + longer / 2) / longer;
        let (width, height) = (scaled(sprite.width).max(1), scaled(sprite.height).max(1));
        let turn = hue.and_then(Colour::hue).map(|target| (sprite.hue, target));
        let mut canvas =
            crate::canvas::Canvas::new(width, height, tiny_skia::Transform::identity(), false);
        let columns: Vec<_> = (0..width).map(|x| cover(x, width, sprite.width)).collect();
        for y in 0..height {
            let rows = cover(y, height, sprite.height);
            for x in 0..width {
                let column = if flip {
                    &columns[(width - 1 - x) as usize]
                } else {
                    &columns[x as usize]
                };
                let rgba = mean(sprite, column.clone(), rows.clone());
                canvas.pixmap.pixels_mut()[(y * width + x) as usize] = premultiply(rgba, turn);
            }
        }
        canvas.pixmap
    }
}

/// The source pixels under destination pixel `at`.
fn cover(at: u32, to: u32, from: u32) -> std::ops::Range<u32> {
    let start = at * from / to;
    start..((at + 1) * from / to).max(start + 1)
}

/// Mean of the pixels, weighted by their alpha: RGB in 0..=255 and alpha in 0..=255.
fn mean(sprite: &Sprite, xs: std::ops::Range<u32>, ys: std::ops::Range<u32>) -> [f32; 4] {
    let (mut sums, mut count) = ([0u32; 4], 0u32);
    for y in ys {
        for x in xs.clone() {
            let at = ((y * sprite.width + x) * 4) as usize;
            let p = &sprite.pixels[at..at + 4];
            let alpha = u32::from(p[3]);
            for channel in 0..3 {
                sums[channel] += u32::from(p[channel]) * alpha;
            }
            sums[3] += alpha;
            count += 1;
        }
    }
    let alpha = sums[3].max(1) as f32;
    [
        sums[0] as f32 / alpha,
        sums[1] as f32 / alpha,
        sums[2] as f32 / alpha,
        sums[3] as f32 / count.max(1) as f32,
    ]
}

fn premultiply([r, g, b, a]: [f32; 4], turn: Option<(f32, f32)>) -> PremultipliedColorU8 {
    let mut rgb = [r, g, b];
    if let Some((from, to)) = turn {
        rgb = turned(rgb, from, to);
    }
    let alpha = (a + 0.5) as u8;
    let channel = |value: f32| ((value * f32::from(alpha) / 255.0 + 0.5) as u8).min(alpha);
    PremultipliedColorU8::from_rgba(channel(rgb[0]), channel(rgb[1]), channel(rgb[2]), alpha)
        .unwrap_or(PremultipliedColorU8::TRANSPARENT)
}

/// A colour near hue `from` turned by as much as leads `from` to `to`.
fn turned(rgb: [f32; 3], from: f32, to: f32) -> [f32; 3] {
    let (hue, saturation, value) = hsv(rgb.map(|channel| (channel + 0.5) as u8));
    let mut away = hue - from;
    away -= 360.0 * ((away + 180.0) / 360.0).floor();
    if away.abs() > TURNING_RANGE {
        return rgb;
    }
    from_hsv(to + away, saturation, value)
}

/// Red, green and blue in 0..=255 of a hue in degrees.
fn from_hsv(hue: f32, saturation: f32, value: f32) -> [f32; 3] {
    let mut h = hue / 60.0;
    h -= 6.0 * (h / 6.0).floor();
    let chroma = value * saturation;
    let second = chroma * (1.0 - (h - 2.0 * (h / 2.0).floor() - 1.0).abs());
    let (r, g, b) = match h as u32 {
        0 => (chroma, second, 0.0),
        1 => (second, chroma, 0.0),
        2 => (0.0, chroma, second),
        3 => (0.0, second, chroma),
        4 => (second, 0.0, chroma),
        _ => (chroma, 0.0, second),
    };
    [r, g, b].map(|channel| (channel + value - chroma) * 255.0)
}

/// A picture in plain areas of colour: hue, saturation and value each in a few steps.
pub(crate) fn flatten(pixmap: &mut Pixmap) {
    let step = |x: f32, steps: f32| (x * steps + 0.5).floor() / steps;
    for p in pixmap.pixels_mut() {
        let (c, alpha) = (p.demultiply(), p.alpha());
        let (hue, saturation, value) = hsv([c.red(), c.green(), c.blue()]);
        let rgb = from_hsv(
            step(hue / 360.0, 24.0) * 360.0,
            step(saturation, 4.0),
            step(value, 5.0),
        );
        *p = premultiply([rgb[0], rgb[1], rgb[2], f32::from(alpha)], None);
    }
}

/// One line of `sprites.jsonl`.
struct Record<'a> {
    file: &'a Path,
    line: usize,
    value: Value,
}

impl<'a> Record<'a> {
    fn parse(file: &'a Path, line: usize, text: &str) -> Result<Self, SceneError> {
        let record = Record {
            file,
            line,
            value: Value::Null,
        };
        let value: Value = serde_json::from_str(text).map_err(|error| {
            record.wrong(
                "(the line)",
                "a JSON object",
                format!("it can't be read: {error}"),
            )
        })?;
        if !value.is_object() {
            return Err(record.wrong(
                "(the line)",
                "a JSON object",
                format!("it is {}", short(&value)),
            ));
        }
        Ok(Record { value, ..record })
    }

    fn wrong(&self, field: &str, expected: &str, found: String) -> SceneError {
        SceneError::SpriteField {
            file: self.file.to_path_buf(),
            line: self.line,
            field: field.to_owned(),
            expected: expected.to_owned(),
            found,
        }
    }

    /// The field, read by `read`; what it must be stands in `expected`.
    fn field<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, SceneError> {
        let found = self
            .value
            .get(name)
            .ok_or_else(|| self.wrong(name, expected, "it is missing".to_owned()))?;
        read(found).ok_or_else(|| self.wrong(name, expected, format!("it is {}", short(found))))
    }

    /// Lines without the field are not core.
    fn core(&self) -> Result<bool, SceneError> {
        match self.value.get("core") {
            None => Ok(false),
            Some(_) => self.field("core", "true or false", Value::as_bool),
        }
    }

    fn sprite(&self, dir: &Path) -> Result<Sprite, SceneError> {
        let words = |value: &Value| {
            value
                .as_str()
                .map(str::trim)
                .filter(|s| !s.is_empty())
                .map(str::to_lowercase)
        };
        let text = "a text that is not empty";
        let number = |low: f32, high: f32| {
            move |value: &Value| {
                value
                    .as_f64()
                    .map(|n| n as f32)
                    .filter(|n| (low..=high).contains(n))
            }
        };
        let place = |value: &Value| match value.as_str()? {
            "thing" => Some((Place::Ground, true)),
            name => Place::from_name(name).map(|place| (place, false)),
        };
        let picture = self.field("file", text, |value| {
            value.as_str().filter(|s| !s.is_empty()).map(PathBuf::from)
        })?;
        let (width, height, pixels) = self.read_picture(&dir.join(picture))?;
        let (place, anywhere) = self.field("place", "ground, air, water or thing", place)?;
        Ok(Sprite {
            name: self.field("name", text, words)?,
            plural: self.field("plural", text, words)?,
            place,
            anywhere,
            hue: self.field("hue_degrees", "a number from 0 to 360", number(0.0, 360.0))?,
            single_hue_fraction: self.field(
                "single_hue_fraction",
                "a number from 0 to 1",
                number(0.0, 1.0),
            )?,
            width,
            height,
            pixels,
        })
    }

    /// The picture cut to the box around everything that isn't nearly transparent. The box is
    /// measured, not believed.
    fn read_picture(&self, path: &Path) -> Result<(u32, u32, Vec<u8>), SceneError> {
        let unusable = |reason: String| SceneError::SpritePicture {
            file: self.file.to_path_buf(),
            line: self.line,
            picture: path.to_path_buf(),
            reason,
        };
        let picture = image::open(path)
            .map_err(|error| unusable(error.to_string()))?
            .to_rgba8();
        let (width, height) = picture.dimensions();
        if width.max(height) > MAX_SIDE {
            return Err(unusable(format!(
                "it is {width} × {height} pixels, expected at most {MAX_SIDE} a side"
            )));
        }
        let solid = || picture.enumerate_pixels().filter(|(_, _, p)| p.0[3] >= 16);
        let span = |at: fn(u32, u32) -> u32| {
            let low = solid().map(|(x, y, _)| at(x, y)).min();
            low.zip(solid().map(|(x, y, _)| at(x, y)).max())
        };
        let (Some((x0, x1)), Some((y0, y1))) = (span(|x, _| x), span(|_, y| y)) else {
            return Err(unusable("it is wholly transparent".to_owned()));
        };
        let cut = image::imageops::crop_imm(&picture, x0, y0, x1 - x0 + 1, y1 - y0 + 1).to_image();
        Ok((cut.width(), cut.height(), cut.into_raw()))
    }
}

/// A value as an error shows it.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
