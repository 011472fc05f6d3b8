//! Combinations that are kept out of training, so that a model can be asked for what it has never seen together.
//!
//! Of the pairs of a colour and a noun, of two nouns and how one stands to the other, and of a landscape, an hour and
//! a weather, one in ten is held out. Which ones follows from their names alone: the same in every run, whatever else
//! a config leaves out.

use serde::{Deserialize, Serialize};

use crate::catalogue::Kind;
use crate::colour::Colour;
use crate::truth::{Position, Setting, Time, Truth, Weather};

/// What scenes do with the combinations that are held out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldOut {
    /// They are drawn like all others.
    #[default]
    Include,
    /// No scene has one: for training.
    Exclude,
    /// Every scene has at least one: for tests of what a model makes of them.
    Only,
}

/// One in so many is held out.
const SHARE: u64 = 10;

/// Paints that a noun must have for some to be held out: one with fewer could be left with none.
const FEWEST_PAINTS: usize = 3;

/// Whether this colour of this kind of thing is held out.
pub(crate) fn colour_and_noun(colour: Colour, kind: &Kind) -> bool {
    kind.paints >= FEWEST_PAINTS && chosen(&[colour.name(), &kind.noun])
}

/// Whether two things in this relation are. "A to the left of B" and "B to the right of A" are the same.
pub(crate) fn pair(first: &str, position: Position, second: &str) -> bool {
    match position {
        Position::LeftOf | Position::Above => chosen(&[first, position.name(), second]),
        Position::RightOf => pair(second, Position::LeftOf, first),
        Position::Below => pair(second, Position::Above, first),
        Position::InFrontOf => chosen(&[first, position.name(), second]),
        Position::Behind => pair(second, Position::InFrontOf, first),
    }
}

/// Whether this landscape at this hour in this weather is; one without an hour or weather never is.
pub(crate) fn surroundings(setting: Setting, time: Time, weather: Weather) -> bool {
    chosen(&[setting.name(), time.name(), weather.name()])
}

/// Whether what `truth` shows has a combination that is held out; `kinds` are those of its objects.
pub(crate) fn shows(truth: &Truth, kinds: &[&Kind]) -> bool {
    let coloured = truth.objects.iter().zip(kinds).any(|(object, kind)| {
        object
            .colour
            .is_some_and(|colour| colour_and_noun(colour, kind))
    });
    let related = match (truth.objects.as_slice(), truth.relation) {
        ([first, second], Some(position)) => pair(&first.noun, position, &second.noun),
        _ => false,
    };
    let surrounded = match (truth.time, truth.weather) {
        (Some(time), Some(weather)) => surroundings(truth.setting, time, weather),
        _ => false,
    };
    coloured || related || surrounded
}

/// One combination in ten, by its names: FNV-1a, and the mixing of SplitMix64, without which the last bits of short
/// names are too much alike.
fn chosen(names: &[&str]) -> bool {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for name in names {
        for byte in name.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash ^ (hash >> 31)).is_multiple_of(SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::kinds;
    use crate::colour::COLOURS;

    /// One in ten within four standard deviations.
    fn is_a_tenth(count: usize, all: usize) -> bool {
        let expected = all as f64 / SHARE as f64;
        (count as f64 - expected).abs() < 4.0 * (expected * 0.9).sqrt()
    }

    #[test]
    fn a_tenth_of_each_sort_is_held_out_and_everything_is_left_in_some_combination() {
        let kinds = kinds(None);
        let (mut held, mut all) = (0, 0);
        for kind in &kinds {
            let kept = |colour: &&Colour| !colour_and_noun(**colour, kind);
            let left = kind.colours.iter().filter(kept).count();
            assert!(left > 0, "{} in no colour", kind.noun);
            if kind.colours.len() >= FEWEST_PAINTS {
                held += kind.colours.len() - left;
                all += kind.colours.len();
            }
        }
        assert!(is_a_tenth(held, all), "{held} of {all} colours of things");
        for colour in COLOURS {
            let kept =
                |kind: &Kind| kind.colours.contains(&colour) && !colour_and_noun(colour, kind);
            let wanted = kinds.iter().any(|kind| kind.colours.contains(&colour));
            assert!(!wanted || kinds.iter().any(kept), "nothing is {colour:?}");
        }

        let nouns: Vec<&str> = kinds.iter().map(|kind| kind.noun.as_str()).collect();
        let mut pairs = Vec::new();
        for a in &nouns {
            for b in nouns.iter().filter(|b| *b != a) {
                for position in [Position::LeftOf, Position::Above, Position::InFrontOf] {
                    pairs.push(pair(a, position, b));
                }
                assert_eq!(pair(a, Position::LeftOf, b), pair(b, Position::RightOf, a));
                assert_eq!(pair(a, Position::Above, b), pair(b, Position::Below, a));
                assert_eq!(
                    pair(a, Position::InFrontOf, b),
                    pair(b, Position::Behind, a)
                );
            }
        }
        let held = pairs.iter().filter(|held| **held).count();
        assert!(
            is_a_tenth(held, pairs.len()),
            "{held} of {} pairs",
            pairs.len()
        );

        let mut held = 0;
        for &setting in Setting::ALL {
            let mut left = 0;
            for &time in Time::ALL {
                for &weather in Weather::ALL {
                    let out = surroundings(setting, time, weather);
                    held += usize::from(out);
                    left += usize::from(!out);
                }
            }
            assert!(left > 0, "{setting:?} is left in no light");
        }
        let all = Setting::ALL.len() * Time::ALL.len() * Weather::ALL.len();
        assert!(is_a_tenth(held, all), "{held} of {all} surroundings");
    }
}
