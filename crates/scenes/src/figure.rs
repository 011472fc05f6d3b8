//! One object as pixels of its own: drawn or taken from a sprite, lit by the hour, measured.

use tiny_skia::{Pixmap, PremultipliedColorU8, Transform};

use crate::backdrop::Light;
use crate::canvas::{Canvas, Look, Rgb, ellipse, path};
use crate::colour::{self, Colour};
use crate::objects::Drawing;
use crate::sprites::{SpriteSet, flatten};
use crate::truth::{PixelBox, Place, Style};

/// What is drawn.
#[derive(Clone, Copy)]
pub(crate) enum Figure {
    /// A drawing in a paint.
    Drawn(&'static Drawing, Colour),
    /// The sprite of that index, its hue turned to a colour's, or as it is.
    Sprite(usize, Option<Colour>),
}

/// What is drawn, and where: a box of `side` units around `cx`, standing on `foot`.
#[derive(Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) figure: Figure,
    pub(crate) place: Place,
    pub(crate) cx: f32,
    pub(crate) foot: f32,
    pub(crate) side: f32,
    pub(crate) flip: bool,
    /// Tangent of half the angle it leans by; its sine and cosine are then fractions.
    pub(crate) lean: f32,
}

/// What every object of a picture is drawn with.
#[derive(Clone, Copy)]
pub(crate) struct Studio<'a> {
    pub(crate) sprites: Option<&'a SpriteSet>,
    /// The picture's side in pixels.
    pub(crate) size: u32,
    pub(crate) light: Light,
    pub(crate) style: Style,
}

/// An object's own pixels, premultiplied, and where the first of them lies in the picture.
pub(crate) struct Layer {
    pub(crate) pixmap: Pixmap,
    pub(crate) left: i32,
    pub(crate) top: i32,
}

/// Height in a drawing's 100 units on which it stands.
const FOOT: f32 = 97.0;
/// Empty units around a drawing, so that outlines and leaning things aren't cut.
const MARGIN: f32 = 16.0;
/// From this alpha on a pixel counts as the object's.
const OPAQUE: u8 = 128;

impl Layer {
    /// Draws `placed`.
    pub(crate) fn draw(placed: &Placed, studio: &Studio) -> Self {
        let pixel = studio.size as f32 / 100.0;
        let flat = studio.style == Style::Flat;
        let mut layer = match (placed.figure, studio.sprites) {
            (Figure::Drawn(drawing, colour), _) => drawn(placed, drawing, colour, pixel, flat),
            (Figure::Sprite(index, hue), Some(set)) => {
                let side = (placed.side * pixel + 0.5) as u32;
                let mut pixmap = set.pixels(index, side.max(1), placed.flip, hue);
                if flat {
                    flatten(&mut pixmap);
                }
                let left = placed.cx * pixel - pixmap.width() as f32 / 2.0;
                let top = placed.foot * pixel - pixmap.height() as f32;
                Layer {
                    left: round(left),
                    top: round(top),
                    pixmap,
                }
            }
            (Figure::Sprite(..), None) => unreachable!("a sprite is planned only with its set"),
        };
        for p in layer.pixmap.pixels_mut() {
            *p = lit(*p, &studio.light);
        }
        layer
    }

    /// (x in the picture, y in the picture, pixel) of every pixel of the object inside the picture.
    pub(crate) fn opaque(
        &self,
        size: u32,
    ) -> impl Iterator<Item = (u32, u32, PremultipliedColorU8)> {
        let width = self.pixmap.width();
        let pixels = self.pixmap.pixels().iter().zip(0u32..);
        pixels
            .filter(|(p, _)| p.alpha() >= OPAQUE)
            .filter_map(move |(p, i)| {
                let x = u32::try_from(self.left + (i % width) as i32).ok()?;
                let y = u32::try_from(self.top + (i / width) as i32).ok()?;
                (x < size && y < size).then_some((x, y, *p))
            })
    }

    /// The box around the object's pixels; none when it has none inside the picture.
    pub(crate) fn bounds(&self, size: u32) -> Option<PixelBox> {
        let mut found: Option<PixelBox> = None;
        for (x, y, _) in self.opaque(size) {
            let b = found.get_or_insert(PixelBox {
                x0: x,
                y0: y,
                x1: x + 1,
                y1: y + 1,
            });
            b.x0 = b.x0.min(x);
            b.y0 = b.y0.min(y);
            b.x1 = b.x1.max(x + 1);
            b.y1 = b.y1.max(y + 1);
        }
        found
    }

    /// The one colour name of the object's pixels, as the hour's light shows them.
    pub(crate) fn colour(&self, size: u32) -> Option<Colour> {
        named(self.opaque(size).map(|(_, _, p)| p))
    }

    /// Pixels of the object that lie outside the picture.
    pub(crate) fn cut(&self, size: u32) -> usize {
        let all = self
            .pixmap
            .pixels()
            .iter()
            .filter(|p| p.alpha() >= OPAQUE)
            .count();
        all - self.opaque(size).count()
    }
}

/// The one colour name of these pixels.
pub(crate) fn named(pixels: impl Iterator<Item = PremultipliedColorU8>) -> Option<Colour> {
    colour::dominant(pixels.map(|p| {
        let c = p.demultiply();
        [c.red(), c.green(), c.blue()]
    }))
}

fn drawn(placed: &Placed, drawing: &Drawing, colour: Colour, pixel: f32, flat: bool) -> Layer {
    let scale = placed.side / 100.0 * pixel;
    let whole = (100.0 + 2.0 * MARGIN) * scale;
    let side = whole as u32 + 2;
    let left = placed.cx * pixel - whole / 2.0;
    let top = placed.foot * pixel - (FOOT + MARGIN) * scale;
    let (left_px, top_px) = (round(left), round(top));
    // Leaning: a rotation about the drawing's middle, (50, 50).
    let t = placed.lean;
    let (cos, sin) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
    let side_x = if placed.flip { -1.0 } else { 1.0 };
    let (mx, my) = (MARGIN + 50.0, MARGIN + 50.0);
    let (a, b, c, d) = (side_x * cos, sin, -side_x * sin, cos);
    let transform = Transform::from_row(
        a * scale,
        b * scale,
        c * scale,
        d * scale,
        (mx - 50.0 * (a + c)) * scale + (left - left_px as f32),
        (my - 50.0 * (b + d)) * scale + (top - top_px as f32),
    );
    let mut canvas = Canvas::new(side, side, transform, flat);
    (drawing.draw)(&mut canvas, &colour.ink());
    Layer {
        pixmap: canvas.pixmap,
        left: left_px,
        top: top_px,
    }
}

fn round(value: f32) -> i32 {
    (value + 0.5).floor() as i32
}

/// The hour's light on one premultiplied pixel, and the weather's veil before it.
fn lit(p: PremultipliedColorU8, light: &Light) -> PremultipliedColorU8 {
    let alpha = p.alpha();
    if alpha == 0 {
        return p;
    }
    let (Rgb(r, g, b), veil) = light.veil;
    let cover = f32::from(alpha) / 255.0;
    let channel = |value: u8, factor: f32, haze: u8| {
        let lit = f32::from(value) * factor;
        let veiled = lit + (f32::from(haze) * cover - lit) * veil;
        ((veiled + 0.5) as u8).min(alpha)
    };
    let [fr, fg, fb] = light.object;
    PremultipliedColorU8::from_rgba(
        channel(p.red(), fr, r),
        channel(p.green(), fg, g),
        channel(p.blue(), fb, b),
        alpha,
    )
    .unwrap_or(p)
}

/// The shadow or the disturbed water that ties an object to its ground; `bounds` is its pixel box.
pub(crate) fn paint_contact(
    canvas: &mut Canvas,
    placed: &Placed,
    bounds: PixelBox,
    studio: &Studio,
) {
    let (light, unit) = (&studio.light, 100.0 / studio.size as f32);
    let (x0, x1, y1) = (
        bounds.x0 as f32 * unit,
        bounds.x1 as f32 * unit,
        bounds.y1 as f32 * unit,
    );
    let (cx, half) = ((x0 + x1) / 2.0, (x1 - x0) / 2.0);
    match placed.place {
        Place::Air => {}
        Place::Ground => {
            let shade = light.on(Rgb(52, 44, 66)).mix(Rgb(10, 8, 26), 0.4);
            canvas.fill(
                &ellipse(cx + half * 0.12, y1 - half * 0.02, half * 1.2, half * 0.24),
                Look::Glow(shade, 0.62),
            );
        }
        Place::Water => {
            let deep = light.on(Rgb(24, 66, 120));
            canvas.fill(
                &ellipse(cx, y1 - 0.4, half * 1.16, half * 0.22),
                Look::Glow(deep, 0.85),
            );
        }
    }
}

/// Ripples in front of a thing that swims.
pub(crate) fn paint_ripples(
    canvas: &mut Canvas,
    placed: &Placed,
    bounds: PixelBox,
    studio: &Studio,
) {
    if placed.place != Place::Water {
        return;
    }
    let (light, unit) = (&studio.light, 100.0 / studio.size as f32);
    let (x0, x1, y1) = (
        bounds.x0 as f32 * unit,
        bounds.x1 as f32 * unit,
        bounds.y1 as f32 * unit,
    );
    let (cx, half) = ((x0 + x1) / 2.0, (x1 - x0) / 2.0);
    let foam = light.on(Rgb(236, 250, 255));
    for (width, dy, stroke) in [(0.84, -0.4, 1.3), (1.1, 1.6, 0.9), (0.7, 3.2, 0.7)] {
        let w = half * width;
        let arc = path(&format!(
            "M {} {} Q {cx} {} {} {}",
            cx - w,
            y1 + dy - 0.8,
            y1 + dy + 1.6,
            cx + w,
            y1 + dy - 0.8
        ));
        canvas.stroke(&arc, stroke, Look::Clear(foam, 0.8));
    }
}
