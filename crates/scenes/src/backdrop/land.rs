//! Open country: three or four depths each, the far ones faded by haze.

use super::{Layout, Light};
use crate::canvas::{Canvas, Look, Rgb, Shape, ellipse, hill, path, polygon, rect};
use crate::random::Random;

/// The outline of a range of hills around height `y`, `swing` up and down, in `steps` steps.
pub(super) fn ridge(random: &mut Random, y: f32, swing: f32, steps: usize) -> Shape {
    let mut points = vec![(-6.0, y + random.range(-swing, swing))];
    for i in 0..=steps {
        let x = -6.0 + 112.0 * i as f32 / steps as f32;
        points.push((x, y + random.range(-swing, swing)));
    }
    hill(&points, 102.0)
}

/// Ground from `y` to the bottom, with a gently waving edge.
pub(super) fn ground(
    canvas: &mut Canvas,
    random: &mut Random,
    y: f32,
    swing: f32,
    far: Rgb,
    near: Rgb,
) {
    let shape = ridge(random, y, swing, 4);
    canvas.fill(&shape, Look::Down(far, near));
}

/// Small strokes of grass on the ground between `top` and the bottom.
pub(super) fn tufts(canvas: &mut Canvas, random: &mut Random, top: f32, count: usize, colour: Rgb) {
    for _ in 0..count {
        let y = random.range(top, 99.0);
        let x = random.range(0.0, 100.0);
        let s = 1.0 + 2.6 * (y - top) / (100.0 - top).max(1.0);
        for lean in [-0.6, 0.0, 0.6] {
            let d = path(&format!("M {x} {y} L {} {}", x + lean * s, y - s));
            canvas.stroke(&d, 0.7, Look::Clear(colour, 0.7));
        }
    }
}

pub(super) fn meadow(canvas: &mut Canvas, light: &Light, layout: Layout, random: &mut Random) {
    let h = layout.horizon;
    canvas.fill(
        &ridge(random, h - 1.0, 6.0, 4),
        Look::Down(
            light.far(Rgb(96, 160, 128), 0.5),
            light.far(Rgb(120, 180, 110), 0.3),
        ),
    );
    canvas.fill(
        &ridge(random, h + 6.0, 4.0, 3),
        Look::Down(
            light.far(Rgb(112, 186, 88), 0.18),
            light.on(Rgb(92, 170, 70)),
        ),
    );
    ground(
        canvas,
        random,
        h + 14.0,
        2.0,
        light.on(Rgb(126, 200, 80)),
        light.on(Rgb(66, 146, 56)),
    );
    tufts(canvas, random, h + 18.0, 26, light.on(Rgb(52, 124, 48)));
}

/// A fir: three tiers on a trunk, its foot at (x, y).
fn fir(canvas: &mut Canvas, x: f32, y: f32, height: f32, colour: Rgb, trunk: Rgb) {
    let w = height * 0.24;
    canvas.fill(
        &rect(
            x - w * 0.16,
            y - height * 0.16,
            w * 0.32,
            height * 0.16,
            0.0,
        ),
        Look::Flat(trunk),
    );
    for (foot, tip, half) in [(0.1, 0.56, 1.0), (0.34, 0.78, 0.78), (0.58, 1.0, 0.54)] {
        let tier = [
            (x - w * half, y - height * foot),
            (x, y - height * tip),
            (x + w * half, y - height * foot),
        ];
        canvas.fill(
            &polygon(&tier),
            Look::Down(
                colour.mix(Rgb(255, 255, 220), 0.08),
                colour.mix(Rgb(10, 20, 30), 0.2),
            ),
        );
    }
}

pub(super) fn forest(canvas: &mut Canvas, light: &Light, layout: Layout, random: &mut Random) {
    let h = layout.horizon;
    let rows = [(h + 3.0, 34.0, 0.55, 11), (h + 9.0, 46.0, 0.3, 8)];
    for (foot, height, distance, count) in rows {
        let colour = light.far(Rgb(34, 102, 66), distance);
        let trunk = light.far(Rgb(84, 60, 44), distance);
        canvas.fill(
            &rect(0.0, foot - 7.0, 100.0, 20.0, 0.0),
            Look::Flat(colour.mix(Rgb(10, 20, 30), 0.12)),
        );
        for i in 0..count {
            let x = 100.0 * (i as f32 + random.range(0.2, 0.8)) / count as f32;
            fir(
                canvas,
                x,
                foot + random.range(-1.0, 2.0),
                height * random.range(0.8, 1.12),
                colour,
                trunk,
            );
        }
    }
    ground(
        canvas,
        random,
        h + 12.0,
        1.5,
        light.on(Rgb(92, 132, 62)),
        light.on(Rgb(52, 84, 42)),
    );
    let (colour, trunk) = (light.on(Rgb(22, 82, 52)), light.on(Rgb(74, 52, 38)));
    for x in [random.range(-3.0, 7.0), random.range(93.0, 103.0)] {
        fir(canvas, x, h + 24.0, random.range(66.0, 80.0), colour, trunk);
    }
    tufts(canvas, random, h + 20.0, 22, light.on(Rgb(38, 72, 36)));
}

pub(super) fn desert(canvas: &mut Canvas, light: &Light, layout: Layout, random: &mut Random) {
    let h = layout.horizon;
    // Flat-topped rocks far away.
    for _ in 0..2 {
        let (x, w, top) = (
            random.range(0.0, 90.0),
            random.range(10.0, 20.0),
            h - random.range(6.0, 12.0),
        );
        let rock = path(&format!(
            "M {} {} L {} {top} L {} {top} L {} {} Z",
            x - w * 0.7,
            h + 6.0,
            x - w * 0.4,
            x + w * 0.4,
            x + w * 0.7,
            h + 6.0
        ));
        canvas.fill(
            &rock,
            Look::Down(
                light.far(Rgb(206, 112, 74), 0.35),
                light.far(Rgb(190, 100, 70), 0.5),
            ),
        );
    }
    canvas.fill(
        &ridge(random, h + 2.0, 4.0, 3),
        Look::Down(
            light.far(Rgb(240, 186, 108), 0.3),
            light.far(Rgb(222, 160, 88), 0.1),
        ),
    );
    canvas.fill(
        &ridge(random, h + 10.0, 4.0, 3),
        Look::Down(light.on(Rgb(242, 190, 104)), light.on(Rgb(224, 160, 82))),
    );
    ground(
        canvas,
        random,
        h + 20.0,
        3.0,
        light.on(Rgb(248, 204, 122)),
        light.on(Rgb(216, 148, 74)),
    );
    for _ in 0..7 {
        let (x, y, w) = (
            random.range(0.0, 90.0),
            random.range(h + 24.0, 98.0),
            random.range(8.0, 18.0),
        );
        let ripple = path(&format!(
            "M {x} {y} Q {} {} {} {y}",
            x + w / 2.0,
            y - 2.2,
            x + w
        ));
        canvas.stroke(&ripple, 0.7, Look::Clear(light.on(Rgb(190, 124, 60)), 0.5));
    }
}

pub(super) fn snow(canvas: &mut Canvas, light: &Light, layout: Layout, random: &mut Random) {
    let h = layout.horizon;
    canvas.fill(
        &ridge(random, h, 5.0, 4),
        Look::Down(
            light.far(Rgb(196, 212, 234), 0.35),
            light.far(Rgb(218, 230, 244), 0.2),
        ),
    );
    for i in 0..6 {
        let x = 100.0 * (i as f32 + random.range(0.1, 0.9)) / 6.0;
        let (height, y) = (random.range(11.0, 17.0), h + random.range(6.0, 9.0));
        fir(
            canvas,
            x,
            y,
            height,
            light.far(Rgb(120, 158, 164), 0.25),
            light.far(Rgb(110, 96, 92), 0.3),
        );
    }
    canvas.fill(
        &ridge(random, h + 9.0, 3.0, 3),
        Look::Down(light.on(Rgb(236, 244, 254)), light.on(Rgb(206, 220, 240))),
    );
    ground(
        canvas,
        random,
        h + 19.0,
        2.5,
        light.on(Rgb(250, 252, 255)),
        light.on(Rgb(206, 220, 242)),
    );
    for _ in 0..14 {
        let (x, y) = (random.range(0.0, 100.0), random.range(h + 22.0, 99.0));
        canvas.fill(
            &ellipse(x, y, random.range(2.0, 5.0), 0.7),
            Look::Clear(light.on(Rgb(176, 196, 228)), 0.5),
        );
    }
}

/// A peak with a cap of snow; its foot is at `foot`.
fn peak(canvas: &mut Canvas, light: &Light, x: f32, top: f32, half: f32, foot: f32, distance: f32) {
    let rock = light.far(Rgb(104, 112, 138), distance);
    let shade = light.far(Rgb(74, 80, 110), distance);
    let (height, cap) = (foot - top, 0.36);
    canvas.fill(
        &polygon(&[(x - half, foot), (x, top), (x + half, foot)]),
        Look::Flat(rock),
    );
    canvas.fill(
        &polygon(&[
            (x, top),
            (x + half, foot),
            (x + half * 0.1, foot),
            (x - half * 0.12, top + height * 0.5),
        ]),
        Look::Flat(shade),
    );
    let y = |share: f32| top + height * share;
    let at = |side: f32, share: f32| (x + side * half * share, y(share));
    let snow = [
        (x, top),
        at(1.0, cap),
        (x + half * 0.16, y(cap * 0.78)),
        (x + half * 0.06, y(cap * 1.12)),
        (x - half * 0.1, y(cap * 0.8)),
        (x - half * 0.2, y(cap * 1.1)),
        at(-1.0, cap * 0.86),
    ];
    canvas.fill(
        &polygon(&snow),
        Look::Flat(light.far(Rgb(250, 252, 255), distance * 0.7)),
    );
}

pub(super) fn mountains(canvas: &mut Canvas, light: &Light, layout: Layout, random: &mut Random) {
    let h = layout.horizon;
    for (i, x) in [8.0, 40.0, 72.0, 100.0].into_iter().enumerate() {
        let top = h - random.range(20.0, 27.0) - if i % 2 == 0 { 6.0 } else { 0.0 };
        peak(
            canvas,
            light,
            x + random.range(-6.0, 6.0),
            top,
            random.range(24.0, 30.0),
            h + 12.0,
            0.45,
        );
    }
    for x in [random.range(14.0, 30.0), random.range(68.0, 88.0)] {
        peak(
            canvas,
            light,
            x,
            h - random.range(12.0, 20.0),
            random.range(24.0, 32.0),
            h + 14.0,
            0.16,
        );
    }
    canvas.fill(
        &ridge(random, h + 8.0, 3.0, 3),
        Look::Down(light.far(Rgb(70, 124, 92), 0.2), light.on(Rgb(76, 132, 80))),
    );
    ground(
        canvas,
        random,
        h + 17.0,
        2.5,
        light.on(Rgb(130, 168, 92)),
        light.on(Rgb(82, 116, 66)),
    );
    for _ in 0..9 {
        let (x, y, r) = (
            random.range(0.0, 100.0),
            random.range(h + 22.0, 99.0),
            random.range(0.8, 2.0),
        );
        canvas.fill(
            &ellipse(x, y, r * 1.5, r),
            Look::Down(light.on(Rgb(176, 178, 184)), light.on(Rgb(112, 112, 124))),
        );
    }
}
