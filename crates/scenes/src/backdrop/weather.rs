//! Rain, snowfall and fog.

use super::{Layout, Light};
use crate::canvas::{Canvas, Look, Rgb, ellipse, path, rect};
use crate::random::Random;
use crate::truth::Weather;

/// What lies between the landscape and the objects: fog, thickest at the horizon.
pub(super) fn behind(canvas: &mut Canvas, light: &Light, weather: Weather, layout: Layout) {
    if weather != Weather::Fog {
        return;
    }
    let h = layout.horizon;
    let fog = light.haze;
    let all = rect(0.0, 0.0, 100.0, 100.0, 0.0);
    let at = h / 100.0;
    canvas.fill_stops(&all, &[(0.0, fog, 0.36), (at, fog, 0.44), (1.0, fog, 0.06)]);
}

/// What is in front of everything.
pub(super) fn before(canvas: &mut Canvas, light: &Light, weather: Weather, random: &mut Random) {
    match weather {
        Weather::Clear | Weather::Cloudy | Weather::Rainbow => {}
        Weather::Rain => {
            for _ in 0..70 {
                let (x, y, length) = (
                    random.range(-4.0, 104.0),
                    random.range(-6.0, 98.0),
                    random.range(4.0, 8.0),
                );
                let streak = path(&format!("M {x} {y} L {} {}", x - length * 0.22, y + length));
                canvas.stroke(&streak, 0.6, Look::Clear(Rgb(206, 224, 246), 0.6));
            }
        }
        Weather::Snowfall => {
            for _ in 0..80 {
                let (x, y, r) = (
                    random.range(0.0, 100.0),
                    random.range(0.0, 100.0),
                    random.range(0.5, 1.25),
                );
                canvas.fill(&ellipse(x, y, r, r), Look::Clear(Rgb(255, 255, 255), 0.9));
            }
        }
        Weather::Fog => {
            for _ in 0..5 {
                let (x, y) = (random.range(0.0, 100.0), random.range(30.0, 96.0));
                let bank = ellipse(x, y, random.range(30.0, 50.0), random.range(4.0, 8.0));
                canvas.fill(&bank, Look::Glow(light.haze, 0.42));
            }
        }
    }
}
