//! What a generator may choose from, and in which shares.

use std::sync::Arc;

use crate::catalogue::{Kind, kinds, weather_fits};
use crate::colour::{COLOURS, Colour};
use crate::error::SceneError;
use crate::held_out::{self, HeldOut};
use crate::sprites::SpriteSet;
use crate::truth::{Setting, Style, Time, Weather};

/// What scenes are made of. The default has everything; the lists narrow it.
#[derive(Clone, Debug)]
pub struct SceneConfig {
    /// Width and height of the picture in pixels, 32 to 2048.
    pub size: u32,
    /// Sprites in place of the objects drawn in code.
    pub sprites: Option<Arc<SpriteSet>>,
    pub settings: Vec<Setting>,
    pub times: Vec<Time>,
    pub weathers: Vec<Weather>,
    pub styles: Vec<Style>,
    /// Paints; a thing uses those of its own that are listed, or all of its own when none is.
    pub colours: Vec<Colour>,
    /// Nouns (singular); empty means all.
    pub nouns: Vec<String>,
    /// Share of scenes with two different things.
    pub pair_share: f32,
    /// Share of scenes with two to four of the same thing.
    pub count_share: f32,
    /// Share of scenes with three different things.
    pub trio_share: f32,
    /// Share of single things drawn small, and the same share drawn big.
    pub odd_size_share: f32,
    /// Share of scenes in clear weather, where clear weather is listed; the others share the rest.
    pub clear_share: f32,
    /// Share of flat pictures, where both styles are listed.
    pub flat_share: f32,
    /// What becomes of the combinations that are held out.
    pub held_out: HeldOut,
}

impl Default for SceneConfig {
    fn default() -> Self {
        Self {
            size: 128,
            sprites: None,
            settings: Setting::ALL.to_vec(),
            times: Time::ALL.to_vec(),
            weathers: Weather::ALL.to_vec(),
            styles: Style::ALL.to_vec(),
            colours: COLOURS.to_vec(),
            nouns: Vec::new(),
            pair_share: 0.2,
            count_share: 0.1,
            trio_share: 0.04,
            odd_size_share: 0.07,
            clear_share: 0.5,
            flat_share: 0.2,
            held_out: HeldOut::Include,
        }
    }
}

impl SceneConfig {
    /// Whether each field is possible by itself.
    pub(crate) fn check(&self) -> Result<(), SceneError> {
        if !(32..=2048).contains(&self.size) {
            return Err(wrong("size", "32 to 2048", self.size.to_string()));
        }
        let lists = [
            ("settings", self.settings.is_empty()),
            ("times", self.times.is_empty()),
            ("weathers", self.weathers.is_empty()),
            ("styles", self.styles.is_empty()),
            ("colours", self.colours.is_empty()),
        ];
        if let Some((field, _)) = lists.into_iter().find(|&(_, empty)| empty) {
            let expected = "a list with at least one entry";
            return Err(wrong(field, expected, "empty".to_owned()));
        }
        let shares = [
            ("count_share", self.count_share, 1.0),
            ("pair_share", self.pair_share, 1.0 - self.count_share),
            (
                "trio_share",
                self.trio_share,
                1.0 - self.count_share - self.pair_share,
            ),
            ("odd_size_share", self.odd_size_share, 0.5),
            ("clear_share", self.clear_share, 1.0),
            ("flat_share", self.flat_share, 1.0),
        ];
        for (field, share, most) in shares {
            if !(0.0..=most).contains(&share) {
                return Err(wrong(field, &format!("0 to {most}"), share.to_string()));
            }
        }
        Ok(())
    }

    /// The kinds of things left by the lists.
    pub(crate) fn kinds(&self) -> Result<Vec<Kind>, SceneError> {
        let mut kinds = kinds(self.sprites.as_deref());
        for noun in &self.nouns {
            if !kinds.iter().any(|kind| kind.noun == *noun) {
                let known: Vec<&str> = kinds.iter().map(|kind| kind.noun.as_str()).collect();
                let expected = format!("among: {}", known.join(", "));
                return Err(wrong("nouns", &expected, format!("{noun:?}")));
            }
        }
        kinds.retain(|kind| self.nouns.is_empty() || self.nouns.contains(&kind.noun));
        kinds.retain(|kind| {
            self.settings
                .iter()
                .any(|&setting| self.allows(kind, setting))
        });
        if kinds.is_empty() {
            let expected = "such that one of the nouns belongs into one of them";
            let found = format!("{:?} for {:?}", self.settings, self.nouns);
            return Err(wrong("settings", expected, found));
        }
        for kind in &mut kinds {
            if kind
                .colours
                .iter()
                .any(|colour| self.colours.contains(colour))
            {
                kind.colours.retain(|colour| self.colours.contains(colour));
            }
        }
        self.check_held_out(&kinds)?;
        Ok(kinds)
    }

    /// Whether there are scenes that `held_out` asks for.
    fn check_held_out(&self, kinds: &[Kind]) -> Result<(), SceneError> {
        let surroundings = |held: bool| {
            let allowed = |setting| kinds.iter().any(|kind| self.allows(kind, setting));
            let settings = self.settings.iter().copied().filter(|&s| allowed(s));
            let mut all = settings.flat_map(|setting| {
                let lights = self.lights(setting);
                lights.into_iter().map(move |light| match light {
                    (Some(time), Some(weather)) => held_out::surroundings(setting, time, weather),
                    _ => false,
                })
            });
            all.any(|out| out == held)
        };
        let colours = |held: bool| {
            kinds.iter().any(|kind| {
                let mut all = kind.colours.iter();
                (!held && kind.colours.is_empty())
                    || all.any(|&colour| held_out::colour_and_noun(colour, kind) == held)
            })
        };
        let (possible, expected) = match self.held_out {
            HeldOut::Include => return Ok(()),
            HeldOut::Exclude => (
                surroundings(false) && colours(false),
                "\"include\", because everything that the lists leave is held out",
            ),
            HeldOut::Only => (
                surroundings(true) || colours(true),
                "\"include\" or \"exclude\", because nothing that the lists leave is held out",
            ),
        };
        if possible {
            return Ok(());
        }
        Err(wrong("held_out", expected, format!("{:?}", self.held_out)))
    }

    /// Whether `kind` belongs into `setting`, and `setting` has a light.
    pub(crate) fn allows(&self, kind: &Kind, setting: Setting) -> bool {
        kind.place_in(setting).is_some() && !self.lights(setting).is_empty()
    }

    /// The hours and weathers in which `setting` can be drawn.
    fn lights(&self, setting: Setting) -> Vec<(Option<Time>, Option<Weather>)> {
        if !setting.has_time() {
            return vec![(None, None)];
        }
        let times = self.times.iter().copied();
        if !setting.has_weather() {
            return times.map(|time| (Some(time), None)).collect();
        }
        times
            .flat_map(|time| {
                let weathers = self.weathers_of(setting, time).into_iter();
                weathers.map(move |weather| (Some(time), Some(weather)))
            })
            .collect()
    }

    /// The weathers that `setting` can have at an hour.
    pub(crate) fn weathers_of(&self, setting: Setting, time: Time) -> Vec<Weather> {
        let all = self.weathers.iter().copied();
        all.filter(|&weather| weather_fits(setting, time, weather))
            .collect()
    }

    /// The hours at which `setting` has some weather.
    pub(crate) fn times_of(&self, setting: Setting) -> Vec<Time> {
        let all = self.times.iter().copied();
        all.filter(|&time| !setting.has_weather() || !self.weathers_of(setting, time).is_empty())
            .collect()
    }
}

fn wrong(field: &'static str, expected: &str, found: String) -> SceneError {
    SceneError::Config {
        field,
        expected: expected.to_owned(),
        found,
    }
}
