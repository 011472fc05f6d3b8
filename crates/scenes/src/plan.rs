//! From a seed to a scene: what, where, in which light.

use crate::arrange::{Group, arrange_count, arrange_pair, arrange_single, layout};
use crate::backdrop::Light;
use crate::caption;
use crate::catalogue::{Kind, weather_fits};
use crate::colour::Colour;
use crate::config::SceneConfig;
use crate::error::SceneError;
use crate::figure::{Layer, Placed};
use crate::held_out::{self, HeldOut};
use crate::random::Random;
use crate::scene::Scene;
use crate::sprites::SpriteSet;
use crate::truth::{Object, Place, Position, Setting, Size, Time, Truth, Weather};

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
        let size = self.config.size;
        let kind = random.pick(&self.kinds);
        let settings: Vec<Setting> = self
            .config
            .settings
            .iter()
            .copied()
            .filter(|&setting| self.config.allows(kind, setting))
            .collect();
        let setting = *random.pick(&settings);
        let time = *random.pick(&self.config.times);
        let weather = self.weather(setting, &mut random);
        let light = Light::new(time, weather);
        let roll = random.unit();
        let simple = attempt % ATTEMPTS > ATTEMPTS / 2;
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
