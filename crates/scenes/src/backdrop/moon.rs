//! Space: stars and planets above the ground of a moon.

use super::Layout;
use super::land::ridge;
use crate::canvas::{Canvas, Look, Rgb, ellipse, path, rect};
use crate::random::Random;

pub(super) fn moon(canvas: &mut Canvas, layout: Layout, random: &mut Random) {
    let h = layout.horizon + 6.0;
    let sky = rect(0.0, 0.0, 100.0, 102.0, 0.0);
    canvas.fill_stops(
        &sky,
        &[
            (0.0, Rgb(8, 6, 26), 1.0),
            (0.4, Rgb(26, 16, 62), 1.0),
            (0.75, Rgb(62, 34, 104), 1.0),
        ],
    );
    // A nebula, stars, planets.
    for colour in [Rgb(150, 60, 160), Rgb(50, 90, 190)] {
        let (x, y) = (random.range(10.0, 90.0), random.range(10.0, h - 10.0));
        let cloud = ellipse(x, y, random.range(20.0, 34.0), random.range(10.0, 18.0));
        canvas.fill(&cloud, Look::Glow(colour, 0.34));
    }
    for _ in 0..60 {
        let (x, y) = (random.range(0.0, 100.0), random.range(0.0, h));
        let r = random.range(0.25, 0.75);
        let bright = random.range(0.5, 1.0);
        canvas.fill(
            &ellipse(x, y, r, r),
            Look::Clear(Rgb(255, 252, 240), bright),
        );
    }
    let left = random.chance(0.5);
    let side = |near: f32| if left { near } else { 100.0 - near };
    ringed(
        canvas,
        side(random.range(14.0, 24.0)),
        random.range(14.0, 22.0),
        random,
    );
    let (x, y, r) = (
        side(random.range(76.0, 88.0)),
        random.range(9.0, 20.0),
        random.range(3.0, 5.0),
    );
    let colour = *random.pick(&[Rgb(214, 96, 70), Rgb(86, 156, 226), Rgb(120, 196, 150)]);
    canvas.fill(
        &ellipse(x, y, r, r),
        Look::Down(
            colour.mix(Rgb(255, 255, 255), 0.25),
            colour.mix(Rgb(10, 6, 40), 0.45),
        ),
    );
    // Two ridges, and the ground with its craters.
    canvas.fill(
        &ridge(random, h - 1.0, 5.0, 5),
        Look::Down(Rgb(92, 88, 118), Rgb(82, 78, 106)),
    );
    canvas.fill(
        &ridge(random, h + 9.0, 2.0, 4),
        Look::Down(Rgb(168, 166, 182), Rgb(112, 108, 130)),
    );
    for _ in 0..8 {
        let (x, y) = (random.range(0.0, 100.0), random.range(h + 14.0, 99.0));
        let r = 1.5 + 4.0 * (y - h) / (100.0 - h);
        canvas.fill(
            &ellipse(x, y, r * 1.5, r * 0.55),
            Look::Flat(Rgb(96, 92, 114)),
        );
        canvas.fill(
            &ellipse(x, y + r * 0.16, r * 1.3, r * 0.38),
            Look::Flat(Rgb(140, 137, 156)),
        );
    }
}

/// A planet with a ring.
fn ringed(canvas: &mut Canvas, x: f32, y: f32, random: &mut Random) {
    let r = random.range(6.0, 8.5);
    let colour = *random.pick(&[Rgb(236, 184, 110), Rgb(220, 140, 190), Rgb(130, 190, 220)]);
    canvas.fill(
        &ellipse(x, y, r, r),
        Look::Down(
            colour.mix(Rgb(255, 255, 255), 0.2),
            colour.mix(Rgb(20, 10, 60), 0.4),
        ),
    );
    let ring = path(&format!(
        "M {} {} Q {x} {} {} {}",
        x - r * 1.7,
        y + r * 0.35,
        y + r * 0.75,
        x + r * 1.7,
        y - r * 0.35
    ));
    canvas.stroke(&ring, 1.2, Look::Clear(Rgb(250, 228, 190), 0.85));
}
