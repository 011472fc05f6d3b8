//! What can truly be said of a scene.

use std::collections::BTreeSet;

use crate::catalogue::Kind;
use crate::colour::COLOURS;
use crate::random::Random;
use crate::truth::{Object, Place, Position, Setting, Size, Style, Time, Truth, Weather};
use crate::words;

/// Light and shade go without saying, but for this share of the captions that could say it.
const SAYS_SOFT: f32 = 0.2;

/// Four to six captions; the first says everything.
pub(crate) fn captions(truth: &Truth, kinds: &[&Kind], random: &mut Random) -> Vec<String> {
    let place = truth
        .objects
        .first()
        .map_or(Place::Ground, |object| object.place);
    let subject = subject(truth, kinds, false, random);
    let where_ = words::where_(truth.setting, place);
    let when = truth.time.map_or(&[""][..], words::when);
    let weather = truth.weather.map_or(&[""][..], words::weather);
    let clear = truth.weather == Some(Weather::Clear);

    let said = if clear && random.chance(0.5) {
        ""
    } else {
        weather[0]
    };
    let full = styled(
        truth.style,
        sentence(&[&subject, where_[0], when[0], said]),
        random,
    );
    let landscape = words::landscape(truth.setting);
    let reordered = match random.below(3) {
        0 => {
            let landscape = sentence(&[landscape, when[0], "with", &subject]);
            styled(truth.style, landscape, random)
        }
        1 if !clear && !weather[0].is_empty() => {
            format!("{}, {subject} {} {}", weather[0], where_[0], when[0])
        }
        _ if truth.time.is_some() => format!("{}, {subject} {}", when[0], where_[0]),
        _ => format!("{}, {subject}", where_[0]),
    };
    let synonyms = {
        let other = self::subject(truth, kinds, true, random);
        let (where_, when) = (*random.pick(where_), *random.pick(when));
        styled(truth.style, sentence(&[&other, where_, when]), random)
    };
    let partial = match random.below(4) {
        1 if truth.time.is_some() => sentence(&[&subject, when[0]]),
        2 if truth.weather.is_some() => sentence(&[&subject, *random.pick(weather)]),
        3 => sentence(&[&plain_subject(truth), where_[0], when[0]]),
        _ => sentence(&[&subject, where_[0]]),
    };
    let tags = tags(truth, random);
    let mut captions = Vec::new();
    for caption in [full, subject, tags, reordered, synonyms, partial] {
        if !captions.contains(&caption) {
            captions.push(caption);
        }
    }
    captions
}

/// The phrases that aren't empty, as one.
fn sentence(phrases: &[&str]) -> String {
    let phrases = phrases.iter().copied().filter(|phrase| !phrase.is_empty());
    phrases.collect::<Vec<_>>().join(" ")
}

/// With the name of the style before it where the style is worth a word.
fn styled(style: Style, caption: String, random: &mut Random) -> String {
    if style == Style::Flat || random.chance(SAYS_SOFT) {
        format!("{} {caption}", random.pick(words::style(style)))
    } else {
        caption
    }
}

/// "a red car", "three balloons", "a car to the left of a blue house", "a cat, a dog and a tree".
fn subject(truth: &Truth, kinds: &[&Kind], synonyms: bool, random: &mut Random) -> String {
    let names = truth.objects.iter().zip(kinds).map(|(object, kind)| {
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
    let mut names: Vec<String> = names.collect();
    let (Some(position), [first, second]) = (truth.relation, names.as_slice()) else {
        if synonyms && names.len() > 1 {
            let by = random.below(names.len());
            names.rotate_left(by);
        }
        return list(&names);
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

/// "a", "a and b", "a, b and c".
fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

/// The objects without colour and size.
fn plain_subject(truth: &Truth) -> String {
    let names = truth
        .objects
        .iter()
        .map(|object| phrase(object, None, &object.noun, &object.plural, false));
    list(&names.collect::<Vec<_>>())
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
fn tags(truth: &Truth, random: &mut Random) -> String {
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
    tags.extend(truth.time.map(|time| words::when_tag(time).to_owned()));
    tags.extend(
        truth
            .weather
            .map(|weather| words::weather_tag(weather).to_owned()),
    );
    if truth.style == Style::Flat || random.chance(SAYS_SOFT) {
        tags.push(words::style_tag(truth.style).to_owned());
    }
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
        Position::InFrontOf => Position::Behind,
        Position::Behind => Position::InFrontOf,
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
    (2..=4).for_each(|count| add(words::number(count)));
    for &style in Style::ALL {
        add(words::style_tag(style));
        words::style(style).iter().for_each(|phrase| add(phrase));
    }
    all.into_iter().collect()
}
