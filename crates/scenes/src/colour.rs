//! Named colours: what an object is painted with, and what a picture's pixels are called.
//!
//! The eleven names are the basic colour terms of English (Berlin and Kay, 1969). A pixel's name is
//! decided in hue, saturation and value, which need nothing but the four operations, so that every
//! machine decides alike. Pixels between two names have none: a claim is made only for what most
//! people would call by that word.

use serde::{Deserialize, Serialize};

use crate::canvas::Rgb;

/// A colour that captions can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    Red,
    Orange,
    Yellow,
    Green,
    Blue,
    Purple,
    Pink,
    White,
    Black,
    Brown,
    Grey,
}

/// All colours, in the order of the enum.
pub const COLOURS: [Colour; 11] = [
    Colour::Red,
    Colour::Orange,
    Colour::Yellow,
    Colour::Green,
    Colour::Blue,
    Colour::Purple,
    Colour::Pink,
    Colour::White,
    Colour::Black,
    Colour::Brown,
    Colour::Grey,
];

impl Colour {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Colour::Red => "red",
            Colour::Orange => "orange",
            Colour::Yellow => "yellow",
            Colour::Green => "green",
            Colour::Blue => "blue",
            Colour::Purple => "purple",
            Colour::Pink => "pink",
            Colour::White => "white",
            Colour::Black => "black",
            Colour::Brown => "brown",
            Colour::Grey => "grey",
        }
    }

    /// The colour of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        COLOURS.into_iter().find(|colour| colour.name() == name)
    }

    /// The paint that objects of this colour are drawn with.
    pub(crate) fn ink(self) -> Ink {
        let base = match self {
            Colour::Red => Rgb(226, 40, 38),
            Colour::Orange => Rgb(252, 136, 20),
            Colour::Yellow => Rgb(255, 224, 48),
            Colour::Green => Rgb(56, 170, 66),
            Colour::Blue => Rgb(42, 108, 228),
            Colour::Purple => Rgb(138, 64, 200),
            Colour::Pink => Rgb(248, 126, 182),
            Colour::White => Rgb(248, 248, 250),
            Colour::Black => Rgb(46, 46, 54),
            Colour::Brown => Rgb(142, 86, 48),
            Colour::Grey => Rgb(142, 146, 152),
        };
        Ink::new(base, if self == Colour::White { 0.16 } else { 0.26 })
    }

    /// The hue in degrees that a sprite is turned to for this colour; none for colours that are not
    /// a matter of hue.
    pub(crate) fn hue(self) -> Option<f32> {
        Some(match self {
            Colour::Red => 0.0,
            Colour::Orange => 28.0,
            Colour::Yellow => 52.0,
            Colour::Green => 120.0,
            Colour::Blue => 218.0,
            Colour::Purple => 275.0,
            Colour::Pink => 328.0,
            _ => return None,
        })
    }
}

/// A paint with its lighter side, its shade and its outline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ink {
    pub(crate) base: Rgb,
    pub(crate) light: Rgb,
    pub(crate) dark: Rgb,
    pub(crate) line: Rgb,
}

impl Ink {
    /// Light and shade around `base`; `depth` in [0, 1] is how far the shade goes to a dusky violet,
    /// which looks livelier than grey.
    pub(crate) fn new(base: Rgb, depth: f32) -> Self {
        Self {
            base,
            light: base.mix(Rgb(255, 255, 255), 0.26),
            dark: base.mix(Rgb(44, 22, 64), depth),
            line: base.mix(Rgb(30, 16, 44), (depth * 2.3).min(0.9)),
        }
    }
}

/// Any colour as a paint, for the parts of an object that have a colour of their own.
pub(crate) fn ink(red: u8, green: u8, blue: u8) -> Ink {
    Ink::new(Rgb(red, green, blue), 0.24)
}

/// Hue in degrees [0, 360), saturation and value in [0, 1].
pub(crate) fn hsv(rgb: [u8; 3]) -> (f32, f32, f32) {
    let [r, g, b] = rgb.map(|channel| f32::from(channel) / 255.0);
    let value = r.max(g).max(b);
    let chroma = value - r.min(g).min(b);
    if chroma <= 0.0 {
        return (0.0, 0.0, value);
    }
    let sector = if value == r {
        let s = (g - b) / chroma;
        if s < 0.0 { s + 6.0 } else { s }
    } else if value == g {
        (b - r) / chroma + 2.0
    } else {
        (r - g) / chroma + 4.0
    };
    (sector * 60.0, chroma / value, value)
}

/// What a pixel is called; nothing between two names (turquoise, beige, magenta).
pub fn name_pixel(rgb: [u8; 3]) -> Option<Colour> {
    let (hue, saturation, value) = hsv(rgb);
    if value < 0.2 || (value < 0.36 && saturation < 0.4) {
        return Some(Colour::Black);
    }
    if saturation < 0.17 {
        return match value {
            v if v >= 0.78 => Some(Colour::White),
            v if (0.4..0.7).contains(&v) => Some(Colour::Grey),
            _ => None,
        };
    }
    if saturation < 0.26 {
        return None;
    }
    match hue {
        h if !(14.0..344.0).contains(&h) => {
            if saturation >= 0.53 {
                Some(Colour::Red)
            } else if value > 0.72 {
                Some(Colour::Pink)
            } else {
                None
            }
        }
        h if h < 46.0 => {
            if value < 0.62 && saturation < 0.85 {
                (h < 42.0).then_some(Colour::Brown)
            } else if (17.0..42.0).contains(&h) && saturation >= 0.55 && value >= 0.66 {
                Some(Colour::Orange)
            } else {
                None
            }
        }
        h if h < 68.0 => (saturation >= 0.4 && value >= 0.6).then_some(Colour::Yellow),
        h if (80.0..168.0).contains(&h) => Some(Colour::Green),
        h if (196.0..250.0).contains(&h) => Some(Colour::Blue),
        h if (256.0..294.0).contains(&h) => Some(Colour::Purple),
        h if (312.0..344.0).contains(&h) && value > 0.55 => Some(Colour::Pink),
        _ => None,
    }
}

/// The one name for a set of pixels: at least half of all pixels bear it, and it has at least
/// twice the pixels of the next name. Nothing when that is ambiguous, or when there are no pixels.
pub fn dominant(pixels: impl Iterator<Item = [u8; 3]>) -> Option<Colour> {
    let mut counts = [0usize; COLOURS.len()];
    let mut total = 0usize;
    for pixel in pixels {
        total += 1;
        if let Some(colour) = name_pixel(pixel) {
            counts[colour as usize] += 1;
        }
    }
    let (best, &most) = counts.iter().enumerate().max_by_key(|&(_, count)| *count)?;
    let next = counts
        .iter()
        .enumerate()
        .filter(|&(i, _)| i != best)
        .map(|(_, count)| *count)
        .max()?;
    (total > 0 && most * 2 >= total && most >= 2 * next).then(|| COLOURS[best])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ink_is_called_by_its_name() {
        for colour in COLOURS {
            let Rgb(r, g, b) = colour.ink().base;
            assert_eq!(name_pixel([r, g, b]), Some(colour));
            assert_eq!(Colour::from_name(colour.name()), Some(colour));
        }
    }

    #[test]
    fn between_two_names_there_is_none() {
        for rgb in [
            [64, 190, 190],
            [222, 200, 170],
            [200, 40, 200],
            [200, 225, 245],
        ] {
            assert_eq!(name_pixel(rgb), None, "{rgb:?}");
        }
    }

    #[test]
    fn a_half_and_half_thing_has_no_colour() {
        let (red, blue) = ([226, 40, 38], [42, 108, 228]);
        let mixed = (0..100).map(|i| if i % 2 == 0 { red } else { blue });
        assert_eq!(dominant(mixed), None);
        let mostly = (0..100).map(|i| if i % 4 == 0 { blue } else { red });
        assert_eq!(dominant(mostly), Some(Colour::Red));
        assert_eq!(dominant(std::iter::empty()), None);
    }
}
