//! A street between houses.

use super::{Layout, Light};
use crate::canvas::{Canvas, Look, Rgb, polygon, rect};
use crate::random::Random;
use crate::truth::Time;

/// A block of `w` units with lit or dark windows, its top at `top`.
struct Block {
    x: f32,
    w: f32,
    top: f32,
    foot: f32,
}

fn block(
    canvas: &mut Canvas,
    at: &Block,
    wall: Rgb,
    window: Rgb,
    lit: Rgb,
    share: f32,
    random: &mut Random,
) {
    let height = at.foot - at.top;
    canvas.fill(
        &rect(at.x, at.top, at.w, height, 0.0),
        Look::Down(wall, wall.mix(Rgb(20, 20, 40), 0.12)),
    );
    let columns = (at.w / 5.0).max(1.0) as usize;
    let rows = (height / 6.5) as usize;
    let step = at.w / columns as f32;
    for row in 0..rows {
        for column in 0..columns {
            let colour = if random.chance(share) { lit } else { window };
            let x = at.x + step * (column as f32 + 0.26);
            canvas.fill(
                &rect(x, at.top + 2.4 + 6.5 * row as f32, step * 0.48, 3.4, 0.0),
                Look::Flat(colour),
            );
        }
    }
}

pub(super) fn city(
    canvas: &mut Canvas,
    light: &Light,
    time: Time,
    layout: Layout,
    random: &mut Random,
) {
    let h = layout.horizon;
    let foot = h + 8.0;
    let lamps = match time {
        Time::Night => 0.55,
        Time::Sunset => 0.35,
        Time::Dawn => 0.15,
        Time::Noon => 0.0,
    };
    let lit = Rgb(255, 216, 120);
    // Far skyline, before a strip of more houses that fills the gaps between its blocks.
    let strip = light.far(Rgb(120, 136, 168), 0.62);
    canvas.fill(&rect(-1.0, h - 7.0, 102.0, 17.0, 0.0), Look::Flat(strip));
    let mut x = -3.0;
    while x < 100.0 {
        let w = random.range(8.0, 14.0);
        let wall = light.far(
            *random.pick(&[Rgb(120, 136, 168), Rgb(136, 140, 160), Rgb(112, 128, 156)]),
            0.5,
        );
        let top = h - random.range(14.0, 36.0);
        block(
            canvas,
            &Block { x, w, top, foot },
            wall,
            wall.mix(Rgb(40, 50, 90), 0.16),
            lit.mix(wall, 0.3),
            lamps * 0.6,
            random,
        );
        x += w + random.range(0.0, 2.0);
    }
    // Near houses at both sides.
    const WALLS: [Rgb; 5] = [
        Rgb(178, 108, 90),
        Rgb(200, 164, 124),
        Rgb(128, 142, 152),
        Rgb(164, 130, 140),
        Rgb(150, 150, 122),
    ];
    for (x, w) in [
        (-4.0, random.range(17.0, 21.0)),
        (100.0 - random.range(13.0, 17.0), 22.0),
    ] {
        let wall = light.far(*random.pick(&WALLS), 0.12);
        let top = h - random.range(18.0, 34.0);
        let window = light.on(Rgb(120, 160, 190));
        block(
            canvas,
            &Block { x, w, top, foot },
            wall,
            window,
            lit,
            lamps,
            random,
        );
        canvas.fill(
            &rect(x - 1.0, top - 1.8, w + 2.0, 2.2, 0.0),
            Look::Flat(light.on(Rgb(92, 76, 78))),
        );
    }
    // Pavement, kerb and road.
    let kerb = foot + 8.0;
    canvas.fill(
        &rect(-1.0, foot, 102.0, 94.0, 0.0),
        Look::Flat(light.on(Rgb(190, 188, 190))),
    );
    canvas.fill(
        &rect(-1.0, kerb - 1.6, 102.0, 1.6, 0.0),
        Look::Flat(light.on(Rgb(148, 146, 152))),
    );
    canvas.fill(
        &rect(-1.0, kerb, 102.0, 102.0 - kerb, 0.0),
        Look::Down(light.on(Rgb(110, 112, 122)), light.on(Rgb(78, 80, 92))),
    );
    let middle = kerb + (100.0 - kerb) * 0.42;
    let slip = random.range(0.0, 20.0);
    for i in -1..6 {
        let x = slip + 20.0 * i as f32;
        let dash = [
            (x, middle),
            (x + 10.0, middle),
            (x + 9.4, middle + 1.8),
            (x - 0.6, middle + 1.8),
        ];
        canvas.fill(&polygon(&dash), Look::Flat(light.on(Rgb(244, 236, 214))));
    }
}
