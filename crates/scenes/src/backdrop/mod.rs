//! Landscapes: sky, distance, ground, and the weather in front of it all.
//!
//! A picture is 100 × 100 units, y downwards.

mod land;
mod light;
mod moon;
mod room;
mod seabed;
mod shore;
mod sky;
mod town;
mod weather;

use crate::canvas::Canvas;
use crate::random::Random;
use crate::truth::{Setting, Time, Truth};

pub(crate) use light::Light;

/// What the landscape has to leave room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Where ground (or water) meets the sky.
    pub(crate) horizon: f32,
    /// Where water ends and the near shore begins; only settings with water look at it.
    pub(crate) shore: f32,
}

/// Paints everything behind the objects.
pub(crate) fn paint_behind(
    canvas: &mut Canvas,
    truth: &Truth,
    layout: Layout,
    random: &mut Random,
) {
    let light = &Light::new(truth.setting, truth.time, truth.weather);
    let time = truth.time.unwrap_or(Time::Noon);
    if let (Some(time), Some(weather)) = (truth.time, truth.weather) {
        sky::paint(canvas, light, time, weather, layout, random);
    }
    match truth.setting {
        Setting::Meadow => land::meadow(canvas, light, layout, random),
        Setting::Forest => land::forest(canvas, light, layout, random),
        Setting::Beach => shore::beach(canvas, light, layout, random),
        Setting::Desert => land::desert(canvas, light, layout, random),
        Setting::Snow => land::snow(canvas, light, layout, random),
        Setting::Mountains => land::mountains(canvas, light, layout, random),
        Setting::Lake => shore::lake(canvas, light, layout, random),
        Setting::City => town::city(canvas, light, time, layout, random),
        Setting::Underwater => seabed::seabed(canvas, layout, random),
        Setting::Space => moon::moon(canvas, layout, random),
        Setting::Room => room::room(canvas, light, time, layout, random),
    }
    if let Some(weather) = truth.weather {
        weather::behind(canvas, light, weather, layout);
    }
}

/// Paints what falls or drifts in front of the objects.
pub(crate) fn paint_before(canvas: &mut Canvas, truth: &Truth, random: &mut Random) {
    if let Some(weather) = truth.weather {
        let light = Light::new(truth.setting, truth.time, truth.weather);
        weather::before(canvas, &light, weather, random);
    }
}
