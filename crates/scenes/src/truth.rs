//! What a scene shows, in a form that a program can check.

use serde::{Deserialize, Serialize};

use crate::colour::Colour;

/// Declares an enum with one table of names that serde, captions and the command line share.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The name in ground truth and configs.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// The value of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == name)
            }
        }
    };
}

named! {
    /// The landscape, or what stands for one.
    Setting {
        Meadow = "meadow", Forest = "forest", Beach = "beach", Desert = "desert", Snow = "snow",
        Mountains = "mountains", Lake = "lake", City = "city", Underwater = "underwater",
        Space = "space", Room = "room",
    }
}

impl Setting {
    /// Whether the hour is to be seen in it: through a room's window too, but not under water, nor on the moon.
    pub fn has_time(self) -> bool {
        !matches!(self, Setting::Underwater | Setting::Space)
    }

    /// Whether it has weather.
    pub fn has_weather(self) -> bool {
        self.has_time() && self != Setting::Room
    }
}

named! {
    /// The hour, which decides the light.
    Time { Dawn = "dawn", Noon = "noon", Sunset = "sunset", Night = "night" }
}

named! {
    /// The weather.
    Weather {
        Clear = "clear", Cloudy = "cloudy", Rain = "rain", Snowfall = "snowfall", Fog = "fog",
        Rainbow = "rainbow",
    }
}

named! {
    /// Where a thing belongs.
    Place { Ground = "ground", Water = "water", Air = "air" }
}

named! {
    /// How large a thing is drawn: `Normal` is about half the picture's height when it is alone.
    Size { Small = "small", Normal = "normal", Big = "big" }
}

named! {
    /// How the first object stands to the second.
    Position {
        LeftOf = "left of", RightOf = "right of", Above = "above", Below = "below",
        /// Nearer to us, and hiding a part of the second.
        InFrontOf = "in front of",
        /// Partly hidden by the second.
        Behind = "behind",
    }
}

named! {
    /// How the picture is drawn: with light and shade, or in plain areas of colour.
    Style { Soft = "soft", Flat = "flat" }
}

/// Pixels from (x0, y0) inclusive to (x1, y1) exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PixelBox {
    pub x0: u32,
    pub y0: u32,
    pub x1: u32,
    pub y1: u32,
}

/// One kind of thing in a scene, once or several times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    pub noun: String,
    pub plural: String,
    /// The measured colour; none when the object has no single one.
    pub colour: Option<Colour>,
    pub count: u32,
    pub size: Size,
    pub place: Place,
    /// One box for each instance, from left to right, around its opaque pixels, hidden ones included.
    pub boxes: Vec<PixelBox>,
}

/// Everything that is known of a scene.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    pub seed: u64,
    pub index: u64,
    /// The picture's width and height in pixels; boxes count in them.
    pub size: u32,
    pub style: Style,
    pub setting: Setting,
    /// None where the setting has no hour ([`Setting::has_time`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// None where the setting has no weather ([`Setting::has_weather`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weather: Option<Weather>,
    /// One to three kinds.
    pub objects: Vec<Object>,
    /// `objects[0]` is there, seen from `objects[1]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<Position>,
}
