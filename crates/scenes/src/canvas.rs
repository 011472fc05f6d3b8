//! Drawing: paths from short strings, filled with flat colour, gradients or soft shade.
//!
//! Everything a picture's bytes depend on is +, −, ×, ÷ and square root, which IEEE 754 fixes to the
//! bit: paths are lines and quadratic curves only (tiny-skia handles cubic ones with `acos` in
//! places, and those differ from platform to platform), and no sine is taken anywhere.

use tiny_skia::{
    Color, FillRule, GradientStop, LineCap, LineJoin, LinearGradient, Paint, Path, PathBuilder,
    Pixmap, Point, RadialGradient, Rect, Shader, SpreadMode, Stroke, Transform,
};

use crate::colour::Ink;

/// Red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rgb(pub(crate) u8, pub(crate) u8, pub(crate) u8);

impl Rgb {
    /// `share` of the way to `other`.
    pub(crate) fn mix(self, other: Rgb, share: f32) -> Rgb {
        let blend = |a: u8, b: u8| {
            (f32::from(a) + (f32::from(b) - f32::from(a)) * share + 0.5).clamp(0.0, 255.0) as u8
        };
        Rgb(
            blend(self.0, other.0),
            blend(self.1, other.1),
            blend(self.2, other.2),
        )
    }

    /// Each channel times its factor.
    pub(crate) fn times(self, factors: [f32; 3]) -> Rgb {
        let scale = |a: u8, factor: f32| (f32::from(a) * factor + 0.5).clamp(0.0, 255.0) as u8;
        Rgb(
            scale(self.0, factors[0]),
            scale(self.1, factors[1]),
            scale(self.2, factors[2]),
        )
    }

    fn color(self, alpha: f32) -> Color {
        let channel = |a: u8| f32::from(a) / 255.0;
        Color::from_rgba(
            channel(self.0),
            channel(self.1),
            channel(self.2),
            alpha.clamp(0.0, 1.0),
        )
        .unwrap_or(Color::BLACK)
    }
}

/// How a shape is filled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look {
    /// One colour.
    Flat(Rgb),
    /// One colour, partly transparent.
    Clear(Rgb, f32),
    /// From the shape's top to its bottom.
    Down(Rgb, Rgb),
    /// Lit from the upper left, with shade at the lower right and a thin outline.
    Soft(Ink),
    /// Like `Soft` without the outline, for parts that merge with their neighbours.
    Smooth(Ink),
    /// Opaque (to the given alpha) in the middle, fading to nothing at the shape's edge.
    Glow(Rgb, f32),
}

/// A path; none when there is nothing to draw (no points, or some that aren't finite).
pub(crate) type Shape = Option<Path>;

/// A picture being drawn, with the transform from drawing units to pixels.
pub(crate) struct Canvas {
    pub(crate) pixmap: Pixmap,
    pub(crate) transform: Transform,
    /// Plain areas of colour instead of light and shade.
    flat: bool,
}

impl Canvas {
    /// A transparent canvas of `width` × `height` pixels.
    ///
    /// # Panics
    /// When a side is 0 or the picture would not fit into memory's address range.
    pub(crate) fn new(width: u32, height: u32, transform: Transform, flat: bool) -> Self {
        let pixmap = Pixmap::new(width, height);
        assert!(
            pixmap.is_some(),
            "{width} × {height} is no size for a picture"
        );
        let Some(pixmap) = pixmap else { unreachable!() };
        Self {
            pixmap,
            transform,
            flat,
        }
    }

    /// Fills `path`.
    pub(crate) fn fill(&mut self, path: &Shape, look: Look) {
        let Some(bounds) = path.as_ref().map(Path::bounds) else {
            return;
        };
        let shader = match look {
            Look::Down(top, bottom) if self.flat => {
                Shader::SolidColor(top.mix(bottom, 0.5).color(1.0))
            }
            Look::Soft(ink) | Look::Smooth(ink) if self.flat => {
                Shader::SolidColor(ink.base.color(1.0))
            }
            Look::Glow(colour, alpha) if self.flat => {
                Shader::SolidColor(colour.color(alpha * FLAT_GLOW))
            }
            Look::Flat(colour) => Shader::SolidColor(colour.color(1.0)),
            Look::Clear(colour, alpha) => Shader::SolidColor(colour.color(alpha)),
            Look::Down(top, bottom) => vertical(bounds, &[(0.0, top, 1.0), (1.0, bottom, 1.0)]),
            Look::Soft(ink) | Look::Smooth(ink) => soft(bounds, ink),
            Look::Glow(colour, alpha) => glow(bounds, colour, alpha),
        };
        self.fill_shader(path, shader);
        if let Look::Soft(ink) = look {
            self.stroke(path, 1.5, Look::Clear(ink.line, 0.5));
        }
    }

    /// Fills `path` from top to bottom with (position in 0..=1, colour, alpha) stops.
    pub(crate) fn fill_stops(&mut self, path: &Shape, stops: &[(f32, Rgb, f32)]) {
        if let Some(bounds) = path.as_ref().map(Path::bounds) {
            let stops = if self.flat {
                bands(stops)
            } else {
                stops.to_vec()
            };
            self.fill_shader(path, vertical(bounds, &stops));
        }
    }

    fn fill_shader(&mut self, path: &Shape, shader: Shader<'_>) {
        let paint = Paint {
            shader,
            anti_alias: true,
            ..Paint::default()
        };
        let Some(path) = path else { return };
        self.pixmap
            .fill_path(path, &paint, FillRule::Winding, self.transform, None);
    }

    /// Draws the line of `path`, `width` drawing units wide, with round ends; gradients are not
    /// meant for lines and count as their first colour.
    pub(crate) fn stroke(&mut self, path: &Shape, width: f32, look: Look) {
        let (colour, alpha) = match look {
            Look::Flat(colour) | Look::Down(colour, _) => (colour, 1.0),
            Look::Clear(colour, alpha) | Look::Glow(colour, alpha) => (colour, alpha),
            Look::Soft(ink) | Look::Smooth(ink) => (ink.base, 1.0),
        };
        let paint = Paint {
            shader: Shader::SolidColor(colour.color(alpha)),
            anti_alias: true,
            ..Paint::default()
        };
        let stroke = Stroke {
            width,
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        let Some(path) = path else { return };
        self.pixmap
            .stroke_path(path, &paint, &stroke, self.transform, None);
    }

    /// A white, soft highlight.
    pub(crate) fn gloss(&mut self, cx: f32, cy: f32, rx: f32, ry: f32) {
        if self.flat {
            return;
        }
        self.fill(
            &ellipse(cx, cy, rx, ry),
            Look::Glow(Rgb(255, 255, 255), 0.75),
        );
    }

    /// An eye: dark, with a glint, `r` units in radius.
    pub(crate) fn eye(&mut self, cx: f32, cy: f32, r: f32) {
        self.fill(&ellipse(cx, cy, r, r * 1.15), Look::Flat(Rgb(28, 24, 40)));
        let glint = ellipse(cx - r * 0.3, cy - r * 0.4, r * 0.36, r * 0.36);
        self.fill(&glint, Look::Flat(Rgb(255, 255, 255)));
    }
}

/// How much of a glow's opacity its shape has where it is one plain area.
const FLAT_GLOW: f32 = 0.42;

/// The stops of a gradient as steps: as many plain bands.
fn bands(stops: &[(f32, Rgb, f32)]) -> Vec<(f32, Rgb, f32)> {
    const COUNT: usize = 6;
    let (first, last) = match stops {
        [first, .., last] => (first.0, last.0),
        _ => return stops.to_vec(),
    };
    let mut steps = Vec::new();
    for i in 0..COUNT {
        let edge = |i: usize| first + (last - first) * i as f32 / COUNT as f32;
        let middle = (edge(i) + edge(i + 1)) / 2.0;
        let (colour, alpha) = at(stops, middle);
        steps.push((edge(i), colour, alpha));
        steps.push((edge(i + 1), colour, alpha));
    }
    steps
}

/// Colour and alpha of a gradient at a position.
fn at(stops: &[(f32, Rgb, f32)], position: f32) -> (Rgb, f32) {
    for pair in stops.windows(2) {
        let ((from, a, alpha), (to, b, beta)) = (pair[0], pair[1]);
        if position <= to {
            let share = (position - from) / (to - from);
            return (a.mix(b, share), alpha + (beta - alpha) * share);
        }
    }
    stops
        .last()
        .map_or((Rgb(0, 0, 0), 0.0), |&(_, colour, alpha)| (colour, alpha))
}

fn vertical(bounds: Rect, stops: &[(f32, Rgb, f32)]) -> Shader<'static> {
    let first = stops
        .first()
        .map_or(Color::TRANSPARENT, |&(_, colour, alpha)| {
            colour.color(alpha)
        });
    let stops = stops
        .iter()
        .map(|&(at, colour, alpha)| GradientStop::new(at, colour.color(alpha)))
        .collect();
    LinearGradient::new(
        Point::from_xy(bounds.left(), bounds.top()),
        Point::from_xy(bounds.left(), bounds.bottom()),
        stops,
        SpreadMode::Pad,
        Transform::identity(),
    )
    .unwrap_or(Shader::SolidColor(first))
}

/// A circle of light around a point a third from the left and the top.
fn soft(bounds: Rect, ink: Ink) -> Shader<'static> {
    let centre = Point::from_xy(
        bounds.left() + bounds.width() * 0.36,
        bounds.top() + bounds.height() * 0.28,
    );
    let radius = bounds.width().max(bounds.height()) * 0.86;
    let stops = vec![
        GradientStop::new(0.0, ink.light.color(1.0)),
        GradientStop::new(0.42, ink.base.color(1.0)),
        GradientStop::new(1.0, ink.dark.color(1.0)),
    ];
    RadialGradient::new(
        centre,
        0.0,
        centre,
        radius,
        stops,
        SpreadMode::Pad,
        Transform::identity(),
    )
    .unwrap_or(Shader::SolidColor(ink.base.color(1.0)))
}

/// A unit circle of fading colour, stretched to `bounds`.
fn glow(bounds: Rect, colour: Rgb, alpha: f32) -> Shader<'static> {
    let stretch = Transform::from_row(
        bounds.width() / 2.0,
        0.0,
        0.0,
        bounds.height() / 2.0,
        bounds.left() + bounds.width() / 2.0,
        bounds.top() + bounds.height() / 2.0,
    );
    let origin = Point::from_xy(0.0, 0.0);
    let stops = vec![
        GradientStop::new(0.0, colour.color(alpha)),
        GradientStop::new(0.45, colour.color(alpha * 0.62)),
        GradientStop::new(1.0, colour.color(0.0)),
    ];
    RadialGradient::new(origin, 0.0, origin, 1.0, stops, SpreadMode::Pad, stretch)
        .unwrap_or(Shader::SolidColor(colour.color(alpha)))
}

/// An ellipse around (cx, cy).
pub(crate) fn ellipse(cx: f32, cy: f32, rx: f32, ry: f32) -> Shape {
    let mut builder = PathBuilder::new();
    if let Some(oval) = Rect::from_ltrb(cx - rx, cy - ry, cx + rx, cy + ry) {
        builder.push_oval(oval);
    }
    builder.finish()
}

/// A rectangle with rounded corners (`r` may be 0).
pub(crate) fn rect(x: f32, y: f32, w: f32, h: f32, r: f32) -> Shape {
    let mut p = PathBuilder::new();
    p.move_to(x + r, y);
    p.line_to(x + w - r, y);
    p.quad_to(x + w, y, x + w, y + r);
    p.line_to(x + w, y + h - r);
    p.quad_to(x + w, y + h, x + w - r, y + h);
    p.line_to(x + r, y + h);
    p.quad_to(x, y + h, x, y + h - r);
    p.line_to(x, y + r);
    p.quad_to(x, y, x + r, y);
    p.close();
    p.finish()
}

/// A path in a small subset of SVG's path language: absolute `M`, `L`, `Q`, `C`, `Z`, each letter
/// and each number a word of its own (a comma counts as a space). A cubic curve becomes two
/// quadratic ones.
///
/// # Panics
/// On any other word or a missing number: path strings are written in this crate.
pub(crate) fn path(text: &str) -> Shape {
    let mut words = text.split([' ', ',', '\n']).filter(|word| !word.is_empty());
    let mut p = PathBuilder::new();
    let mut at = (0.0, 0.0);
    while let Some(command) = words.next() {
        let mut point = || {
            let mut number = || {
                let word = words.next().unwrap_or("");
                let value: Option<f32> = word.parse().ok();
                assert!(
                    value.is_some(),
                    "{word:?} is no number in the path {text:?}"
                );
                value.unwrap_or(0.0)
            };
            (number(), number())
        };
        match command {
            "M" => {
                at = point();
                p.move_to(at.0, at.1);
            }
            "L" => {
                at = point();
                p.line_to(at.0, at.1);
            }
            "Q" => {
                let c = point();
                at = point();
                p.quad_to(c.0, c.1, at.0, at.1);
            }
            "C" => {
                let (a, b, end) = (point(), point(), point());
                cubic(&mut p, at, a, b, end);
                at = end;
            }
            "Z" => p.close(),
            other => panic!("{other:?} is no command in the path {text:?}"),
        }
    }
    p.finish()
}

/// Halves the curve (de Casteljau) and replaces each half by the quadratic curve with the same ends
/// and, as nearly as it can, the same tangents.
fn cubic(p: &mut PathBuilder, p0: (f32, f32), p1: (f32, f32), p2: (f32, f32), p3: (f32, f32)) {
    let middle = |a: (f32, f32), b: (f32, f32)| ((a.0 + b.0) / 2.0, (a.1 + b.1) / 2.0);
    let (a, b, c) = (middle(p0, p1), middle(p1, p2), middle(p2, p3));
    let (d, e) = (middle(a, b), middle(b, c));
    let half = middle(d, e);
    let control = |s: (f32, f32), u: (f32, f32), v: (f32, f32), t: (f32, f32)| {
        (
            (3.0 * (u.0 + v.0) - s.0 - t.0) / 4.0,
            (3.0 * (u.1 + v.1) - s.1 - t.1) / 4.0,
        )
    };
    let first = control(p0, a, d, half);
    let second = control(half, e, c, p3);
    p.quad_to(first.0, first.1, half.0, half.1);
    p.quad_to(second.0, second.1, p3.0, p3.1);
}

/// Closed polygon through `points`.
pub(crate) fn polygon(points: &[(f32, f32)]) -> Shape {
    let mut p = PathBuilder::new();
    for (i, &(x, y)) in points.iter().enumerate() {
        if i == 0 {
            p.move_to(x, y);
        } else {
            p.line_to(x, y);
        }
    }
    p.close();
    p.finish()
}

/// A smooth line through the middles between `points`, from the first to the last, closed along
/// y = `bottom`: the outline of a hill.
pub(crate) fn hill(points: &[(f32, f32)], bottom: f32) -> Shape {
    let mut p = PathBuilder::new();
    if let (Some(&(x0, y0)), Some(&(x1, y1))) = (points.first(), points.last()) {
        p.move_to(x0, bottom);
        p.line_to(x0, y0);
        for pair in points.windows(2) {
            let ((ax, ay), (bx, by)) = (pair[0], pair[1]);
            p.quad_to(ax, ay, (ax + bx) / 2.0, (ay + by) / 2.0);
        }
        p.line_to(x1, y1);
        p.line_to(x1, bottom);
        p.close();
    }
    p.finish()
}
