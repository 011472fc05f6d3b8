//! The hour's light: what it makes of the sky and of everything under it.

use crate::canvas::Rgb;
use crate::truth::{Setting, Time, Weather};

/// Palette of one hour in one weather.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Light {
    /// Sky at the top, half-way and at the horizon.
    pub(crate) sky: [Rgb; 3],
    /// Colour of clouds' upper and lower sides.
    pub(crate) cloud: (Rgb, Rgb),
    /// What distance fades to.
    pub(crate) haze: Rgb,
    /// Factors for land.
    tint: [f32; 3],
    /// Colour that land takes on, and how much.
    ambient: (Rgb, f32),
    /// Factors for objects: weaker than the land's, so that a red car stays red at night.
    pub(crate) object: [f32; 3],
    /// What drifts between us and the objects, and how much of it.
    pub(crate) veil: (Rgb, f32),
}

impl Light {
    /// The light of a setting; by day and in clear weather where it has none of its own.
    pub(crate) fn new(setting: Setting, time: Option<Time>, weather: Option<Weather>) -> Self {
        let (time, weather) = (
            time.unwrap_or(Time::Noon),
            weather.unwrap_or(Weather::Clear),
        );
        let outdoors = Light::at(time).under(time, weather);
        match setting {
            // A lamp burns.
            Setting::Room => Light {
                object: outdoors.object.map(|factor| (factor + 1.0) / 2.0),
                ..outdoors
            },
            Setting::Underwater => Light {
                object: [0.88, 0.96, 1.0],
                veil: (Rgb(48, 150, 200), 0.06),
                ..outdoors
            },
            _ => outdoors,
        }
    }

    /// The hour in clear weather.
    fn at(time: Time) -> Self {
        match time {
            Time::Noon => Light {
                sky: [Rgb(62, 146, 236), Rgb(126, 196, 250), Rgb(208, 238, 252)],
                cloud: (Rgb(255, 255, 255), Rgb(216, 228, 242)),
                haze: Rgb(206, 232, 248),
                tint: [1.0, 1.0, 1.0],
                ambient: (Rgb(255, 255, 255), 0.0),
                object: [1.0, 1.0, 1.0],
                veil: (Rgb(255, 255, 255), 0.0),
            },
            Time::Dawn => Light {
                sky: [Rgb(132, 160, 222), Rgb(238, 190, 206), Rgb(255, 226, 176)],
                cloud: (Rgb(255, 238, 236), Rgb(240, 186, 196)),
                haze: Rgb(252, 216, 204),
                tint: [0.96, 0.9, 0.92],
                ambient: (Rgb(255, 190, 190), 0.16),
                object: [1.0, 0.97, 0.96],
                veil: (Rgb(255, 255, 255), 0.0),
            },
            Time::Sunset => Light {
                sky: [Rgb(82, 52, 128), Rgb(226, 88, 96), Rgb(255, 176, 74)],
                cloud: (Rgb(255, 176, 140), Rgb(190, 88, 120)),
                haze: Rgb(255, 160, 96),
                tint: [0.94, 0.76, 0.7],
                ambient: (Rgb(244, 120, 78), 0.16),
                object: [1.0, 0.97, 0.93],
                veil: (Rgb(255, 255, 255), 0.0),
            },
            Time::Night => Light {
                sky: [Rgb(10, 14, 48), Rgb(26, 38, 94), Rgb(64, 82, 148)],
                cloud: (Rgb(92, 104, 148), Rgb(50, 58, 100)),
                haze: Rgb(52, 68, 126),
                tint: [0.48, 0.52, 0.66],
                ambient: (Rgb(34, 44, 100), 0.18),
                object: [0.88, 0.89, 0.97],
                veil: (Rgb(255, 255, 255), 0.0),
            },
        }
    }

    /// The same hour with its sky covered.
    fn under(mut self, time: Time, weather: Weather) -> Self {
        let bright = match time {
            Time::Noon => 1.0,
            Time::Dawn => 0.92,
            Time::Sunset => 0.7,
            Time::Night => 0.42,
        };
        let grey =
            |r: u8, g: u8, b: u8| Rgb(r, g, b).times([bright, bright, (bright * 1.05).min(1.0)]);
        // (cover, its share at the sky's top, at the horizon, and in the land's light)
        let (cover, top, low, land) = match weather {
            Weather::Clear | Weather::Rainbow => return self,
            Weather::Cloudy => (grey(176, 190, 208), 0.45, 0.28, 0.06),
            Weather::Rain => (grey(116, 128, 148), 0.74, 0.56, 0.12),
            Weather::Snowfall => (grey(194, 204, 218), 0.72, 0.6, 0.16),
            Weather::Fog => (grey(214, 220, 226), 0.55, 0.58, 0.1),
        };
        self.sky = [
            self.sky[0].mix(cover, top),
            self.sky[1].mix(cover, (top + low) / 2.0),
            self.sky[2].mix(cover, low),
        ];
        self.haze = self.haze.mix(cover, low);
        if weather == Weather::Rain {
            self.cloud = (grey(150, 160, 178), grey(96, 106, 126));
            self.tint = self.tint.map(|factor| factor * 0.92);
        }
        if weather == Weather::Fog {
            self.veil = (self.haze, 0.1);
        }
        let (colour, share) = self.ambient;
        self.ambient = (
            colour.mix(cover, land / (land + share).max(0.01)),
            (share + land).min(0.6),
        );
        self
    }

    /// A colour of the land, as this light shows it.
    pub(crate) fn on(&self, colour: Rgb) -> Rgb {
        colour.times(self.tint).mix(self.ambient.0, self.ambient.1)
    }

    /// The same, faded by distance: 0 is here, 1 is the horizon.
    pub(crate) fn far(&self, colour: Rgb, distance: f32) -> Rgb {
        self.on(colour).mix(self.haze, distance)
    }
}
