//! Reading a folder of sprites, writing a folder of scenes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use image::{ImageFormat, Rgba, RgbaImage};
use velatura_scenes::{Colour, SceneConfig, SceneError, SceneGenerator, SpriteSet, Truth};

const LINE: &str = r#"{"file": "images/blob.webp", "core": true, "name": "blob", "plural": "blobs", "place": "thing", "hue_degrees": 0, "single_hue_fraction": 1.0}"#;

/// A disc of one colour on transparent ground.
fn disc(path: &Path, colour: [u8; 3]) {
    let picture = RgbaImage::from_fn(40, 40, |x, y| {
        let (dx, dy) = (x as i32 - 20, y as i32 - 20);
        let inside = dx * dx + dy * dy < 18 * 18;
        Rgba([
            colour[0],
            colour[1],
            colour[2],
            if inside { 255 } else { 0 },
        ])
    });
    picture
        .save_with_format(path, ImageFormat::WebP)
        .expect("a WebP file");
}

fn folder(lines: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("images")).expect("a folder");
    disc(&dir.path().join("images/blob.webp"), [220, 30, 30]);
    disc(&dir.path().join("images/rock.webp"), [140, 140, 140]);
    fs::write(dir.path().join("sprites.jsonl"), lines).expect("a file");
    dir
}

#[test]
fn a_licence_is_read_and_never_lost_in_silence() {
    let dir = folder(LINE);
    let notice = |dir: &Path| SpriteSet::load(dir).map(|set| set.notice().map(str::to_owned));
    assert_eq!(notice(dir.path()).expect("a good folder"), None);
    let file = dir.path().join("LICENSE.txt");
    fs::write(&file, "Keep this.\n").expect("a file");
    let read = notice(dir.path()).expect("a good folder");
    assert_eq!(read.as_deref(), Some("Keep this.\n"));
    fs::write(&file, [0xff, 0xfe]).expect("a file");
    let text = notice(dir.path()).expect_err("no text").to_string();
    assert!(text.contains("LICENSE.txt"), "{text}");
}

fn generator(sprites: SpriteSet) -> SceneGenerator {
    let config = SceneConfig {
        size: 64,
        sprites: Some(Arc::new(sprites)),
        ..SceneConfig::default()
    };
    SceneGenerator::new(config).expect("a good config")
}

#[test]
fn sprites_take_the_drawings_place_and_turn_their_hue() {
    let rock = LINE.replace("blob", "rock").replace("1.0}", "0.0}");
    let unnamed = r#"{"file": "images/missing.webp", "core": false}"#;
    let dir = folder(&format!("{LINE}\n{rock}\n\n{unnamed}\n"));
    let generator = generator(SpriteSet::load(dir.path()).expect("a good folder"));
    assert_eq!(generator.nouns(), ["blob", "rock"]);
    assert!(generator.vocabulary().contains(&"blobs".to_owned()));
    let mut colours = std::collections::HashSet::new();
    for index in 0..150 {
        let scene = generator.scene(1, index);
        for object in &scene.truth.objects {
            match object.noun.as_str() {
                "blob" => drop(colours.insert(object.colour)),
                _ => assert!(
                    matches!(object.colour, None | Some(Colour::Grey)),
                    "{:?}",
                    scene.truth
                ),
            }
        }
        assert_eq!(scene.render(), generator.scene(1, index).render());
    }
    assert!(colours.len() >= 6, "{colours:?}");
}

#[test]
fn a_wrong_sprite_line_is_named() {
    let error = |lines: &str| {
        SpriteSet::load(folder(lines).path())
            .expect_err("a wrong folder")
            .to_string()
    };
    let cases = [
        (
            LINE.replace(r#""place": "thing", "#, ""),
            [
                "line 2",
                "`place` must be ground, air, water or thing",
                "missing",
            ],
        ),
        (
            LINE.replace("thing", "moon"),
            ["line 2", "`place`", "it is \"moon\""],
        ),
        (
            LINE.replace("\"blob\"", "7"),
            ["line 2", "`name`", "it is 7"],
        ),
        (
            LINE.replace("1.0}", "1.5}"),
            [
                "line 2",
                "`single_hue_fraction` must be a number from 0 to 1",
                "1.5",
            ],
        ),
        (
            LINE.replace("true", "\"yes\""),
            ["line 2", "`core` must be true or false", "yes"],
        ),
        (
            LINE.replace("blob.webp", "none.webp"),
            ["line 2", "none.webp", "can't be used"],
        ),
        (LINE[..40].to_owned(), ["line 2", "JSON", "can't be read"]),
        ("[1, 2]".to_owned(), ["line 2", "a JSON object", "[1,2]"]),
    ];
    for (line, parts) in cases {
        let text = error(&format!("{LINE}\n{line}\n"));
        assert!(text.contains("sprites.jsonl"), "{text}");
        parts
            .iter()
            .for_each(|part| assert!(text.contains(part), "{part:?} is not in {text:?}"));
    }
    assert!(error("{}\n{\"core\": false}\n").contains("no sprite with `core: true` in 2 lines"));
    let dir = folder(LINE);
    fs::write(dir.path().join("images/blob.webp"), b"RIFF....WEBPVP8 ").expect("a file");
    assert!(matches!(
        SpriteSet::load(dir.path()),
        Err(SceneError::SpritePicture { line: 1, .. })
    ));
    let nowhere = SpriteSet::load(&dir.path().join("nowhere")).expect_err("no folder");
    assert!(matches!(nowhere, SceneError::NoSpriteFolder { .. }));
    let text = nowhere.to_string();
    assert!(
        text.contains("nowhere/sprites.jsonl") && text.contains("configs/make_sprites.py"),
        "{text}"
    );
}

#[test]
fn a_folder_has_every_picture_and_its_truth() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("scenes");
    let generator = SceneGenerator::new(SceneConfig {
        size: 48,
        ..SceneConfig::default()
    })
    .expect("a config");
    let mut told = Vec::new();
    let mut progress = |done, count| {
        told.push((done, count));
        true
    };
    generator
        .render_folder(5, 3, &out, Some(&mut progress))
        .expect("a folder of scenes");
    assert_eq!(told, [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
    let metadata = fs::read_to_string(out.join("metadata.jsonl")).expect("metadata");
    assert_eq!(metadata.lines().count(), 5);
    for (index, line) in metadata.lines().enumerate() {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let scene = generator.scene(3, index as u64);
        let picture =
            image::open(out.join(value["file_name"].as_str().expect("a name"))).expect("a picture");
        assert_eq!(picture.to_rgb8(), scene.render());
        assert_eq!(value["text"], scene.captions[0].as_str());
        let truth: Truth = serde_json::from_value(value["truth"].clone()).expect("a truth");
        assert_eq!(truth, scene.truth);
    }
    assert_eq!(
        fs::read_dir(dir.path()).expect("a folder").count(),
        1,
        "nothing is left beside it"
    );
    let again = generator.render_folder(1, 3, &out, None);
    assert!(matches!(again, Err(SceneError::OutputExists { .. })));
}

#[test]
fn a_stopped_folder_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let generator = SceneGenerator::new(SceneConfig {
        size: 32,
        ..SceneConfig::default()
    })
    .expect("a config");
    let mut stop = |done, _| done < 2;
    let stopped = generator.render_folder(5, 3, &dir.path().join("scenes"), Some(&mut stop));
    assert!(matches!(
        stopped,
        Err(SceneError::Cancelled { done: 2, count: 5 })
    ));
    assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 0);
    let nowhere = generator.render_folder(1, 3, Path::new("/proc/none/scenes"), None);
    assert!(matches!(nowhere, Err(SceneError::Write { .. })));
}
