//! What a config narrows, what it holds out, and what it may not say.

use std::collections::HashSet;

use velatura_scenes::{
    Colour, HeldOut, Position, SceneConfig, SceneGenerator, Setting, Time, Weather,
};

#[test]
fn a_config_narrows_what_is_drawn() {
    let config = SceneConfig {
        size: 48,
        nouns: vec!["boat".to_owned(), "car".to_owned()],
        colours: vec![Colour::Red, Colour::Blue],
        settings: vec![Setting::Lake, Setting::Meadow],
        pair_share: 0.0,
        trio_share: 0.0,
        count_share: 0.0,
        ..SceneConfig::default()
    };
    let generator = SceneGenerator::new(config).expect("a good config");
    assert_eq!(generator.nouns(), ["car", "boat"]);
    let mut seen = HashSet::new();
    for index in 0..200 {
        let truth = generator.scene(1, index).truth;
        let [object] = truth.objects.as_slice() else {
            panic!("{truth:?}")
        };
        assert!(
            object
                .colour
                .is_none_or(|c| matches!(c, Colour::Red | Colour::Blue))
        );
        assert!(object.noun != "boat" || truth.setting == Setting::Lake);
        seen.insert((object.noun.clone(), object.colour, truth.setting));
    }
    assert!(seen.len() >= 6, "{seen:?}");
}

#[test]
fn an_impossible_config_is_refused_by_name() {
    let wrong = |config: SceneConfig| {
        SceneGenerator::new(config)
            .expect_err("a wrong config")
            .to_string()
    };
    let base = SceneConfig::default;
    assert!(
        wrong(SceneConfig { size: 0, ..base() }).contains("`size` must be 32 to 2048, but it is 0")
    );
    assert!(
        wrong(SceneConfig {
            size: 100_000,
            ..base()
        })
        .contains("100000")
    );
    assert!(
        wrong(SceneConfig {
            settings: vec![],
            ..base()
        })
        .contains("`settings`")
    );
    assert!(
        wrong(SceneConfig {
            pair_share: 0.95,
            ..base()
        })
        .contains("`pair_share`")
    );
    assert!(
        wrong(SceneConfig {
            clear_share: f32::NAN,
            ..base()
        })
        .contains("`clear_share`")
    );
    let unknown = wrong(SceneConfig {
        nouns: vec!["cathedral".to_owned()],
        ..base()
    });
    assert!(
        unknown.contains("cathedral") && unknown.contains("mushroom"),
        "{unknown}"
    );
    let nowhere = SceneConfig {
        nouns: vec!["boat".to_owned()],
        settings: vec![Setting::Desert],
        ..base()
    };
    assert!(wrong(nowhere).contains("`settings`"));
}

#[test]
fn what_is_held_out_occurs_where_it_is_wanted_and_nowhere_else() {
    let with = |held_out| {
        SceneGenerator::new(SceneConfig {
            size: 48,
            pair_share: 0.4,
            held_out,
            ..SceneConfig::default()
        })
        .expect("a good config")
    };
    let (excluding, only, all) = (
        with(HeldOut::Exclude),
        with(HeldOut::Only),
        with(HeldOut::Include),
    );
    let mut seen: HashSet<String> = HashSet::new();
    for seed in 0..40 {
        for index in 0..50 {
            let truth = excluding.scene(seed, index).truth;
            assert!(!all.is_held_out(&truth), "{truth:?}");
            for object in &truth.objects {
                seen.insert(object.noun.clone());
                seen.extend(object.colour.map(|colour| colour.name().to_owned()));
            }
            seen.insert(truth.setting.name().to_owned());
            seen.extend(truth.time.map(|time| time.name().to_owned()));
            seen.extend(truth.weather.map(|weather| weather.name().to_owned()));
            seen.extend(truth.relation.map(|relation| relation.name().to_owned()));
        }
    }
    let names = [
        all.nouns(),
        Setting::ALL.iter().map(|x| x.name()).collect(),
        Time::ALL.iter().map(|x| x.name()).collect(),
        Weather::ALL.iter().map(|x| x.name()).collect(),
        Position::ALL.iter().map(|x| x.name()).collect(),
        velatura_scenes::COLOURS.map(Colour::name).to_vec(),
    ];
    for name in names.concat() {
        assert!(seen.contains(name), "{name} never occurs in training");
    }
    let mut pairs = 0;
    for index in 0..300 {
        let truth = only.scene(1, index).truth;
        assert!(all.is_held_out(&truth), "{truth:?}");
        assert_eq!(truth, only.scene(1, index).truth);
        pairs += usize::from(truth.objects.len() == 2);
    }
    // A scene is taken more readily where more of it can be held out.
    assert!(pairs >= 80, "only {pairs} of 300 scenes are pairs");
    let share = (0..500).filter(|&i| all.is_held_out(&all.scene(1, i).truth));
    let share = share.count();
    assert!((80..200).contains(&share), "{share} of 500");
}

#[test]
fn a_config_of_which_all_or_nothing_is_held_out_is_refused() {
    let config = |held_out| SceneConfig {
        nouns: vec!["snowman".to_owned()],
        settings: vec![Setting::Snow],
        times: vec![Time::Noon],
        weathers: vec![Weather::Clear],
        pair_share: 0.0,
        held_out,
        ..SceneConfig::default()
    };
    let truth = SceneGenerator::new(config(HeldOut::Include))
        .expect("a good config")
        .scene(0, 0)
        .truth;
    let held = SceneGenerator::new(config(HeldOut::Include))
        .expect("a good config")
        .is_held_out(&truth);
    let (wrong, right) = if held {
        (HeldOut::Exclude, HeldOut::Only)
    } else {
        (HeldOut::Only, HeldOut::Exclude)
    };
    let message = SceneGenerator::new(config(wrong))
        .expect_err("nothing to draw")
        .to_string();
    assert!(message.contains("`held_out`"), "{message}");
    assert!(SceneGenerator::new(config(right)).is_ok());
}
