//! What can truly be said of a scene.

use std::collections::BTreeSet;

use crate::catalogue::Kind;
use crate::colour::COLOURS;
use crate::random::Random;
use crate::truth::{Object, Place, Position, Setting, Size, Time, Truth, Weather};
use crate::words;

/// Four to six captions; the first says everything.
pub(crate) fn captions(truth: &Truth, kinds: &[&Kind], random: &mut Random) -> Vec<String> {
    let place = truth
        .objects
        .first()
        .map_or(Place::Ground, |object| object.place);
    let subject = subject(truth, kinds, false, random);
    let where_ = words::where_(truth.setting, place)[0];
    let when = words::when(truth.time)[0];
    let weather = words::weather(truth.weather)[0];
    let clear = truth.weather == Weather::Clear;

    let full = if clear && random.chance(0.5) {
        format!("{subject} {where_} {when}")
    } else {
        format!("{subject} {where_} {when} {weather}")
    };
    let landscape = words::landscape(truth.setting);
    let reordered = match random.below(3) {
        0 => format!("{landscape} {when} with {subject}"),
        1 if !clear => format!("{weather}, {subject} {where_} {when}"),
        _ => format!("{when}, {subject} {where_}"),
    };
    let other = self::subject(truth, kinds, true, random);
    let synonyms = format!(
        "{other} {} {}",
        random.pick(words::where_(truth.setting, place)),
        random.pick(words::when(truth.time)),
    );
    let partial = match random.below(4) {
        0 => format!("{subject} {where_}"),
        1 => format!("{subject} {when}"),
        2 => format!("{subject} {}", random.pick(words::weather(truth.weather))),
        _ => format!("{} {where_} {when}", plain_subject(truth)),
    };
    let mut captions = Vec::new();
    for caption in [full, subject, tags(truth), reordered, synonyms, partial] {
        if !captions.contains(&caption) {
            captions.push(caption);
        }
    }
    captions
}

/// "a red car", "three balloons", "a car to the left of a blue house".
fn subject(truth: &Truth, kinds: &[&Kind], synonyms: bool, random: &mut Random) -> String {
    let mut names = truth.objects.iter().zip(kinds).map(|(object, kind)| {
        let (noun, plural) = match kind.synonyms.first() {
            Some((noun, plural)) if synonyms && random.chance(0.6) => (noun, plural),
            _ => (&object.noun, &object.plural),
        };
        let adjective = match object.size {
            Size::Normal => None,
            size => Some(*random.pick(words::size(size))),
        };
        phrase(object, adjective, noun, plural, true)
    });
    let first = names.next().unwrap_or_default();
    let second = names.next();
    drop(names);
    let (Some(second), Some(position)) = (second, truth.relation) else {
        return first;
    };
    let level = truth.objects[0].place == truth.objects[1].place;
    let sideways = matches!(position, Position::LeftOf | Position::RightOf);
    if synonyms {
        match random.below(4) {
            0 => return format!("{first} and {second}"),
            1 if sideways && level => {
                return format!("{first} {} {second}", random.pick(&words::NEXT_TO));
            }
            _ => return format!("{second} {} {first}", words::position(opposite(position))),
        }
    }
    format!("{first} {} {second}", words::position(position))
}

/// The objects without colour and size.
fn plain_subject(truth: &Truth) -> String {
    let names = truth
        .objects
        .iter()
        .map(|object| phrase(object, None, &object.noun, &object.plural, false));
    names.collect::<Vec<_>>().join(" and ")
}

fn phrase(
    object: &Object,
    adjective: Option<&str>,
    noun: &str,
    plural: &str,
    coloured: bool,
) -> String {
    let colour = object
        .colour
        .filter(|_| coloured)
        .map(|colour| colour.name());
    let noun = if object.count == 1 { noun } else { plural };
    let described: Vec<&str> = adjective.into_iter().chain(colour).chain([noun]).collect();
    let described = described.join(" ");
    match object.count {
        1 => format!("{} {described}", article(&described)),
        count => format!("{} {described}", words::number(count)),
    }
}

/// "red car, beach, sunset, rain"
fn tags(truth: &Truth) -> String {
    let mut tags: Vec<String> = truth
        .objects
        .iter()
        .map(|object| {
            let phrase = phrase(object, None, &object.noun, &object.plural, true);
            match object.count {
                1 => phrase
                    .split_once(' ')
                    .map_or(phrase.clone(), |(_, rest)| rest.to_owned()),
                _ => phrase,
            }
        })
        .collect();
    tags.push(words::setting_tag(truth.setting).to_owned());
    tags.push(words::when_tag(truth.time).to_owned());
    tags.push(words::weather_tag(truth.weather).to_owned());
    tags.join(", ")
}

fn article(next: &str) -> &'static str {
    // By sound, not by letter: "a unicorn".
    let vowel = next.starts_with(['a', 'e', 'i', 'o', 'u'])
        && !next.starts_with("uni")
        && !next.starts_with("eu");
    if vowel { "an" } else { "a" }
}

fn opposite(position: Position) -> Position {
    match position {
        Position::LeftOf => Position::RightOf,
        Position::RightOf => Position::LeftOf,
        Position::Above => Position::Below,
        Position::Below => Position::Above,
    }
}

/// Every word of every phrase, sorted.
pub(crate) fn vocabulary(kinds: &[Kind]) -> Vec<String> {
    let mut all: BTreeSet<String> = BTreeSet::new();
    let mut add = |phrase: &str| {
        let words = phrase.split([' ', ',']).filter(|word| !word.is_empty());
        all.extend(words.map(str::to_owned));
    };
    ["a", "an", "and", "with"].into_iter().for_each(&mut add);
    COLOURS.into_iter().for_each(|colour| add(colour.name()));
    for kind in kinds {
        add(&kind.noun);
        add(&kind.plural);
        for (noun, plural) in &kind.synonyms {
            add(noun);
            add(plural);
        }
    }
    for &setting in Setting::ALL {
        add(words::landscape(setting));
        add(words::setting_tag(setting));
        for &place in Place::ALL {
            words::where_(setting, place)
                .iter()
                .for_each(|phrase| add(phrase));
        }
    }
    for &time in Time::ALL {
        add(words::when_tag(time));
        words::when(time).iter().for_each(|phrase| add(phrase));
    }
    for &weather in Weather::ALL {
        add(words::weather_tag(weather));
        words::weather(weather)
            .iter()
            .for_each(|phrase| add(phrase));
    }
    for &size in Size::ALL {
        words::size(size).iter().for_each(|phrase| add(phrase));
    }
    Position::ALL
        .iter()
        .for_each(|&position| add(words::position(position)));
    words::NEXT_TO.iter().for_each(|phrase| add(phrase));
    (2..=3).for_each(|count| add(words::number(count)));
    all.into_iter().collect()
}
