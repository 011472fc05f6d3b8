//! From a seed to a scene: what, where, in which light.

use crate::arrange::{Group, arrange_count, arrange_pair, arrange_row, arrange_single, layout};
use crate::backdrop::Light;
use crate::caption;
use crate::catalogue::Kind;
use crate::colour::Colour;
use crate::config::SceneConfig;
use crate::error::SceneError;
use crate::figure::{Layer, Placed, Studio, named};
use crate::held_out::{self, HeldOut};
use crate::random::Random;
use crate::scene::Scene;
use crate::truth::{Object, Place, Position, Setting, Size, Style, Time, Truth, Weather};

/// Makes scenes. `scene` is a pure function of the config, a seed and an index.
#[derive(Clone, Debug)]
pub struct SceneGenerator {
    pub(crate) config: SceneConfig,
    kinds: Vec<Kind>,
}

/// Tries for a scene in which everything is to be seen as planned.
const ATTEMPTS: u64 = 24;
/// Tries where combinations are held out. The rarest that a config may ask for, one pair of a colour and a noun among
/// some hundreds, comes within so many but for a chance below one in a million.
const ATTEMPTS_HELD_OUT: u64 = 8192;
/// Share of sprites that keep their own colours though their hue could be turned.
const OWN_COLOUR_SHARE: f32 = 0.4;

impl SceneGenerator {
    /// # Errors
    /// A field of the config that no scene can be drawn with: a size out of range, an empty list, an
    /// unknown noun, shares below 0 or together above 1, nouns that belong into none of the settings.
    pub fn new(config: SceneConfig) -> Result<Self, SceneError> {
        config.check()?;
        let kinds = config.kinds()?;
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
        let attempts = match self.config.held_out {
            HeldOut::Include => ATTEMPTS,
            HeldOut::Exclude | HeldOut::Only => ATTEMPTS_HELD_OUT,
        };
        let mut last = self.attempt(seed, index, 0);
        for attempt in 1..attempts {
            if last.1 {
                break;
            }
            last = self.attempt(seed, index, attempt);
        }
        last.0
    }

    /// Whether a scene of this generator's things shows a combination that is held out ([`HeldOut`]).
    pub fn is_held_out(&self, truth: &Truth) -> bool {
        let find = |object: &Object| self.kinds.iter().find(|kind| kind.noun == object.noun);
        let kinds: Vec<&Kind> = truth.objects.iter().filter_map(find).collect();
        held_out::shows(truth, &kinds)
    }

    /// One plan, drawn and measured, and whether all of it is to be seen as planned.
    fn attempt(&self, seed: u64, index: u64, attempt: u64) -> (Scene, bool) {
        // After half of the attempts only single things are tried: they always succeed. Where combinations are held
        // out, this begins anew every so often, so that pairs keep their chance.
        let mut random = Random::new(seed, index, 16 * attempt);
        let kind = random.pick(&self.kinds);
        let around = self.surroundings(kind, &mut random);
        let roll = random.unit();
        let simple = attempt % ATTEMPTS > ATTEMPTS / 2;
        let wanted = match self.config.kinds_wanted(roll) {
            wanted if simple => Wanted { kinds: 1, ..wanted },
            wanted => wanted,
        };
        let mut groups = vec![self.group(kind, &around, &mut random)];
        while groups.len() < wanted.kinds {
            let taken = |kind: &Kind| groups.iter().any(|group| group.kind.noun == kind.noun);
            let others = self.kinds.iter();
            let others: Vec<&Kind> = others
                .filter(|k| !taken(k) && k.place_in(around.setting).is_some())
                .collect();
            if others.is_empty() {
                break;
            }
            let other = *random.pick(&others);
            groups.push(self.group(other, &around, &mut random));
        }
        let mut relation = None;
        match groups.as_mut_slice() {
            [one] if wanted.counted && !simple => arrange_count(one, &mut random),
            [one] => {
                one.size = match random.unit() {
                    u if u < self.config.odd_size_share => Size::Small,
                    u if u < 2.0 * self.config.odd_size_share => Size::Big,
                    _ => Size::Normal,
                };
                arrange_single(one, &mut random);
            }
            pair @ [_, _] => relation = Some(arrange_pair(pair, &mut random)),
            more => arrange_row(more, &mut random),
        }
        let layout = layout(around.setting, &groups, &mut random);
        let studio = Studio {
            sprites: self.config.sprites.as_deref(),
            size: self.config.size,
            light: Light::new(around.setting, around.time, around.weather),
            style: around.style,
        };
        let mut objects = Vec::new();
        let mut placed = Vec::new();
        for group in &mut groups {
            objects.push(group.draw(&studio, layout, &mut random, &mut placed));
        }
        let fine = objects.iter().all(Option::is_some)
            && related(&objects, relation)
            && to_be_seen(&objects, &placed, relation, &studio);
        let truth = Truth {
            seed,
            index,
            size: self.config.size,
            style: around.style,
            setting: around.setting,
            time: around.time,
            weather: around.weather,
            objects: objects.into_iter().flatten().collect(),
            relation,
        };
        let kinds: Vec<&Kind> = groups.iter().map(|group| group.kind).collect();
        let fine = fine
            && match self.config.held_out {
                HeldOut::Include => true,
                // What is painted so shall not be there either where nobody would call it so.
                HeldOut::Exclude => {
                    !held_out::shows(&truth, &kinds) && !groups.iter().any(Group::is_held_out)
                }
                HeldOut::Only => held_out::shows(&truth, &kinds),
            };
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

    /// A setting that suits `kind`, its hour and weather, and a style.
    fn surroundings(&self, kind: &Kind, random: &mut Random) -> Surroundings {
        let settings = self.config.settings.iter().copied();
        let settings: Vec<Setting> = settings
            .filter(|&setting| self.config.allows(kind, setting))
            .collect();
        let setting = *random.pick(&settings);
        let time = setting
            .has_time()
            .then(|| *random.pick(&self.config.times_of(setting)));
        let weather = time
            .filter(|_| setting.has_weather())
            .map(|time| self.weather(setting, time, random));
        let flat = match self.config.styles.as_slice() {
            [only] => *only == Style::Flat,
            _ => random.chance(self.config.flat_share),
        };
        Surroundings {
            setting,
            time,
            weather,
            style: if flat { Style::Flat } else { Style::Soft },
        }
    }

    fn weather(&self, setting: Setting, time: Time, random: &mut Random) -> Weather {
        let fitting = self.config.weathers_of(setting, time);
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

    fn group<'a>(&self, kind: &'a Kind, around: &Surroundings, random: &mut Random) -> Group<'a> {
        let place = kind.place_in(around.setting).unwrap_or(Place::Ground);
        Group::new(
            kind,
            place,
            around.setting,
            self.colour(kind, place, around, random),
        )
    }

    /// A paint that stands out from what will be behind it.
    fn colour(
        &self,
        kind: &Kind,
        place: Place,
        around: &Surroundings,
        random: &mut Random,
    ) -> Option<Colour> {
        let overcast = around
            .weather
            .is_some_and(|weather| weather != Weather::Clear);
        let pale = around.setting == Setting::Snow
            || matches!(around.weather, Some(Weather::Fog | Weather::Snowfall))
            || (place == Place::Air && overcast);
        let dark = around.setting == Setting::Space
            || (around.time == Some(Time::Night) && around.setting != Setting::Room);
        let visible = |colour: &&Colour| match colour {
            Colour::White => !pale || dark,
            Colour::Black => !dark,
            _ => true,
        };
        // A sprite's own colours are the ones that it was made for.
        if self.config.sprites.is_some() && random.chance(OWN_COLOUR_SHARE) {
            return None;
        }
        let good: Vec<Colour> = kind.colours.iter().filter(visible).copied().collect();
        match (good.is_empty(), kind.colours.is_empty()) {
            (false, _) => Some(*random.pick(&good)),
            (true, false) => Some(*random.pick(&kind.colours)),
            (true, true) => None,
        }
    }
}

/// Where a scene plays, and how it is drawn.
struct Surroundings {
    setting: Setting,
    time: Option<Time>,
    weather: Option<Weather>,
    style: Style,
}

/// How many kinds of things a scene shall have, and whether the one has several of it.
#[derive(Clone, Copy)]
struct Wanted {
    kinds: usize,
    counted: bool,
}

impl SceneConfig {
    /// The composition that a number in [0, 1) stands for.
    fn kinds_wanted(&self, roll: f32) -> Wanted {
        let pairs = self.pair_share;
        let trios = pairs + self.trio_share;
        let kinds = match roll {
            roll if roll < pairs => 2,
            roll if roll < trios => 3,
            _ => 1,
        };
        Wanted {
            kinds,
            counted: kinds == 1 && roll < trios + self.count_share,
        }
    }
}

/// Whether the boxes say of the two objects what the relation says.
fn related(objects: &[Option<Object>], relation: Option<Position>) -> bool {
    let (Some(position), [Some(first), Some(second)]) = (relation, objects) else {
        return relation.is_none();
    };
    let (a, b) = (first.boxes[0], second.boxes[0]);
    let overlap = a.x0.max(b.x0) < a.x1.min(b.x1);
    match position {
        Position::LeftOf => a.x1 <= b.x0,
        Position::RightOf => b.x1 <= a.x0,
        Position::Above => a.y1 <= b.y0,
        Position::Below => b.y1 <= a.y0,
        Position::InFrontOf => overlap && a.y1 > b.y1,
        Position::Behind => overlap && a.y1 < b.y1,
    }
}

/// How much of a thing that stands behind another is to be seen: at least so much that one knows what it is, and not
/// all of it.
const SEEN_BEHIND: std::ops::Range<f32> = 0.55..0.96;

/// Whether no object hides any part of another, or just as much as it should where one is to be behind another. What
/// is left to be seen of that one has its colour.
fn to_be_seen(
    objects: &[Option<Object>],
    placed: &[Placed],
    relation: Option<Position>,
    studio: &Studio,
) -> bool {
    let size = studio.size;
    let mut taken = vec![false; (size * size) as usize];
    let order: [usize; 2] = match (relation, placed) {
        (Some(Position::InFrontOf), [_, _]) => [0, 1],
        (Some(Position::Behind), [_, _]) => [1, 0],
        _ if placed.len() < 2 => return true,
        _ => {
            return placed.iter().all(|one| {
                Layer::draw(one, studio)
                    .opaque(size)
                    .all(|(x, y, _)| !std::mem::replace(&mut taken[(y * size + x) as usize], true))
            });
        }
    };
    let [front, rear] = order.map(|index| Layer::draw(&placed[index], studio));
    for (x, y, _) in front.opaque(size) {
        taken[(y * size + x) as usize] = true;
    }
    let seen = || {
        let all = rear.opaque(size);
        all.filter(|&(x, y, _)| !taken[(y * size + x) as usize])
    };
    let share = seen().count() as f32 / rear.opaque(size).count().max(1) as f32;
    let said = objects[order[1]].as_ref().and_then(|object| object.colour);
    SEEN_BEHIND.contains(&share) && (said.is_none() || named(seen().map(|(_, _, p)| p)) == said)
}
