//! What a prompt asks of a picture, and whether the picture shows it.

use serde::{Deserialize, Serialize};
use velatura_scenes::{Colour, Position, Setting, Time, Truth, Weather};

use super::sight::{Sight, Thing};

/// One thing that a prompt asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub noun: String,
    pub colour: Option<Colour>,
    pub count: u32,
}

/// What a prompt asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub prompt: String,
    /// One, two with a relation, or three.
    pub things: Vec<Asked>,
    /// How the first stands to the second.
    pub relation: Option<Position>,
    pub setting: Option<Setting>,
    pub time: Option<Time>,
    pub weather: Option<Weather>,
}

impl Question {
    /// What the fullest caption of a scene asks for. It may be silent about clear weather, which is not asked then.
    pub fn of(truth: &Truth, prompt: &str) -> Question {
        let asked = truth.objects.iter().map(|object| Asked {
            noun: object.noun.clone(),
            colour: object.colour,
            count: object.count,
        });
        let silent = truth.weather == Some(Weather::Clear) && !prompt.contains("clear");
        Question {
            prompt: prompt.to_owned(),
            things: asked.collect(),
            relation: truth.relation,
            setting: Some(truth.setting),
            time: truth.time,
            weather: truth.weather.filter(|_| !silent),
        }
    }
}

/// What is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// The one thing asked for is there, or the first of several alike.
    Subject,
    /// It has the colour asked for, and so have all its like.
    Colour,
    /// Two to four things alike: there are as many.
    Count,
    /// Both of two things are there.
    TwoSubjects,
    /// All of three things are there.
    ThreeSubjects,
    /// They stand to each other as asked.
    Position,
    /// Each of two things has its own colour.
    ColourAttribution,
    /// The landscape.
    Setting,
    /// The hour.
    Time,
    /// The weather.
    Weather,
    /// Everything that the prompt asks.
    All,
}

impl Aspect {
    /// All, in the order of reports.
    pub const ALL: [Aspect; 11] = [
        Aspect::Subject,
        Aspect::Colour,
        Aspect::Count,
        Aspect::TwoSubjects,
        Aspect::ThreeSubjects,
        Aspect::Position,
        Aspect::ColourAttribution,
        Aspect::Setting,
        Aspect::Time,
        Aspect::Weather,
        Aspect::All,
    ];

    /// As reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Aspect::Subject => "subject",
            Aspect::Colour => "subject and colour",
            Aspect::Count => "count",
            Aspect::TwoSubjects => "two subjects",
            Aspect::ThreeSubjects => "three subjects",
            Aspect::Position => "position",
            Aspect::ColourAttribution => "colour attribution",
            Aspect::Setting => "setting",
            Aspect::Time => "time",
            Aspect::Weather => "weather",
            Aspect::All => "all together",
        }
    }
}

/// Centres have to be so far apart, in sides of the picture, for one to be beside or above the other. The nearest
/// that scenes have is 0.23; a tenth is what GenEval (Ghosh et al. 2023, arXiv:2310.11513) asks for.
const APART: f32 = 0.1;

/// Everything that the question asks, and whether it is to be seen. The last one is [`Aspect::All`].
pub fn judge(sight: &Sight, question: &Question) -> Vec<(Aspect, bool)> {
    let mut verdicts = Vec::new();
    match question.things.as_slice() {
        [asked] => {
            let seen = named(sight, asked);
            verdicts.push((Aspect::Subject, !seen.is_empty()));
            if let Some(colour) = asked.colour {
                let right = seen.iter().all(|thing| thing.colour == Some(colour));
                verdicts.push((Aspect::Colour, !seen.is_empty() && right));
            }
            if asked.count > 1 {
                verdicts.push((Aspect::Count, seen.len() == asked.count as usize));
            }
        }
        [first, second] => {
            let (a, b) = (named(sight, first), named(sight, second));
            verdicts.push((Aspect::TwoSubjects, !a.is_empty() && !b.is_empty()));
            if let Some(relation) = question.relation {
                let stands = |a: &&Thing| b.iter().any(|b| related(a, relation, b));
                verdicts.push((Aspect::Position, a.iter().any(stands)));
            }
            if let (Some(one), Some(other)) = (first.colour, second.colour) {
                let all = |things: &[&Thing], colour| {
                    !things.is_empty() && things.iter().all(|thing| thing.colour == Some(colour))
                };
                verdicts.push((Aspect::ColourAttribution, all(&a, one) && all(&b, other)));
            }
        }
        several @ [_, _, _, ..] => {
            let there = |asked: &Asked| !named(sight, asked).is_empty();
            verdicts.push((Aspect::ThreeSubjects, several.iter().all(there)));
        }
        [] => {}
    }
    if let Some(setting) = question.setting {
        verdicts.push((Aspect::Setting, sight.setting == Some(setting)));
    }
    if let Some(time) = question.time {
        verdicts.push((Aspect::Time, sight.time == Some(time)));
    }
    if let Some(weather) = question.weather {
        verdicts.push((Aspect::Weather, sight.weather == Some(weather)));
    }
    let all = verdicts.iter().all(|&(_, yes)| yes);
    verdicts.push((Aspect::All, all));
    verdicts
}

fn named<'a>(sight: &'a Sight, asked: &Asked) -> Vec<&'a Thing> {
    let is = |thing: &&Thing| thing.noun.as_ref() == Some(&asked.noun);
    sight.things.iter().filter(is).collect()
}

fn related(a: &Thing, relation: Position, b: &Thing) -> bool {
    let [right, down] = [0, 1].map(|axis| b.centre[axis] - a.centre[axis]);
    match relation {
        Position::LeftOf => right >= APART,
        Position::RightOf => -right >= APART,
        Position::Above => down >= APART,
        Position::Below => -down >= APART,
        Position::InFrontOf => before(a, b),
        Position::Behind => before(b, a),
    }
}

/// Whether `a` stands nearer than `b`: lower, and over a part of it.
fn before(a: &Thing, b: &Thing) -> bool {
    let foot = |thing: &Thing| thing.centre[1] + thing.size[1] / 2.0;
    let between = (a.centre[0] - b.centre[0]).abs();
    foot(a) > foot(b) && between < (a.size[0] + b.size[0]) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use velatura_scenes::{SceneConfig, SceneGenerator};

    fn scenes(count: u64) -> Vec<(Sight, Question)> {
        let generator = SceneGenerator::new(SceneConfig {
            size: 64,
            pair_share: 0.4,
            count_share: 0.3,
            ..SceneConfig::default()
        })
        .unwrap();
        (0..count)
            .map(|index| {
                let scene = generator.scene(1, index);
                let question = Question::of(&scene.truth, &scene.captions[0]);
                (Sight::of(&scene.truth), question)
            })
            .collect()
    }

    #[test]
    fn the_truth_answers_its_own_question_and_seldom_another() {
        let scenes = scenes(200);
        let mut asked = std::collections::BTreeSet::new();
        let mut by_chance = 0;
        for (index, (sight, question)) in scenes.iter().enumerate() {
            for (aspect, yes) in judge(sight, question) {
                assert!(yes, "{aspect:?} of {question:?} in {sight:?}");
                asked.insert(aspect);
            }
            let (other, _) = &scenes[(index + 1) % scenes.len()];
            by_chance += usize::from(judge(other, question).last() == Some(&(Aspect::All, true)));
        }
        assert_eq!(asked.len(), Aspect::ALL.len());
        assert!(by_chance <= 2, "{by_chance}");
    }

    #[test]
    fn each_thing_wrong_costs_its_own_aspect() {
        let thing = |noun: &str, colour, x| Thing {
            noun: Some(noun.into()),
            colour: Some(colour),
            centre: [x, 0.5],
            size: [0.3; 2],
            certainty: 1.0,
        };
        let asked = |noun: &str, colour, count| Asked {
            noun: noun.into(),
            colour: Some(colour),
            count,
        };
        let question = |things, relation| Question {
            prompt: String::new(),
            things,
            relation,
            setting: Some(Setting::Beach),
            time: Some(Time::Noon),
            weather: None,
        };
        let sight = |things| Sight {
            setting: Some(Setting::Beach),
            time: None,
            weather: Some(Weather::Fog),
            things,
        };
        let no = |sight: &Sight, question: &Question| -> Vec<Aspect> {
            let verdicts = judge(sight, question).into_iter();
            verdicts.filter(|v| !v.1).map(|v| v.0).collect()
        };
        use Aspect::{
            All, Colour as Hue, ColourAttribution, Count, Position as Where, Subject, Time as When,
        };
        let pair = question(
            vec![asked("car", Colour::Red, 1), asked("cat", Colour::Black, 1)],
            Some(Position::LeftOf),
        );
        let swapped = sight(vec![
            thing("car", Colour::Black, 0.7),
            thing("cat", Colour::Red, 0.3),
        ]);
        assert_eq!(no(&swapped, &pair), [Where, ColourAttribution, When, All]);
        let two = question(vec![asked("car", Colour::Red, 2)], None);
        let three = [0.1, 0.5, 0.9].map(|x| thing("car", Colour::Red, x));
        assert_eq!(no(&sight(three.to_vec()), &two), [Count, When, All]);
        let other = sight(vec![thing("cat", Colour::Red, 0.5)]);
        assert_eq!(no(&other, &two), [Subject, Hue, Count, When, All]);
    }
}
