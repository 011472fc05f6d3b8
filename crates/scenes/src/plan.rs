//! From a seed to a scene: what, where, in which light.

use std::sync::Arc;

use crate::backdrop::{Layout, Light};
use crate::caption;
use crate::catalogue::{Kind, kinds, weather_fits};
use crate::colour::{COLOURS, Colour};
use crate::error::SceneError;
use crate::figure::{Layer, Placed};
use crate::random::Random;
use crate::scene::Scene;
use crate::sprites::SpriteSet;
use crate::truth::{Object, Place, Position, Setting, Size, Time, Truth, Weather};

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
    /// Paints; a thing uses those of its own that are listed.
    pub colours: Vec<Colour>,
    /// Nouns (singular); empty means all.
    pub nouns: Vec<String>,
    /// Share of scenes with two different things.
    pub pair_share: f32,
    /// Share of scenes with two or three of the same thing.
    pub count_share: f32,
    /// Share of single things drawn small, and the same share drawn big.
    pub odd_size_share: f32,
    /// Share of scenes in clear weather, where clear weather is listed; the others share the rest.
    pub clear_share: f32,
}

impl Default for SceneConfig {
    fn default() -> Self {
        Self {
            size: 128,
            sprites: None,
            settings: Setting::ALL.to_vec(),
            times: Time::ALL.to_vec(),
            weathers: Weather::ALL.to_vec(),
            colours: COLOURS.to_vec(),
            nouns: Vec::new(),
            pair_share: 0.2,
            count_share: 0.1,
            odd_size_share: 0.07,
            clear_share: 0.5,
        }
    }
}

/// Makes scenes. `scene` is a pure function of the config, a seed and an index.
#[derive(Clone, Debug)]
pub struct SceneGenerator {
    pub(crate) config: SceneConfig,
    kinds: Vec<Kind>,
}

/// Tries for a scene in which everything is to be seen as planned.
const ATTEMPTS: u64 = 24;

impl SceneGenerator {
    /// # Errors
    /// A field of the config that no scene can be drawn with: a size out of range, an empty list, an
    /// unknown noun, shares below 0 or together above 1.
    pub fn new(config: SceneConfig) -> Result<Self, SceneError> {
        let wrong = |field, expected: &str, found: String| SceneError::Config {
            field,
            expected: expected.to_owned(),
            found,
        };
        if !(32..=2048).contains(&config.size) {
            return Err(wrong("size", "32 to 2048", config.size.to_string()));
        }
        let lists = [
            ("settings", config.settings.is_empty()),
            ("times", config.times.is_empty()),
            ("weathers", config.weathers.is_empty()),
            ("colours", config.colours.is_empty()),
        ];
        if let Some((field, _)) = lists.into_iter().find(|&(_, empty)| empty) {
            return Err(wrong(
                field,
                "a list with at least one entry",
                "empty".to_owned(),
            ));
        }
        let shares = [
            ("pair_share", config.pair_share, 1.0 - config.count_share),
            ("count_share", config.count_share, 1.0),
            ("odd_size_share", config.odd_size_share, 0.5),
            ("clear_share", config.clear_share, 1.0),
        ];
        for (field, share, most) in shares {
            if !(0.0..=most.clamp(0.0, 1.0)).contains(&share) {
                return Err(wrong(field, &format!("0 to {most}"), share.to_string()));
            }
        }
        let mut kinds = kinds(config.sprites.as_deref());
        for noun in &config.nouns {
            if !kinds.iter().any(|kind| kind.noun == *noun) {
                let known: Vec<&str> = kinds.iter().map(|kind| kind.noun.as_str()).collect();
                return Err(wrong(
                    "nouns",
                    &format!("among: {}", known.join(", ")),
                    format!("{noun:?}"),
                ));
            }
        }
        kinds.retain(|kind| config.nouns.is_empty() || config.nouns.contains(&kind.noun));
        for kind in &mut kinds {
            let had_some = !kind.colours.is_empty();
            let own = kind.colours.clone();
            kind.colours
                .retain(|colour| config.colours.contains(colour));
            if had_some && kind.colours.is_empty() {
                kind.colours = own;
            }
        }
        let pairs = |kind: &Kind| {
            config.settings.iter().any(|&s| {
                kind.place_in(s).is_some() && config.weathers.iter().any(|&w| weather_fits(s, w))
            })
        };
        kinds.retain(pairs);
        if kinds.is_empty() {
            return Err(wrong(
                "settings",
                "such that one of the nouns belongs into one of them",
                format!("{:?} for {:?}", config.settings, config.nouns),
            ));
        }
        Ok(Self { config, kinds })
    }

    /// The settings this generator was made with.
    pub fn config(&self) -> &SceneConfig {
        &self.config
    }

    /// The nouns it draws, in order.
    pub fn nouns(&self) -> Vec<&str> {
        self.kinds.iter().map(|kind| kind.noun.as_str()).collect()
    }

    /// Every word that a caption of this generator can contain, sorted.
    pub fn vocabulary(&self) -> Vec<String> {
        caption::vocabulary(&self.kinds)
    }

    /// Scene number `index` of the series `seed`.
    pub fn scene(&self, seed: u64, index: u64) -> Scene {
        let mut last = self.attempt(seed, index, 0);
        for attempt in 1..ATTEMPTS {
            if last.1 {
                break;
            }
            last = self.attempt(seed, index, attempt);
        }
        last.0
    }

    /// One plan, drawn and measured, and whether all of it is to be seen as planned.
    fn attempt(&self, seed: u64, index: u64, attempt: u64) -> (Scene, bool) {
        // After half of the attempts only single things are tried: they always succeed.
        let mut random = Random::new(seed, index, 16 * attempt);
        let size = self.config.size;
        let kind = random.pick(&self.kinds);
        let settings: Vec<Setting> = self
            .config
            .settings
            .iter()
            .copied()
            .filter(|&s| {
                kind.place_in(s).is_some()
                    && self.config.weathers.iter().any(|&w| weather_fits(s, w))
            })
            .collect();
        let setting = *random.pick(&settings);
        let time = *random.pick(&self.config.times);
        let weather = self.weather(setting, &mut random);
        let light = Light::new(time, weather);
        let roll = random.unit();
        let simple = attempt > ATTEMPTS / 2;
        let wants_pair = !simple && roll < self.config.pair_share;
        let wants_count =
            !simple && !wants_pair && roll < self.config.pair_share + self.config.count_share;
        let place = kind.place_in(setting).unwrap_or(Place::Ground);
        let mut groups = vec![Group::new(
            kind,
            place,
            self.colour(kind, setting, time, weather, place, &mut random),
        )];
        let mut relation = None;
        if wants_pair {
            let others: Vec<&Kind> = self
                .kinds
                .iter()
                .filter(|k| k.noun != kind.noun && k.place_in(setting).is_some())
                .collect();
            if !others.is_empty() {
                let other = *random.pick(&others);
                let place = other.place_in(setting).unwrap_or(Place::Ground);
                groups.push(Group::new(
                    other,
                    place,
                    self.colour(other, setting, time, weather, place, &mut random),
                ));
                relation = Some(arrange_pair(&mut groups, &mut random));
            }
        } else if wants_count {
            arrange_count(&mut groups[0], &mut random);
        }
        if groups.len() == 1 && groups[0].spots.is_empty() {
            groups[0].size = match random.unit() {
                u if u < self.config.odd_size_share => Size::Small,
                u if u < 2.0 * self.config.odd_size_share => Size::Big,
                _ => Size::Normal,
            };
            arrange_single(&mut groups[0], &mut random);
        }
        let layout = layout(setting, &groups, &mut random);
        let sprites = self.config.sprites.as_deref();
        let mut objects = Vec::new();
        let mut placed = Vec::new();
        for group in &mut groups {
            objects.push(group.draw(sprites, size, &light, layout, &mut random, &mut placed));
        }
        let fine = objects.iter().all(Option::is_some)
            && related(&objects, relation)
            && apart(&placed, sprites, size, &light);
        let objects = objects.into_iter().flatten().collect();
        let truth = Truth {
            seed,
            index,
            size,
            setting,
            time,
            weather,
            objects,
            relation,
        };
        let kinds: Vec<&Kind> = groups.iter().map(|group| group.kind).collect();
        let captions = caption::captions(
            &truth,
            &kinds,
            &mut Random::new(seed, index, 16 * attempt + 2),
        );
        let scene = Scene {
            truth,
            captions,
            placed,
            layout,
            backdrop: Random::new(seed, index, 16 * attempt + 1),
            sprites: self.config.sprites.clone(),
        };
        (scene, fine)
    }

    fn weather(&self, setting: Setting, random: &mut Random) -> Weather {
        let fitting: Vec<Weather> = self
            .config
            .weathers
            .iter()
            .copied()
            .filter(|&w| weather_fits(setting, w))
            .collect();
        let clear = fitting.contains(&Weather::Clear);
        if clear && (fitting.len() == 1 || random.chance(self.config.clear_share)) {
            return Weather::Clear;
        }
        let others: Vec<Weather> = fitting
            .into_iter()
            .filter(|&w| w != Weather::Clear)
            .collect();
        *random.pick(&others)
    }

    /// A paint that stands out from what will be behind it.
    fn colour(
        &self,
        kind: &Kind,
        setting: Setting,
        time: Time,
        weather: Weather,
        place: Place,
        random: &mut Random,
    ) -> Option<Colour> {
        let pale = setting == Setting::Snow
            || matches!(weather, Weather::Fog | Weather::Snowfall)
            || (place == Place::Air && weather != Weather::Clear);
        let visible = |colour: &&Colour| match colour {
            Colour::White => !pale || time == Time::Night,
            Colour::Black => time != Time::Night,
            _ => true,
        };
        let good: Vec<Colour> = kind.colours.iter().filter(visible).copied().collect();
        match (good.is_empty(), kind.colours.is_empty()) {
            (false, _) => Some(*random.pick(&good)),
            (true, false) => Some(*random.pick(&kind.colours)),
            (true, true) => None,
        }
    }
}

/// One kind of thing on its way into the picture.
struct Group<'a> {
    kind: &'a Kind,
    place: Place,
    colour: Option<Colour>,
    size: Size,
    /// (centre x, foot or centre height from 0 to 1 within its band, side) for each instance.
    spots: Vec<(f32, f32, f32)>,
}

impl<'a> Group<'a> {
    fn new(kind: &'a Kind, place: Place, colour: Option<Colour>) -> Self {
        Self {
            kind,
            place,
            colour,
            size: Size::Normal,
            spots: Vec::new(),
        }
    }

    /// Places and measures every instance. None when one is cut off, or too small to be seen.
    fn draw(
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

fn arrange_single(group: &mut Group, random: &mut Random) {
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
fn arrange_count(group: &mut Group, random: &mut Random) {
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
fn arrange_pair(groups: &mut [Group], random: &mut Random) -> Position {
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
fn layout(setting: Setting, groups: &[Group], random: &mut Random) -> Layout {
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

/// Whether the boxes say of the two objects what the relation says.
fn related(objects: &[Option<Object>], relation: Option<Position>) -> bool {
    let (Some(position), [Some(first), Some(second)]) = (relation, objects) else {
        return relation.is_none();
    };
    let (a, b) = (first.boxes[0], second.boxes[0]);
    match position {
        Position::LeftOf => a.x1 <= b.x0,
        Position::RightOf => b.x1 <= a.x0,
        Position::Above => a.y1 <= b.y0,
        Position::Below => b.y1 <= a.y0,
    }
}

/// Whether no object hides any part of another.
fn apart(placed: &[Placed], sprites: Option<&SpriteSet>, size: u32, light: &Light) -> bool {
    if placed.len() < 2 {
        return true;
    }
    let mut taken = vec![false; (size * size) as usize];
    placed.iter().all(|one| {
        let layer = Layer::draw(one, sprites, size, light);
        layer
            .opaque(size)
            .all(|(x, y, _)| !std::mem::replace(&mut taken[(y * size + x) as usize], true))
    })
}
