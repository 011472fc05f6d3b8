//! The things drawn in code.
//!
//! Every drawing fills a box of 100 × 100 units, y downwards, and stands on y = 97. At least half of
//! what it covers is the ink, so that "a red car" is red for everybody; what an object's colour comes
//! to is measured all the same.

mod animals;
mod nature;
mod things;
mod vehicles;

use crate::canvas::Canvas;
use crate::colour::{Colour, Ink};
use crate::truth::Place;

/// One kind of thing.
pub(crate) struct Drawing {
    pub(crate) noun: &'static str,
    pub(crate) plural: &'static str,
    /// Other nouns that are as true (singular, plural).
    pub(crate) synonyms: &'static [(&'static str, &'static str)],
    pub(crate) places: &'static [Place],
    pub(crate) colours: &'static [Colour],
    /// Size of the 100-unit box relative to other things': wide, low things get more.
    pub(crate) span: f32,
    /// Tilts a little in the air.
    pub(crate) tilts: bool,
    pub(crate) draw: fn(&mut Canvas, &Ink),
}

use Colour::{Black, Blue, Brown, Green, Grey, Orange, Pink, Purple, Red, White, Yellow};
use Place::{Air, Ground, Water};

const ALL: &[Colour] = &[Red, Orange, Yellow, Green, Blue, Purple, Pink, White, Black];
const BRIGHT: &[Colour] = &[Red, Orange, Yellow, Green, Blue, Purple, Pink];
const LIVELY: &[Colour] = &[Red, Orange, Yellow, Green, Blue, Purple, Pink, White];
const FUR: &[Colour] = &[Orange, Black, White, Grey, Brown];

const fn thing(
    noun: &'static str,
    plural: &'static str,
    places: &'static [Place],
    colours: &'static [Colour],
    span: f32,
    draw: fn(&mut Canvas, &Ink),
) -> Drawing {
    Drawing {
        noun,
        plural,
        synonyms: &[],
        places,
        colours,
        span,
        tilts: false,
        draw,
    }
}

const fn tilting(drawing: Drawing) -> Drawing {
    Drawing {
        tilts: true,
        ..drawing
    }
}

const fn also(drawing: Drawing, synonyms: &'static [(&'static str, &'static str)]) -> Drawing {
    Drawing {
        synonyms,
        ..drawing
    }
}

/// Every drawing. The order is part of what a seed means: append, never insert.
pub(crate) static DRAWINGS: &[Drawing] = &[
    also(
        thing("car", "cars", &[Ground], ALL, 1.3, vehicles::car),
        &[("automobile", "automobiles")],
    ),
    also(
        thing("house", "houses", &[Ground], LIVELY, 1.1, nature::house),
        &[("cottage", "cottages")],
    ),
    thing(
        "tree",
        "trees",
        &[Ground],
        &[Green, Orange, Yellow, Red, Pink],
        1.2,
        nature::tree,
    ),
    also(
        thing("boat", "boats", &[Water], LIVELY, 1.15, vehicles::boat),
        &[("sailboat", "sailboats")],
    ),
    thing("ball", "balls", &[Ground], ALL, 0.85, things::ball),
    thing("balloon", "balloons", &[Air], ALL, 1.1, things::balloon),
    also(
        thing(
            "mushroom",
            "mushrooms",
            &[Ground],
            BRIGHT,
            1.0,
            nature::mushroom,
        ),
        &[("toadstool", "toadstools")],
    ),
    thing("flower", "flowers", &[Ground], LIVELY, 1.1, nature::flower),
    tilting(thing("fish", "fish", &[Water], BRIGHT, 1.0, animals::fish)),
    tilting(thing("bird", "birds", &[Air], ALL, 1.0, animals::bird)),
    thing("cat", "cats", &[Ground], FUR, 1.1, animals::cat),
    tilting(thing("star", "stars", &[Air], BRIGHT, 0.95, things::star)),
    tilting(thing("heart", "hearts", &[Air], BRIGHT, 0.9, things::heart)),
    thing(
        "umbrella",
        "umbrellas",
        &[Ground],
        ALL,
        1.1,
        things::umbrella,
    ),
    also(
        thing("cup", "cups", &[Ground], ALL, 0.95, things::cup),
        &[("mug", "mugs")],
    ),
    tilting(thing(
        "butterfly",
        "butterflies",
        &[Air],
        BRIGHT,
        0.95,
        animals::butterfly,
    )),
    thing(
        "apple",
        "apples",
        &[Ground],
        &[Red, Green, Yellow],
        0.85,
        nature::apple,
    ),
    thing(
        "snowman",
        "snowmen",
        &[Ground],
        &[White],
        1.1,
        things::snowman,
    ),
    also(
        tilting(thing(
            "rocket",
            "rockets",
            &[Air],
            ALL,
            1.15,
            vehicles::rocket,
        )),
        &[("spaceship", "spaceships")],
    ),
    tilting(thing("kite", "kites", &[Air], BRIGHT, 1.1, things::kite)),
    thing("bus", "buses", &[Ground], BRIGHT, 1.3, vehicles::bus),
    also(
        tilting(thing(
            "airplane",
            "airplanes",
            &[Air],
            ALL,
            1.2,
            vehicles::airplane,
        )),
        &[("plane", "planes")],
    ),
    thing(
        "duck",
        "ducks",
        &[Water],
        &[Yellow, White, Green, Blue, Pink],
        1.0,
        animals::duck,
    ),
    also(
        thing("rabbit", "rabbits", &[Ground], FUR, 1.1, animals::rabbit),
        &[("bunny", "bunnies")],
    ),
];
