//! A planned scene, and its picture.

use std::sync::Arc;

use image::{RgbImage, RgbaImage};
use tiny_skia::{PixmapPaint, Transform};

use crate::backdrop::{self, Layout, Light};
use crate::canvas::Canvas;
use crate::figure::{Layer, Placed, Studio, paint_contact, paint_ripples};
use crate::random::Random;
use crate::sprites::SpriteSet;
use crate::truth::{Style, Truth};

/// A scene: what it shows, what can be said of it, and how it is drawn.
#[derive(Clone)]
pub struct Scene {
    /// What it shows.
    pub truth: Truth,
    /// Four to six captions, all of them true, the fullest first.
    pub captions: Vec<String>,
    pub(crate) placed: Vec<Placed>,
    pub(crate) layout: Layout,
    /// The stream that the landscape's hills, clouds and drops are drawn from.
    pub(crate) backdrop: Random,
    pub(crate) sprites: Option<Arc<SpriteSet>>,
}

impl Scene {
    /// The picture, `truth.size` pixels a side. The same on every machine.
    pub fn render(&self) -> RgbImage {
        self.paint(&self.placed)
    }

    /// The picture without its things: landscape, hour and weather alone.
    pub fn render_backdrop(&self) -> RgbImage {
        self.paint(&[])
    }

    fn paint(&self, placed: &[Placed]) -> RgbImage {
        let (studio, size) = (self.studio(), self.truth.size);
        let scale = size as f32 / 100.0;
        let flat = self.truth.style == Style::Flat;
        let mut canvas = Canvas::new(size, size, Transform::from_scale(scale, scale), flat);
        let mut random = self.backdrop.clone();
        backdrop::paint_behind(&mut canvas, &self.truth, self.layout, &mut random);
        // What stands further down is nearer.
        let mut order: Vec<&Placed> = placed.iter().collect();
        order.sort_by(|a, b| a.foot.total_cmp(&b.foot));
        for placed in order {
            let layer = Layer::draw(placed, &studio);
            let Some(bounds) = layer.bounds(size) else {
                continue;
            };
            paint_contact(&mut canvas, placed, bounds, &studio);
            let (paint, still) = (PixmapPaint::default(), Transform::identity());
            canvas.pixmap.draw_pixmap(
                layer.left,
                layer.top,
                layer.pixmap.as_ref(),
                &paint,
                still,
                None,
            );
            paint_ripples(&mut canvas, placed, bounds, &studio);
        }
        backdrop::paint_before(&mut canvas, &self.truth, &mut random);
        RgbImage::from_fn(size, size, |x, y| {
            // The sky and the ground are opaque, so premultiplied is plain.
            let p = canvas.pixmap.pixels()[(y * size + x) as usize];
            image::Rgb([p.red(), p.green(), p.blue()])
        })
    }

    /// Instance number `index` alone, in its place, on transparent ground: the pixels that its colour
    /// and box were measured from. Instances count through `truth.objects` in the order drawn; none
    /// beyond the last.
    pub fn render_object(&self, index: usize) -> Option<RgbaImage> {
        let placed = self.placed.get(index)?;
        let size = self.truth.size;
        let layer = Layer::draw(placed, &self.studio());
        let mut picture = RgbaImage::new(size, size);
        for (x, y, p) in layer.opaque(size) {
            let c = p.demultiply();
            picture.put_pixel(x, y, image::Rgba([c.red(), c.green(), c.blue(), c.alpha()]));
        }
        Some(picture)
    }

    fn studio(&self) -> Studio<'_> {
        Studio {
            sprites: self.sprites.as_deref(),
            size: self.truth.size,
            light: Light::new(self.truth.setting, self.truth.time, self.truth.weather),
            style: self.truth.style,
        }
    }
}
