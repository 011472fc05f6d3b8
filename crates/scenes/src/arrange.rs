//! Where things go, and how large they are.
//!
//! Lengths are in hundredths of the picture's side. A thing that is alone takes about half of the
//! picture, so that even a small model sees what it is.

use crate::backdrop::{Layout, Light};
use crate::catalogue::Kind;
use crate::colour::Colour;
use crate::figure::{Layer, Placed};
use crate::held_out;
use crate::random::Random;
use crate::sprites::SpriteSet;
use crate::truth::{Object, Place, Position, Setting, Size};

/// One kind of thing on its way into the picture.
pub(crate) struct Group<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) place: Place,
    colour: Option<Colour>,
    pub(crate) size: Size,
    /// (centre x, foot or centre height from 0 to 1 within its band, side) for each instance.
    pub(crate) spots: Vec<(f32, f32, f32)>,
}

impl<'a> Group<'a> {
    pub(crate) fn new(kind: &'a Kind, place: Place, colour: Option<Colour>) -> Self {
        Self {
            kind,
            place,
            colour,
            size: Size::Normal,
            spots: Vec::new(),
        }
    }

    /// Whether its paint is held out for what it is.
    pub(crate) fn is_held_out(&self) -> bool {
        self.colour
            .is_some_and(|colour| held_out::colour_and_noun(colour, self.kind))
    }

    /// Places and measures every instance. None when one is cut off, or too small to be seen.
    pub(crate) fn draw(
        &self,
        sprites: Option<&SpriteSet>,
        size: u32,
        light: &Light,
        layout: Layout,
        random: &mut Random,
        placed: &mut Vec<Placed>,
    ) -> Option<Object> {
        let mut paint = self.colour;
        let mut colour = None;
        let mut boxes = Vec::new();
        let flip = random.chance(0.5);
        for (i, &(cx, level, side)) in self.spots.iter().enumerate() {
            let foot = match self.place {
                // Air: `level` is the centre's height; a box stands on its foot.
                Place::Air => level + side / 2.0,
                Place::Ground => level.max(layout.horizon + 22.0).min(96.5),
                Place::Water => layout.shore - 3.0 - (96.0 - level) * 0.25,
            };
            let lean = if self.kind.tilts {
                random.range(-0.13, 0.13)
            } else {
                0.0
            };
            let mut one = Placed {
                figure: self.kind.figure(paint),
                place: self.place,
                cx,
                foot,
                side,
                flip,
                lean,
            };
            let mut layer = Layer::draw(&one, sprites, size, light);
            if i == 0 {
                colour = layer.colour(size);
                if sprites.is_some() && paint.is_some() && colour != paint {
                    // A turned hue that doesn't come out as its name: leave the sprite as it is.
                    paint = None;
                    one.figure = self.kind.figure(None);
                    layer = Layer::draw(&one, sprites, size, light);
                    colour = layer.colour(size);
                }
            } else if layer.colour(size) != colour {
                colour = None;
            }
            placed.push(one);
            let seen = layer.opaque(size).count();
            if layer.cut(size) > 0 || seen * 150 < (size * size) as usize {
                return None;
            }
            boxes.push(layer.bounds(size)?);
        }
        boxes.sort_by_key(|b| b.x0);
        Some(Object {
            noun: self.kind.noun.clone(),
            plural: self.kind.plural.clone(),
            colour: colour.filter(|_| self.kind.takes_colour()),
            count: boxes.len() as u32,
            size: self.size,
            place: self.place,
            boxes,
        })
    }
}

/// The height (foot for things on the ground and in the water, centre for things in the air).
fn level(place: Place, random: &mut Random) -> f32 {
    match place {
        Place::Air => random.range(33.0, 44.0),
        Place::Ground | Place::Water => random.range(86.0, 94.0),
    }
}

pub(crate) fn arrange_single(group: &mut Group, random: &mut Random) {
    let (low, high) = match group.size {
        Size::Small => (23.0, 28.0),
        Size::Normal => (46.0, 58.0),
        Size::Big => (68.0, 74.0),
    };
    let side = (random.range(low, high) * group.kind.span).min(76.0);
    let slack = (47.0 - side / 2.0).max(0.0) * 0.7;
    let cx = 50.0 + random.range(-slack, slack);
    let height = match group.size {
        Size::Big if group.place == Place::Air => random.range(44.0, 48.0),
        _ => level(group.place, random),
    };
    group.spots = vec![(cx, height, side)];
}

/// Two or three in a row.
pub(crate) fn arrange_count(group: &mut Group, random: &mut Random) {
    let count = if random.chance(0.55) { 2 } else { 3 };
    let share = 96.0 / count as f32;
    let (low, high) = if count == 2 {
        (36.0, 42.0)
    } else {
        (26.0, 29.0)
    };
    let side = (random.range(low, high) * group.kind.span).min(share - 3.0);
    let base = level(group.place, random);
    for i in 0..count {
        let slack = (share - side) / 2.0 - 1.0;
        let cx = 2.0 + share * (i as f32 + 0.5) + random.range(-slack, slack).clamp(-3.0, 3.0);
        let swing = if group.place == Place::Air { 8.0 } else { 3.0 };
        group
            .spots
            .push((cx, base + random.range(-swing, swing), side));
    }
}

/// Two things side by side, or one above the other; tells how the first stands to the second.
pub(crate) fn arrange_pair(groups: &mut [Group], random: &mut Random) -> Position {
    let air = [groups[0].place == Place::Air, groups[1].place == Place::Air];
    let stacked = air[0] != air[1] && random.chance(0.75);
    for (i, group) in groups.iter_mut().enumerate() {
        let side = (random.range(36.0, 43.0) * group.kind.span).min(46.0);
        if stacked {
            let height = if air[i] {
                random.range(22.0, 25.0)
            } else {
                random.range(93.0, 96.0)
            };
            group.spots = vec![(50.0 + random.range(-14.0, 14.0), height, side.min(41.0))];
        } else {
            let cx = 26.0 + random.range(-1.5, 1.5) + 48.0 * i as f32;
            group.spots = vec![(cx, level(group.place, random), side)];
        }
    }
    if stacked {
        return if air[0] {
            Position::Above
        } else {
            Position::Below
        };
    }
    if random.chance(0.5) {
        // Captions name the first first, and it isn't always the left one.
        let right = groups[1].spots[0].0;
        groups[1].spots[0].0 = groups[0].spots[0].0;
        groups[0].spots[0].0 = right;
        Position::RightOf
    } else {
        Position::LeftOf
    }
}

/// Room for what swims: the more shore, the less water.
pub(crate) fn layout(setting: Setting, groups: &[Group], random: &mut Random) -> Layout {
    let swims = groups.iter().any(|group| group.place == Place::Water);
    let flies = groups.iter().all(|group| group.place == Place::Air);
    let horizon = match setting {
        Setting::Forest => random.range(50.0, 56.0),
        Setting::City => random.range(50.0, 56.0),
        _ if flies => random.range(58.0, 66.0),
        _ => random.range(46.0, 54.0),
    };
    let shore = match (setting, swims) {
        (_, true) => random.range(88.0, 92.0),
        (Setting::Lake, _) => random.range(78.0, 84.0),
        _ => horizon + random.range(13.0, 19.0),
    };
    Layout { horizon, shore }
}
