//! A cosy room: a wall with a window, through which one sees the hour; a lamp, a rug on a wooden floor.

use super::{Layout, Light};
use crate::canvas::{Canvas, Look, Rgb, ellipse, polygon, rect};
use crate::random::Random;
use crate::truth::Time;

pub(super) fn room(
    canvas: &mut Canvas,
    light: &Light,
    time: Time,
    layout: Layout,
    random: &mut Random,
) {
    const WALLS: [Rgb; 4] = [
        Rgb(240, 214, 178),
        Rgb(206, 218, 190),
        Rgb(226, 196, 186),
        Rgb(196, 210, 222),
    ];
    let h = layout.horizon;
    // Indoors it never gets as dark, nor as coloured, as outside.
    let inside = |colour: Rgb| match time {
        Time::Noon => colour,
        Time::Dawn => colour.times([0.98, 0.92, 0.9]),
        Time::Sunset => colour.times([0.96, 0.84, 0.76]),
        Time::Night => colour.times([0.66, 0.6, 0.62]),
    };
    let wall = inside(*random.pick(&WALLS));
    canvas.fill(
        &rect(-1.0, -1.0, 102.0, h + 3.0, 0.0),
        Look::Down(wall, wall.mix(Rgb(90, 60, 60), 0.1)),
    );
    let window_left = random.chance(0.5);
    let at = |from_left: f32| {
        if window_left {
            from_left
        } else {
            100.0 - from_left
        }
    };
    window(canvas, light, time, at(random.range(22.0, 27.0)), random);
    picture(canvas, &inside, at(random.range(62.0, 68.0)), random);
    // Skirting, floor, rug.
    canvas.fill(
        &rect(-1.0, h, 102.0, 3.0, 0.0),
        Look::Flat(inside(Rgb(246, 240, 230))),
    );
    canvas.fill(
        &rect(-1.0, h + 2.6, 102.0, 102.0 - h, 0.0),
        Look::Down(inside(Rgb(186, 130, 84)), inside(Rgb(148, 96, 58))),
    );
    for i in 1..4 {
        let y = h + 2.6 + (100.0 - h) * 0.07 * (i * i) as f32;
        canvas.fill(
            &rect(-1.0, y, 102.0, 0.5, 0.0),
            Look::Clear(inside(Rgb(110, 68, 40)), 0.5),
        );
    }
    let rug = inside(*random.pick(&[
        Rgb(186, 84, 84),
        Rgb(86, 118, 160),
        Rgb(104, 142, 112),
        Rgb(206, 160, 96),
    ]));
    let (x, y) = (50.0 + random.range(-6.0, 6.0), h + 27.0);
    canvas.fill(&ellipse(x, y, 44.0, 10.0), Look::Flat(rug));
    canvas.fill(
        &ellipse(x, y, 38.0, 8.2),
        Look::Flat(rug.mix(Rgb(255, 244, 224), 0.25)),
    );
    lamp(canvas, &inside, time, at(random.range(88.0, 92.0)), h);
}

/// A window of four panes; behind them the sky, at night with stars and a moon.
fn window(canvas: &mut Canvas, light: &Light, time: Time, cx: f32, random: &mut Random) {
    let (w, top, high) = (26.0, 9.0, 30.0);
    let frame = Rgb(250, 246, 238).mix(light.sky[0], 0.08);
    canvas.fill(
        &rect(cx - w / 2.0 - 1.6, top - 1.6, w + 3.2, high + 3.2, 1.0),
        Look::Flat(frame),
    );
    let glass = rect(cx - w / 2.0, top, w, high, 0.0);
    let [above, middle, low] = light.sky;
    canvas.fill_stops(
        &glass,
        &[(0.0, above, 1.0), (0.5, middle, 1.0), (1.0, low, 1.0)],
    );
    let (disc, y, r) = match time {
        Time::Noon => (Rgb(255, 240, 150), top + 7.0, 3.2),
        Time::Dawn => (Rgb(255, 236, 180), top + high - 5.0, 3.8),
        Time::Sunset => (Rgb(255, 206, 90), top + high - 5.0, 4.4),
        Time::Night => (Rgb(250, 244, 214), top + 7.0, 3.2),
    };
    if time == Time::Night {
        for _ in 0..12 {
            let (x, y) = (random.range(-w / 2.0, w / 2.0), random.range(0.0, high));
            canvas.fill(
                &ellipse(cx + x * 0.94, top + 1.0 + y * 0.93, 0.4, 0.4),
                Look::Flat(Rgb(255, 252, 236)),
            );
        }
    }
    let x = cx + random.range(-8.0, 8.0);
    canvas.fill(&ellipse(x, y, r, r), Look::Flat(disc));
    canvas.fill(&rect(cx - 0.6, top, 1.2, high, 0.0), Look::Flat(frame));
    canvas.fill(
        &rect(cx - w / 2.0, top + high / 2.0 - 0.6, w, 1.2, 0.0),
        Look::Flat(frame),
    );
    canvas.fill(
        &rect(cx - w / 2.0 - 3.0, top + high + 1.4, w + 6.0, 2.2, 0.8),
        Look::Down(frame, frame.mix(Rgb(120, 90, 70), 0.3)),
    );
}

/// A framed picture of hills.
fn picture(canvas: &mut Canvas, inside: &dyn Fn(Rgb) -> Rgb, cx: f32, random: &mut Random) {
    let (w, top, high) = (random.range(14.0, 18.0), random.range(12.0, 16.0), 13.0);
    let left = cx - w / 2.0;
    canvas.fill(
        &rect(left - 1.3, top - 1.3, w + 2.6, high + 2.6, 0.5),
        Look::Flat(inside(Rgb(128, 84, 52))),
    );
    canvas.fill(
        &rect(left, top, w, high, 0.0),
        Look::Flat(inside(Rgb(246, 232, 206))),
    );
    let hills = [
        (left, top + high),
        (left, top + high * 0.7),
        (left + w * 0.35, top + high * 0.4),
        (left + w * 0.6, top + high * 0.75),
        (left + w * 0.8, top + high * 0.55),
        (left + w, top + high * 0.8),
        (left + w, top + high),
    ];
    canvas.fill(&polygon(&hills), Look::Flat(inside(Rgb(120, 154, 130))));
}

/// A standard lamp; it is lit when it gets dark.
fn lamp(canvas: &mut Canvas, inside: &dyn Fn(Rgb) -> Rgb, time: Time, cx: f32, h: f32) {
    let (top, lit) = (h - 32.0, matches!(time, Time::Night | Time::Sunset));
    if lit {
        canvas.fill(
            &ellipse(cx, top + 5.0, 24.0, 24.0),
            Look::Glow(Rgb(255, 222, 150), 0.6),
        );
    }
    let stand = inside(Rgb(92, 70, 60));
    canvas.fill(
        &rect(cx - 0.6, top + 8.0, 1.2, h + 1.0 - top, 0.0),
        Look::Flat(stand),
    );
    canvas.fill(&ellipse(cx, h + 9.6, 5.0, 1.4), Look::Flat(stand));
    let shade = [
        (cx - 4.0, top),
        (cx + 4.0, top),
        (cx + 7.0, top + 10.0),
        (cx - 7.0, top + 10.0),
    ];
    let colour = if lit {
        Rgb(255, 226, 158)
    } else {
        inside(Rgb(240, 222, 190))
    };
    canvas.fill(
        &polygon(&shade),
        Look::Down(colour, colour.mix(Rgb(220, 160, 90), 0.3)),
    );
}
