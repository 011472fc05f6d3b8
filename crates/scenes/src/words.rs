//! The phrases that captions are put together from. The first of each list is the plain one.

use crate::truth::{Place, Position, Setting, Size, Style, Time, Weather};

pub(crate) fn where_(setting: Setting, place: Place) -> &'static [&'static str] {
    use Setting::{
        Beach, City, Desert, Forest, Lake, Meadow, Mountains, Room, Snow, Space, Underwater,
    };
    match (setting, place) {
        (Meadow, Place::Air) => &["over a meadow", "above a meadow", "over a grassy field"],
        (Meadow, _) => &["in a meadow", "on a meadow", "in a grassy field"],
        (Forest, Place::Air) => &["over a forest", "above a forest", "in front of a forest"],
        (Forest, _) => &["in a forest", "in the forest", "in the woods"],
        (Beach, Place::Air) => &["over a beach", "above a beach", "over the beach"],
        (Beach, Place::Water) => &["at a beach", "at the beach", "in the sea", "on the water"],
        (Beach, Place::Ground) => &["on a beach", "on the beach", "at the beach"],
        (Desert, Place::Air) => &["over a desert", "above the desert", "over the desert"],
        (Desert, _) => &["in a desert", "in the desert", "on desert sand"],
        (Snow, Place::Air) => &["over the snow", "above the snow", "over a snowy field"],
        (Snow, _) => &["in the snow", "on the snow", "in a snowy field"],
        (Mountains, Place::Air) => &[
            "over the mountains",
            "in front of mountains",
            "in the mountains",
        ],
        (Mountains, _) => &["in the mountains", "in front of mountains"],
        (Lake, Place::Air) => &["over a lake", "above a lake", "over the lake"],
        (Lake, Place::Water) => &["on a lake", "on the lake", "on the water"],
        (Lake, Place::Ground) => &["by a lake", "beside a lake", "by the lake"],
        (City, Place::Air) => &["over a city street", "above a city street", "in a city"],
        (City, _) => &["on a city street", "in a city", "in the city"],
        (Underwater, Place::Ground) => &["underwater", "at the bottom of the sea", "on the seabed"],
        (Underwater, _) => &["underwater", "under the sea", "deep in the sea"],
        (Space, Place::Ground) => &["in space", "on the moon", "in outer space"],
        (Space, _) => &["in space", "above the moon", "in outer space"],
        (Room, _) => &["in a cosy room", "in a room", "indoors", "at home"],
    }
}

pub(crate) fn landscape(setting: Setting) -> &'static str {
    match setting {
        Setting::Meadow => "a meadow",
        Setting::Forest => "a forest",
        Setting::Beach => "a beach",
        Setting::Desert => "a desert",
        Setting::Snow => "a snowy field",
        Setting::Mountains => "mountains",
        Setting::Lake => "a lake",
        Setting::City => "a city street",
        Setting::Underwater => "the bottom of the sea",
        Setting::Space => "outer space",
        Setting::Room => "a cosy room",
    }
}

pub(crate) fn setting_tag(setting: Setting) -> &'static str {
    match setting {
        Setting::Snow => "snowy field",
        Setting::Room => "cosy room",
        other => other.name(),
    }
}

pub(crate) fn when(time: Time) -> &'static [&'static str] {
    match time {
        Time::Dawn => &["at dawn", "at sunrise", "in the early morning"],
        Time::Noon => &["at noon", "in the daytime", "by day", "during the day"],
        Time::Sunset => &["at sunset", "in the evening"],
        Time::Night => &["at night", "by night", "during the night"],
    }
}

pub(crate) fn when_tag(time: Time) -> &'static str {
    match time {
        Time::Noon => "day",
        other => other.name(),
    }
}

pub(crate) fn weather(weather: Weather) -> &'static [&'static str] {
    match weather {
        Weather::Clear => &["under a clear sky", "in clear weather"],
        Weather::Cloudy => &[
            "under a cloudy sky",
            "in cloudy weather",
            "with clouds in the sky",
        ],
        Weather::Rain => &["in the rain", "in rainy weather"],
        Weather::Snowfall => &["in falling snow", "while snow is falling"],
        Weather::Fog => &["in the fog", "in foggy weather"],
        Weather::Rainbow => &["under a rainbow", "with a rainbow in the sky"],
    }
}

pub(crate) fn weather_tag(weather: Weather) -> &'static str {
    match weather {
        Weather::Clear => "clear sky",
        Weather::Cloudy => "clouds",
        Weather::Snowfall => "falling snow",
        other => other.name(),
    }
}

pub(crate) fn size(size: Size) -> &'static [&'static str] {
    match size {
        Size::Small => &["tiny", "small", "little"],
        Size::Normal => &[],
        Size::Big => &["big", "large", "huge"],
    }
}

pub(crate) fn position(position: Position) -> &'static str {
    match position {
        Position::LeftOf => "to the left of",
        Position::RightOf => "to the right of",
        Position::Above => "above",
        Position::Below => "below",
        Position::InFrontOf => "in front of",
        Position::Behind => "behind",
    }
}

pub(crate) const NEXT_TO: [&str; 2] = ["next to", "beside"];

pub(crate) fn number(count: u32) -> &'static str {
    match count {
        1 => "one",
        2 => "two",
        3 => "three",
        _ => "four",
    }
}

/// What a picture in this style is called.
pub(crate) fn style(style: Style) -> &'static [&'static str] {
    match style {
        Style::Soft => &["a soft 3d picture of", "a 3d rendering of"],
        Style::Flat => &["a flat illustration of", "a flat drawing of"],
    }
}

pub(crate) fn style_tag(style: Style) -> &'static str {
    match style {
        Style::Soft => "soft 3d",
        Style::Flat => "flat illustration",
    }
}
