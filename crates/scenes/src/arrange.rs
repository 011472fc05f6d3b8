//! Where things go, and how large they are.
//!
//! Lengths are in hundredths of the picture's side. A thing that is alone takes about half of the
//! picture, so that even a small model sees what it is.

use crate::backdrop::Layout;
use crate::catalogue::Kind;
use crate::colour::Colour;
use crate::figure::{Layer, Placed, Studio};
use crate::held_out;
use crate::random::Random;
use crate::truth::{Object, Place, Position, Setting, Size};

/// One kind of thing on its way into the picture.
pub(crate) struct Group<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) place: Place,
    /// Whether it hangs in the air, or in the water.
    floats: bool,
    colour: Option<Colour>,
    pub(crate) size: Size,
    /// (centre x, foot or centre height from 0 to 1 within its band, side) for each instance.
    pub(crate) spots: Vec<(f32, f32, f32)>,
}

impl<'a> Group<'a> {
    pub(crate) fn new(
        kind: &'a Kind,
        place: Place,
        setting: Setting,
        colour: Option<Colour>,
    ) -> Self {
        let submerged = place == Place::Water && setting == Setting::Underwater;
        Self {
            kind,
            place,
            floats: place == Place::Air || submerged,
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
        studio: &Studio,
        layout: Layout,
        random: &mut Random,
        placed: &mut Vec<Placed>,
    ) -> Option<Object> {
        let mut paint = self.colour;
        let mut colour = None;
        let mut boxes = Vec::new();
        let size = studio.size;
        let flip = random.chance(0.5);
        for (i, &(cx, level, side)) in self.spots.iter().enumerate() {
            let foot = match self.place {
                // `level` is the centre's height; a box stands on its foot.
                _ if self.floats => level + side / 2.0,
                Place::Water => layout.shore - 3.0 - (96.0 - level) * 0.25,
                _ => level.max(layout.horizon + 22.0).min(96.5),
            };
            let lean = if self.kind.tilts {
                random.range(-0.13, 0.13)
            } else {
                0.0
            };
            let mut one = Placed {
                figure: self.kind.figure(paint),
                // What hangs in the water makes no ripples.
                place: if self.floats { Place::Air } else { self.place },
                cx,
                foot,
                side,
                flip,
                lean,
            };
            let mut layer = Layer::draw(&one, studio);
            if i == 0 {
                colour = layer.colour(size);
                if studio.sprites.is_some() && paint.is_some() && colour != paint {
                    // A turned hue that doesn't come out as its name: leave the sprite as it is.
                    paint = None;
                    one.figure = self.kind.figure(None);
                    layer = Layer::draw(&one, studio);
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

/// The height: the centre of what floats, the foot of everything else.
fn level(floats: bool, random: &mut Random) -> f32 {
    if floats {
        random.range(33.0, 44.0)
    } else {
        random.range(86.0, 94.0)
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
        Size::Big if group.floats => random.range(44.0, 48.0),
        _ => level(group.floats, random),
    };
    group.spots = vec![(cx, height, side)];
}

/// Two to four in a row.
pub(crate) fn arrange_count(group: &mut Group, random: &mut Random) {
    let (count, low, high) = match random.unit() {
        u if u < 0.4 => (2, 36.0, 42.0),
        u if u < 0.75 => (3, 26.0, 29.0),
        _ => (4, 19.5, 22.0),
    };
    let share = 96.0 / count as f32;
    let side = (random.range(low, high) * group.kind.span).min(share - 2.5);
    let base = level(group.floats, random);
    for i in 0..count {
        let swing = if group.floats { 8.0 } else { 3.0 };
        let height = base + random.range(-swing, swing);
        group
            .spots
            .push((column(i, share, side, random), height, side));
    }
}

/// Three different things in a row.
pub(crate) fn arrange_row(groups: &mut [Group], random: &mut Random) {
    let share = 96.0 / groups.len() as f32;
    for (i, group) in groups.iter_mut().enumerate() {
        let side = (random.range(26.0, 30.0) * group.kind.span).min(share - 2.5);
        let height = level(group.floats, random);
        group.spots = vec![(column(i, share, side, random), height, side)];
    }
}

/// A place somewhere in column `i`, `share` wide.
fn column(i: usize, share: f32, side: f32, random: &mut Random) -> f32 {
    let slack = (share - side) / 2.0 - 1.0;
    2.0 + share * (i as f32 + 0.5) + random.range(-slack, slack).clamp(-3.0, 3.0)
}

/// Share of pairs on the ground of which one stands before the other.
const IN_DEPTH_SHARE: f32 = 0.4;

/// Two things side by side, one above the other, or one before the other; tells how the first stands to the second.
pub(crate) fn arrange_pair(groups: &mut [Group], random: &mut Random) -> Position {
    let on_ground = |group: &Group| group.place == Place::Ground && !group.floats;
    if groups.iter().all(on_ground) && random.chance(IN_DEPTH_SHARE) {
        return arrange_in_depth(groups, random);
    }
    let air = [groups[0].floats, groups[1].floats];
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
            group.spots = vec![(cx, level(group.floats, random), side)];
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

/// The one nearer, lower and smaller than the other, of which it hides a part.
fn arrange_in_depth(groups: &mut [Group], random: &mut Random) -> Position {
    let first_in_front = random.chance(0.5);
    let to_the_left = random.chance(0.5);
    let middle = 50.0 + random.range(-5.0, 5.0);
    for (i, group) in groups.iter_mut().enumerate() {
        let in_front = (i == 0) == first_in_front;
        let (side, foot, away) = if in_front {
            let side = (random.range(30.0, 36.0) * group.kind.span).min(40.0);
            (side, random.range(92.0, 95.5), random.range(7.0, 12.0))
        } else {
            let side = (random.range(48.0, 56.0) * group.kind.span).min(60.0);
            (side, random.range(81.0, 86.0), -random.range(5.0, 9.0))
        };
        let cx = middle + if to_the_left { -away } else { away };
        group.spots = vec![(cx, foot, side)];
    }
    if first_in_front {
        Position::InFrontOf
    } else {
        Position::Behind
    }
}

/// Room for what swims: the more shore, the less water.
pub(crate) fn layout(setting: Setting, groups: &[Group], random: &mut Random) -> Layout {
    let swims = groups.iter().any(|group| group.place == Place::Water);
    let flies = groups.iter().all(|group| group.floats);
    let horizon = match setting {
        Setting::Forest => random.range(50.0, 56.0),
        Setting::City => random.range(50.0, 56.0),
        Setting::Room => random.range(58.0, 63.0),
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
