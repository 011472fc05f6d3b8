//! What a run shows of its first batches, and by it: that mirrored pictures never make a caption untrue.

mod common;

use std::fs;
use std::path::Path;

use common::data::png;
use common::{VAE, config, prepare, run};
use image::{Rgb, RgbImage};

/// A red left half and a blue right one; its green says which picture it is.
fn halves(number: u8, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| {
        let (red, blue) = if x < width / 2 { (255, 0) } else { (0, 255) };
        Rgb([red, number * 20, blue])
    })
}

/// Ten such pictures of these shapes in `dir`, of which the even ones have a caption that tells the halves apart.
fn pictures(dir: &Path, shapes: &[(u32, u32)]) {
    fs::create_dir(dir).unwrap();
    for number in 0..10 {
        let (width, height) = shapes[number as usize % shapes.len()];
        let picture = halves(number, width, height);
        fs::write(dir.join(format!("{number}.png")), png(&picture)).unwrap();
        let caption = match number % 2 {
            0 => "two halves\nred on the left and blue on the right",
            _ => "two halves\nred beside blue",
        };
        fs::write(dir.join(format!("{number}.txt")), caption).unwrap();
    }
}

#[test]
fn pictures_are_mirrored_only_where_their_captions_stay_true() {
    let dir = tempfile::tempdir().unwrap();
    let shapes = [(32, 32), (48, 32), (32, 48), (64, 32)];
    pictures(&dir.path().join("pictures"), &shapes);
    let folder = format!(
        "kind = \"folder\"\npath = \"{}/pictures\"\nflip = true\n",
        dir.path().display()
    );
    let text = VAE
        .replace("kind = \"scenes\"\n", &folder)
        .replace("batch_size = 2", "batch_size = 10");
    run(&config(dir.path(), "shown", &text), false, None).unwrap();
    let sheet = image::open(dir.path().join("shown/first-batches.png"));
    let sheet = sheet.unwrap().into_rgb8();
    // Six in a row, two pixels between them; ten of each step, eight pixels between the steps.
    let (side, gap) = (32, 2);
    assert_eq!(
        sheet.dimensions(),
        (6 * side + 5 * gap, 2 * (2 * side + gap) + 8)
    );
    let mut mirrored = [0, 0];
    for step in 0..2 {
        for place in 0..10 {
            let x = (place % 6) * (side + gap);
            let y = step * (2 * side + gap + 8) + (place / 6) * (side + gap);
            let at = |x: u32| sheet.get_pixel(x, y + side / 2).0;
            let [red, green, blue] = at(x + 4);
            let number = (green + 10) / 20;
            let flipped = blue > red;
            assert_eq!(at(x + side - 4)[0] > 128, flipped);
            mirrored[usize::from(number % 2)] += u32::from(flipped);
        }
    }
    // Each was there twice; of the ten times that one could be mirrored about half were.
    assert_eq!(mirrored[0], 0);
    assert!((2..=8).contains(&mirrored[1]), "{mirrored:?}");
    // There are no captions to be learnt.
    assert!(!dir.path().join("shown/first-batches.txt").exists());
}

#[test]
fn a_denoisers_batches_are_shown_in_their_shapes_with_their_captions() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = prepare(dir.path());
    pictures(&dir.path().join("pictures"), &[(60, 36)]);
    let start = text.find("kind = \"scenes\"").unwrap();
    let end = text.find("[model]").unwrap();
    let data = format!(
        "kind = \"folder\"\npath = \"{}/pictures\"\nsize = 32\nbucket_step = 8\nflip = true\n\
         caption_dropout = 0.5\n",
        dir.path().display()
    );
    let text = format!("{}{data}{}", &text[..start], &text[end..])
        .replace("sample_every = 8", "sample_every = 0");
    run(&config(dir.path(), "shown", &text), false, Some(2)).unwrap();
    let run_folder = dir.path().join("shown");
    let lines = fs::read_to_string(run_folder.join("first-batches.txt")).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    // Two a step, until there are twelve.
    assert_eq!(lines.len(), 12, "{lines:?}");
    assert!(lines[11].starts_with("step 6: "), "{lines:?}");
    for said in ["two halves", "(no caption)"] {
        assert!(lines.iter().any(|line| line.contains(said)), "{lines:?}");
    }
    let sheet = image::open(run_folder.join("first-batches.png")).unwrap();
    // A row for each step, with two pictures of the bucket that is nearest to their shape.
    let [width, height] = [40, 24];
    let expected = (2 * width + 2, 6 * height + 5 * 8);
    assert_eq!((sheet.width(), sheet.height()), expected);
    let report = fs::read_to_string(run_folder.join("report.html")).unwrap();
    assert!(report.contains("What the first steps were fed") && report.contains("step 6: "));
}
