//! Runs that go on from a base with other words: what is known of those that both have stays, everything else is new.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{config, prepare, run, weights};
use velatura::checkpoint::Component;
use velatura::tokenizer::Tokenizer;
use velatura_train::scorer::Scorer;

/// Too small a rate to move a weight further than the tolerances below.
const STILL: &str = "learning_rate = 1e-9\nweight_decay = 0.0";

/// The rows of a table by the names of what they stand for.
fn rows<'a>(
    tensor: &str,
    component: &Path,
    names: impl IntoIterator<Item = (&'a str, usize)>,
) -> BTreeMap<String, Vec<f32>> {
    let component = Component::open(component, None).unwrap();
    let view = component.tensor(tensor).unwrap();
    let values = view.to_f32().unwrap();
    let width = values.len() / view.shape[0];
    let row =
        |(name, row): (&str, usize)| (name.to_owned(), values[row * width..][..width].to_vec());
    names.into_iter().map(row).collect()
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6)
}

#[test]
fn a_base_learns_another_vocabulary_and_keeps_what_it_knew() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = prepare(dir.path());
    let with = |text: &str, nouns: &str| {
        let scenes = format!("[data.scenes]\nnouns = {nouns}\n[model]");
        text.replace("[model]", &scenes)
    };
    let first = with(&text, r#"["car", "cat"]"#);
    run(&config(dir.path(), "base", &first), false, None).unwrap();
    let base = dir.path().join("base/model");
    let (general, _) = text.split_once("[unet]").unwrap();
    let wider = with(general, r#"["cat", "balloon"]"#).replace(
        "part = \"unet\"",
        &format!(
            "part = \"unet\"\nbase = \"{}\"\ntokenizer = \"captions\"",
            base.display()
        ),
    );
    let wider = format!("{wider}[optimizer]\n{STILL}\n");
    let file = config(dir.path(), "wider", &wider);
    run(&file, false, Some(2)).unwrap();
    run(&file, true, None).unwrap();
    let model = dir.path().join("wider/model");

    let table = |model: &Path| {
        let tokenizer = Tokenizer::from_folder(&model.join("tokenizer")).unwrap();
        let words = tokenizer
            .tokens()
            .filter(|(token, _)| token.ends_with("</w>"));
        rows(
            "text_model.embeddings.token_embedding.weight",
            &model.join("text_encoder"),
            words.map(|(token, id)| (token, id as usize)),
        )
    };
    let (before, after) = (table(&base), table(&model));
    assert!(before.contains_key("car</w>") && !after.contains_key("car</w>"));
    assert!(!before.contains_key("balloon</w>") && after.contains_key("balloon</w>"));
    for word in ["cat</w>", "a</w>", "red</w>", "night</w>"] {
        assert!(near(&before[word], &after[word]), "{word}");
    }
    let (before, after) = (
        weights(&base.join("text_encoder")),
        weights(&model.join("text_encoder")),
    );
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>()
    );
    for (name, bits) in &before {
        if !name.ends_with("token_embedding.weight") {
            let floats = |bits: &[u32]| bits.iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>();
            assert!(near(&floats(bits), &floats(&after[name])), "{name}");
        }
    }

    // A text encoder that learns nothing cannot learn words.
    let frozen = wider.replace(
        "part = \"unet\"",
        "part = \"unet\"\ntrain_text_encoder = false",
    );
    let error = run(&config(dir.path(), "frozen", &frozen), false, None).unwrap_err();
    assert!(error.to_string().contains("[model] tokenizer"), "{error}");
}

const SCORER: &str = r#"
[run]
dir = "DIR"
steps = 4
batch_size = 2
save_every = 2
sample_every = 0
[data]
kind = "scenes"
size = 64
[data.scenes]
nouns = NOUNS
[model]
part = "scorer"
[scorer]
block_out_channels = [8, 8, 16, 16]
"#;

#[test]
fn a_scorer_learns_other_things_and_keeps_what_it_knew() {
    let dir = tempfile::tempdir().unwrap();
    let base = SCORER.replace("NOUNS", r#"["car", "cat", "balloon"]"#);
    run(&config(dir.path(), "base", &base), false, None).unwrap();
    let base = dir.path().join("base/model");
    let other = SCORER
        .replace("NOUNS", r#"["balloon", "snowman"]"#)
        .replace(
            "part = \"scorer\"",
            &format!("part = \"scorer\"\nbase = \"{}\"", base.display()),
        );
    let file = config(
        dir.path(),
        "other",
        &format!("{other}[optimizer]\n{STILL}\n"),
    );
    run(&file, false, Some(2)).unwrap();
    run(&file, true, None).unwrap();
    let model = dir.path().join("other/model");

    // A cell's channels: five for the place, the nouns, eleven colours and "no single one".
    let cells = |folder: &Path| {
        let nouns = Scorer::open(folder).unwrap().config().nouns.clone();
        let numbered = |prefix: &'static str, from: usize, count: usize| {
            (0..count).map(move |i| (format!("{prefix} {i}"), from + i))
        };
        let mut names: Vec<(String, usize)> = numbered("place", 0, 5).collect();
        names.extend(
            nouns
                .iter()
                .enumerate()
                .map(|(i, noun)| (noun.clone(), 5 + i)),
        );
        names.extend(numbered("colour", 5 + nouns.len(), 12));
        ["conv_cells.weight", "conv_cells.bias"].map(|tensor| {
            rows(
                tensor,
                folder,
                names.iter().map(|(name, row)| (&name[..], *row)),
            )
        })
    };
    for (before, after) in cells(&base).iter().zip(&cells(&model)) {
        assert_eq!(before.len(), 20);
        assert_eq!(after.len(), 19);
        for (name, row) in after.iter().filter(|(name, _)| *name != "snowman") {
            assert!(near(&before[name], row), "{name}");
        }
    }
    let (before, after) = (weights(&base), weights(&model));
    for name in ["conv_in.weight", "joined.conv1.weight", "conv_scene.weight"] {
        let sums = [&before, &after].map(|all| {
            all[name]
                .iter()
                .map(|&bits| f64::from(f32::from_bits(bits)))
                .sum::<f64>()
        });
        assert!((sums[0] - sums[1]).abs() < 1e-5, "{name}: {sums:?}");
    }
}
