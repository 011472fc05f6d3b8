//! Sky, sun, moon, stars and clouds.

use super::{Layout, Light};
use crate::canvas::{Canvas, Look, Rgb, ellipse, path, rect};
use crate::random::Random;
use crate::truth::{Time, Weather};

pub(super) fn paint(
    canvas: &mut Canvas,
    light: &Light,
    time: Time,
    weather: Weather,
    layout: Layout,
    random: &mut Random,
) {
    let [top, middle, low] = light.sky;
    let sky = rect(0.0, 0.0, 100.0, layout.horizon + 8.0, 0.0);
    canvas.fill_stops(
        &sky,
        &[(0.0, top, 1.0), (0.55, middle, 1.0), (0.95, low, 1.0)],
    );
    let open = matches!(weather, Weather::Clear | Weather::Cloudy | Weather::Rainbow);
    if time == Time::Night && open {
        stars(canvas, layout, random);
    }
    if open {
        lamp(canvas, time, layout, random);
    }
    match weather {
        Weather::Clear => {}
        Weather::Cloudy => {
            for i in 0..5 {
                let x = random.range(-4.0, 20.0) + 22.0 * i as f32;
                cloud(
                    canvas,
                    light,
                    x,
                    random.range(7.0, 24.0),
                    random.range(11.0, 16.0),
                );
            }
        }
        Weather::Rain | Weather::Snowfall => {
            for i in 0..7 {
                let x = random.range(-4.0, 10.0) + 16.0 * i as f32;
                cloud(
                    canvas,
                    light,
                    x,
                    random.range(1.0, 10.0),
                    random.range(14.0, 19.0),
                );
            }
        }
        Weather::Fog => {}
        Weather::Rainbow => rainbow(canvas, layout, random),
    }
}

/// An arch from one side of the land to the other, red outside.
fn rainbow(canvas: &mut Canvas, layout: Layout, random: &mut Random) {
    const BANDS: [Rgb; 6] = [
        Rgb(238, 66, 60),
        Rgb(250, 150, 46),
        Rgb(252, 222, 70),
        Rgb(92, 196, 92),
        Rgb(70, 140, 236),
        Rgb(142, 86, 206),
    ];
    let (cx, foot) = (50.0 + random.range(-6.0, 6.0), layout.horizon + 10.0);
    let (across, high) = (random.range(44.0, 50.0), foot - random.range(7.0, 11.0));
    for (i, colour) in BANDS.into_iter().enumerate() {
        // Each a band of the ring between two ellipses, as a thick line.
        let inset = 2.0 * i as f32;
        let (rx, ry) = (across - inset, high - inset);
        let arch = path(&format!(
            "M {} {foot} C {} {} {} {} {} {foot}",
            cx - rx,
            cx - rx,
            foot - ry * 1.33,
            cx + rx,
            foot - ry * 1.33,
            cx + rx
        ));
        canvas.stroke(&arch, 2.3, Look::Clear(colour, 0.8));
    }
}

/// Sun or moon. At dawn the sun is low on the left, at sunset low on the right, which is how a
/// person tells the two apart beside their colours.
fn lamp(canvas: &mut Canvas, time: Time, layout: Layout, random: &mut Random) {
    let low = layout.horizon - random.range(3.0, 9.0);
    let (x, y, r, disc, halo) = match time {
        Time::Noon => (
            random.range(14.0, 86.0),
            random.range(10.0, 18.0),
            7.5,
            Rgb(255, 240, 150),
            Rgb(255, 250, 210),
        ),
        Time::Dawn => (
            random.range(10.0, 30.0),
            low,
            9.0,
            Rgb(255, 236, 180),
            Rgb(255, 226, 160),
        ),
        Time::Sunset => (
            random.range(66.0, 90.0),
            low,
            10.5,
            Rgb(255, 206, 90),
            Rgb(255, 150, 70),
        ),
        Time::Night => (
            random.range(14.0, 86.0),
            random.range(11.0, 20.0),
            7.0,
            Rgb(250, 244, 214),
            Rgb(170, 186, 240),
        ),
    };
    canvas.fill(&ellipse(x, y, r * 3.4, r * 3.4), Look::Glow(halo, 0.7));
    canvas.fill(&ellipse(x, y, r, r), Look::Flat(disc));
    if time == Time::Night {
        for (dx, dy, s) in [(-0.3, -0.2, 0.24), (0.35, 0.1, 0.18), (-0.05, 0.45, 0.2)] {
            canvas.fill(
                &ellipse(x + dx * r, y + dy * r, s * r, s * r),
                Look::Flat(Rgb(224, 214, 178)),
            );
        }
    }
}

fn stars(canvas: &mut Canvas, layout: Layout, random: &mut Random) {
    for _ in 0..46 {
        let (x, y) = (random.range(0.0, 100.0), random.range(0.0, layout.horizon));
        let r = random.range(0.3, 0.75);
        canvas.fill(
            &ellipse(x, y, r, r),
            Look::Clear(Rgb(255, 252, 236), random.range(0.5, 1.0)),
        );
    }
}

/// A cloud of width 2·`r`, flat at its foot.
fn cloud(canvas: &mut Canvas, light: &Light, x: f32, y: f32, r: f32) {
    let (top, foot) = light.cloud;
    let puffs = [
        (-0.62, 0.12, 0.42),
        (0.66, 0.14, 0.4),
        (-0.24, -0.14, 0.52),
        (0.28, -0.06, 0.5),
        (0.0, 0.16, 0.62),
    ];
    for shade in [true, false] {
        for (dx, dy, s) in puffs {
            let size = r * s * 0.74;
            if shade {
                canvas.fill(
                    &ellipse(x + dx * r, y + dy * r + r * 0.12, size * 1.22, size),
                    Look::Flat(foot),
                );
            } else {
                canvas.fill(
                    &ellipse(x + dx * r, y + dy * r, size * 1.18, size * 0.92),
                    Look::Down(top, top.mix(foot, 0.55)),
                );
            }
        }
    }
}
