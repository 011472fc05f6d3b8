//! Country with water in it: the sea and a lake, each with a near shore.

use super::land::{ground, ridge, tufts};
use super::{Layout, Light};
use crate::canvas::{Canvas, Look, Rgb, ellipse, hill, path, rect};
use crate::random::Random;

/// Water from `top` to `bottom` with glints.
fn water(
    canvas: &mut Canvas,
    light: &Light,
    random: &mut Random,
    top: f32,
    bottom: f32,
    far: Rgb,
    near: Rgb,
) {
    let sheet = rect(0.0, top, 100.0, bottom - top, 0.0);
    canvas.fill(
        &sheet,
        Look::Down(light.on(far).mix(light.sky[2], 0.35), light.on(near)),
    );
    for _ in 0..16 {
        let y = random.range(top + 1.5, bottom);
        let depth = (y - top) / (bottom - top).max(1.0);
        let (x, half) = (random.range(0.0, 100.0), 2.0 + 5.0 * depth);
        let glint = ellipse(x, y, half, 0.3 + 0.4 * depth);
        canvas.fill(
            &glint,
            Look::Clear(light.sky[2].mix(Rgb(255, 255, 255), 0.35), 0.45),
        );
    }
}

pub(super) fn beach(canvas: &mut Canvas, light: &Light, layout: Layout, random: &mut Random) {
    let (h, shore) = (layout.horizon, layout.shore);
    water(
        canvas,
        light,
        random,
        h,
        shore + 6.0,
        Rgb(58, 148, 212),
        Rgb(64, 196, 208),
    );
    let edge: Vec<(f32, f32)> = (0..6)
        .map(|i| (-6.0 + 22.4 * i as f32, shore + random.range(-1.6, 1.6)))
        .collect();
    let shifted = |dy: f32| -> Vec<(f32, f32)> { edge.iter().map(|&(x, y)| (x, y + dy)).collect() };
    canvas.fill(
        &hill(&shifted(0.0), 102.0),
        Look::Clear(light.on(Rgb(255, 255, 255)), 0.85),
    );
    canvas.fill(
        &hill(&shifted(1.8), 102.0),
        Look::Flat(light.on(Rgb(214, 182, 128))),
    );
    canvas.fill(
        &hill(&shifted(4.0), 102.0),
        Look::Down(light.on(Rgb(250, 224, 164)), light.on(Rgb(236, 198, 128))),
    );
    for _ in 0..24 {
        let (x, y) = (random.range(0.0, 100.0), random.range(shore + 7.0, 100.0));
        canvas.fill(
            &ellipse(x, y, 0.7, 0.45),
            Look::Clear(light.on(Rgb(188, 146, 92)), 0.6),
        );
    }
}

pub(super) fn lake(canvas: &mut Canvas, light: &Light, layout: Layout, random: &mut Random) {
    let (h, shore) = (layout.horizon, layout.shore);
    canvas.fill(
        &ridge(random, h - 5.0, 5.0, 4),
        Look::Down(
            light.far(Rgb(70, 122, 120), 0.5),
            light.far(Rgb(80, 140, 120), 0.4),
        ),
    );
    canvas.fill(
        &ridge(random, h - 1.0, 2.0, 5),
        Look::Down(
            light.far(Rgb(64, 136, 84), 0.2),
            light.far(Rgb(54, 122, 74), 0.1),
        ),
    );
    water(
        canvas,
        light,
        random,
        h + 3.0,
        102.0,
        Rgb(96, 166, 216),
        Rgb(44, 112, 176),
    );
    ground(
        canvas,
        random,
        shore,
        2.0,
        light.on(Rgb(122, 186, 84)),
        light.on(Rgb(76, 140, 60)),
    );
    tufts(canvas, random, shore + 3.0, 16, light.on(Rgb(52, 112, 50)));
    // Reeds at both edges of the shore.
    for side in [0.0, 100.0] {
        for _ in 0..6 {
            let (x, top) = (
                side + random.range(-7.0, 7.0),
                shore - random.range(4.0, 10.0),
            );
            canvas.stroke(
                &path(&format!("M {x} {} L {x} {top}", shore + 4.0)),
                0.8,
                Look::Flat(light.on(Rgb(64, 124, 60))),
            );
            canvas.fill(
                &ellipse(x, top, 0.9, 2.2),
                Look::Flat(light.on(Rgb(122, 80, 50))),
            );
        }
    }
}
