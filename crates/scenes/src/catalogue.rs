//! The things that a generator can choose from: drawings, or the sprites that take their place.

use crate::colour::{COLOURS, Colour};
use crate::figure::Figure;
use crate::objects::{DRAWINGS, Drawing};
use crate::sprites::SpriteSet;
use crate::synonyms;
use crate::truth::{Place, Setting, Time, Weather};

/// One kind of thing.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) noun: String,
    pub(crate) plural: String,
    pub(crate) synonyms: Vec<(String, String)>,
    pub(crate) places: Vec<Place>,
    /// Belongs nowhere in particular, so that it can be anywhere.
    anywhere: bool,
    /// Paints it can have; empty for a sprite that keeps its own.
    pub(crate) colours: Vec<Colour>,
    /// How many paints it can have, those included that a config leaves out.
    pub(crate) paints: usize,
    pub(crate) span: f32,
    pub(crate) tilts: bool,
    source: Source,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Drawing(usize),
    /// Whether its name says a colour already ("black cat").
    Sprite {
        index: usize,
        named_colour: bool,
    },
}

impl Kind {
    pub(crate) fn figure(&self, colour: Option<Colour>) -> Figure {
        match self.source {
            Source::Drawing(i) => {
                Figure::Drawn(&DRAWINGS[i], colour.unwrap_or(DRAWINGS[i].colours[0]))
            }
            Source::Sprite { index, .. } => Figure::Sprite(index, colour),
        }
    }

    /// Whether a caption may put a colour before its name.
    pub(crate) fn takes_colour(&self) -> bool {
        match self.source {
            // "A white snowman" is true and says nothing.
            Source::Drawing(i) => DRAWINGS[i].colours.len() > 1,
            Source::Sprite { named_colour, .. } => !named_colour,
        }
    }

    /// Where in `setting` it can be; none when it doesn't belong there.
    pub(crate) fn place_in(&self, setting: Setting) -> Option<Place> {
        let is_one_of = |nouns: &[&str]| nouns.contains(&self.noun.as_str());
        let at_home = match setting {
            // They would vanish among their like.
            Setting::Forest => !is_one_of(&TREES),
            Setting::City => !is_one_of(&["house", "hut", "office building"]),
            Setting::Mountains => !is_one_of(&["snowy mountain", "volcano"]),
            Setting::Underwater => self.anywhere || is_one_of(&SWIMMERS),
            Setting::Room => !is_one_of(&TREES) && !is_one_of(&TOO_LARGE),
            _ => true,
        };
        let melts =
            self.noun == "snowman" && !matches!(setting, Setting::Snow | Setting::Mountains);
        let has_water = matches!(
            setting,
            Setting::Beach | Setting::Lake | Setting::Underwater
        );
        let fits = |place: &&Place| **place != Place::Water || has_water;
        let place = self.places.iter().find(fits).copied();
        place.filter(|_| at_home && !melts)
    }
}

const TREES: [&str; 3] = ["tree", "pine tree", "palm tree"];

/// Those that live under water, or on the ground below it.
const SWIMMERS: [&str; 10] = [
    "fish",
    "tropical fish",
    "pufferfish",
    "whale",
    "dolphin",
    "shark",
    "octopus",
    "crab",
    "turtle",
    "seal",
];

/// Things that no room has space for, or that need a sky.
const TOO_LARGE: [&str; 31] = [
    "snowy mountain",
    "volcano",
    "hut",
    "house",
    "house with a garden",
    "office building",
    "japanese castle",
    "castle",
    "church",
    "fountain",
    "ferris wheel",
    "circus tent",
    "steam train",
    "bus",
    "ambulance",
    "fire truck",
    "police car",
    "taxi",
    "car",
    "tractor",
    "racing car",
    "parachute",
    "airplane",
    "helicopter",
    "satellite",
    "rocket",
    "flying saucer",
    "kite",
    "stone head",
    "snowman",
    "carousel horse",
];

fn drawn(index: usize, drawing: &Drawing) -> Kind {
    let owned = |&(one, many): &(&str, &str)| (one.to_owned(), many.to_owned());
    Kind {
        noun: drawing.noun.to_owned(),
        plural: drawing.plural.to_owned(),
        synonyms: drawing.synonyms.iter().map(owned).collect(),
        places: drawing.places.to_vec(),
        anywhere: ["ball", "cup", "apple", "mushroom"].contains(&drawing.noun),
        colours: drawing.colours.to_vec(),
        paints: drawing.colours.len(),
        span: drawing.span,
        tilts: drawing.tilts,
        source: Source::Drawing(index),
    }
}

/// The sprites' kinds when there is a set, otherwise the drawings'.
pub(crate) fn kinds(sprites: Option<&SpriteSet>) -> Vec<Kind> {
    let Some(set) = sprites else {
        return DRAWINGS
            .iter()
            .enumerate()
            .map(|(i, drawing)| drawn(i, drawing))
            .collect();
    };
    let kind = |(index, sprite): (usize, &crate::sprites::Sprite)| {
        let says = |word: &str| Colour::from_name(word).is_some();
        let named_colour = sprite.name.split_whitespace().any(says);
        let colours: Vec<Colour> = if sprite.can_turn() && !named_colour {
            let turned = COLOURS.into_iter().filter(|c| c.hue().is_some());
            turned.collect()
        } else {
            Vec::new()
        };
        Kind {
            noun: sprite.name.clone(),
            plural: sprite.plural.clone(),
            synonyms: synonyms::of(&sprite.name),
            places: vec![sprite.place],
            anywhere: sprite.anywhere,
            paints: colours.len(),
            colours,
            span: 1.0,
            tilts: false,
            source: Source::Sprite {
                index,
                named_colour,
            },
        }
    };
    set.sprites().iter().enumerate().map(kind).collect()
}

/// Whether this weather belongs to a landscape at an hour.
pub(crate) fn weather_fits(setting: Setting, time: Time, weather: Weather) -> bool {
    match weather {
        Weather::Snowfall => !matches!(setting, Setting::Beach | Setting::Desert),
        Weather::Rain => setting != Setting::Snow,
        Weather::Rainbow => time != Time::Night && setting != Setting::Snow,
        Weather::Clear | Weather::Cloudy | Weather::Fog => true,
    }
}
