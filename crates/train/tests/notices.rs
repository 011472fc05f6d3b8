//! The licence of pictures goes with what is made from them.

mod common;

use std::fs;

use common::{config, prepare, run};
use velatura::pipeline::{LoadOptions, Pipeline, Request};

const NOTICE: &str = "Copyright (c) Somebody.\n\nKeep this.\n";

const SPRITE: &str = r#"{"file": "blob.png", "core": true, "name": "blob", "plural": "blobs", "place": "thing", "hue_degrees": 0, "single_hue_fraction": 0.0}"#;

#[test]
fn that_of_sprites_is_in_the_model_in_its_pictures_and_in_models_made_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = prepare(dir.path());
    let sprites = dir.path().join("sprites");
    fs::create_dir(&sprites).unwrap();
    fs::write(sprites.join("sprites.jsonl"), SPRITE).unwrap();
    fs::write(sprites.join("LICENSE.txt"), NOTICE).unwrap();
    let disc = image::RgbaImage::from_fn(40, 40, |x, y| {
        let inside = (x as i32 - 20).pow(2) + (y as i32 - 20).pow(2) < 300;
        image::Rgba([120, 120, 120, if inside { 255 } else { 0 }])
    });
    disc.save(sprites.join("blob.png")).unwrap();

    let text = text.replace("steps = 8", "steps = 1");
    let with_sprites = text.replace(
        "count = 9",
        &format!("count = 9\nsprites = \"{}\"", sprites.display()),
    );
    run(&config(dir.path(), "first", &with_sprites), false, None).unwrap();
    let first = dir.path().join("first/model");
    let (general, _) = text.split_once("[unet]").unwrap();
    let second = general.replace(
        "part = \"unet\"",
        &format!("part = \"unet\"\nbase = \"{}\"", first.display()),
    );
    run(&config(dir.path(), "second", &second), false, None).unwrap();
    for model in [first, dir.path().join("second/model")] {
        let pipeline = Pipeline::load(&model, LoadOptions::default()).unwrap();
        let plan = pipeline.model().plan(&Request::default()).unwrap();
        assert_eq!(pipeline.recipe(&plan).notice.as_deref(), Some(NOTICE));
    }

    // Without sprites there is nothing to carry.
    run(&config(dir.path(), "drawn", &text), false, None).unwrap();
    let advice = fs::read_to_string(dir.path().join("drawn/model/velatura.json")).unwrap();
    assert!(!advice.contains("notice"), "{advice}");
}
