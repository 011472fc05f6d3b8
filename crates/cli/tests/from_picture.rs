//! `velatura generate --init` and `--mask`, as a person runs them.

mod common;

use std::fs;

use common::Bench;
use velatura::files::Existing;
use velatura::image::{Image, Mask};

/// Writes a picture of soft colours and a mask of its right half.
fn pictures(bench: &Bench, width: usize, height: usize) -> (Image, Mask) {
    let pixels = (0..width * height)
        .flat_map(|i| [(i * 3 % 251) as u8, (i / 5 % 256) as u8, 90])
        .collect();
    let init = Image::new(width, height, pixels);
    init.write_png(&bench.path("init.png"), &[], Existing::Replace)
        .unwrap();
    let painted = (0..width * height)
        .map(|i| i % width >= width / 2)
        .collect();
    let mask = Mask::new(width, height, painted);
    fs::write(bench.path("mask.png"), mask.encode_png().unwrap()).unwrap();
    (init, mask)
}

#[test]
fn a_part_is_repainted_and_the_rest_stays_to_the_pixel() {
    let bench = Bench::new();
    let (init, mask) = pictures(&bench, 64, 64);
    let said = bench.generate(&[
        "--init",
        "init.png",
        "--mask",
        "mask.png",
        "--strength",
        "0.8",
        "-s",
        "5",
        "--seed",
        "1",
        "-o",
        "a.png",
        "--json",
        "a house",
    ]);
    let summary = said.json();
    assert_eq!(summary["mode"], "inpaint");
    assert_eq!(summary["strength"], 0.8);
    let painted = Image::read(&bench.path("a.png")).unwrap();
    let mut changed = 0;
    for (i, (new, old)) in painted
        .pixels()
        .chunks(3)
        .zip(init.pixels().chunks(3))
        .enumerate()
    {
        if mask.painted()[i] {
            changed += usize::from(new != old);
        } else {
            assert_eq!(new, old, "pixel {i}");
        }
    }
    assert!(changed > 1000, "{changed}");

    // Nearly no strength leaves nearly everything, and the whole takes every step.
    let steps = |strength: &str| {
        let args = [
            "--init",
            "init.png",
            "--strength",
            strength,
            "-s",
            "10",
            "--seed",
            "1",
        ];
        let said = bench
            .generate(&[&args, &["-o", "b.png", "--trace", "t.safetensors", "x"][..]].concat());
        assert_eq!(said.status, 0, "{}", said.stderr);
        let bytes = fs::read(bench.path("t.safetensors")).unwrap();
        let trace = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        trace
            .names()
            .iter()
            .filter(|name| name.starts_with("latents."))
            .count()
    };
    // PNDM, the model's own, asks once more than there are steps, wherever it begins.
    assert_eq!((steps("0.1"), steps("0.3"), steps("1")), (2, 4, 11));
}

#[test]
fn a_masked_part_is_repainted_alone() {
    let bench = Bench::new();
    let (init, _) = pictures(&bench, 200, 120);
    let bits = (0..200 * 120).map(|i| (140..160).contains(&(i % 200)) && i / 200 < 30);
    let mask = Mask::new(200, 120, bits.collect());
    fs::write(bench.path("mask.png"), mask.encode_png().unwrap()).unwrap();
    let args = "--init init.png --mask mask.png -s 3 --seed 1 -o a.png --json";
    let alone = "--padding-mask-crop 8 --masked-content fill --mask-blur 2 --strength 0.7";
    let args: Vec<&str> = args.split(' ').chain(alone.split(' ')).collect();
    let said = bench.generate(&[&args[..], &["a house"]].concat());
    assert_eq!(said.json()["mode"], "inpaint");
    // It keeps its size, and only what is masked has changed.
    let painted = Image::read(&bench.path("a.png")).unwrap();
    assert_eq!((painted.width(), painted.height()), (200, 120));
    let pairs = painted.pixels().chunks(3).zip(init.pixels().chunks(3));
    let changed: Vec<bool> = pairs
        .zip(mask.painted())
        .filter(|((new, old), _)| new != old)
        .map(|(_, painted)| *painted)
        .collect();
    assert!(changed.len() > 300 && changed.iter().all(|painted| *painted));

    let unknown = [
        "--init",
        "init.png",
        "--mask",
        "mask.png",
        "--masked-content",
        "lava",
        "x",
    ];
    bench
        .generate(&unknown)
        .fails(2, &["masked-content", "latent-noise"]);
    bench
        .generate(&["--init", "init.png", "--mask-blur", "2", "x"])
        .fails(2, &["--mask"]);
}

#[test]
fn the_picture_says_how_large_the_result_is() {
    let bench = Bench::new();
    pictures(&bench, 72, 48);
    let model = common::models().join("sd15");
    let generate = |args: &[&str]| {
        let fixed = [
            "generate",
            "-m",
            model.to_str().unwrap(),
            "--init",
            "init.png",
            "-s",
            "2",
            "-o",
            "a.png",
        ];
        bench.run(&[&fixed, args].concat())
    };
    assert_eq!(generate(&["x"]).status, 0);
    let size = |name: &str| {
        let image = Image::read(&bench.path(name)).unwrap();
        (image.width(), image.height())
    };
    assert_eq!(size("a.png"), (72, 48));
    assert_eq!(
        generate(&["--width", "64", "--height", "64", "x"]).status,
        0
    );
    assert_eq!(size("a.png"), (64, 64));
}

#[test]
fn what_cannot_be_is_refused() {
    let bench = Bench::new();
    pictures(&bench, 65, 64);
    fs::write(bench.path("text.png"), "no picture").unwrap();
    let model = common::models().join("sd15");
    let fails = |args: &[&str], status: i32, parts: &[&str]| {
        let fixed = [
            "generate",
            "-m",
            model.to_str().unwrap(),
            "-s",
            "10",
            "-o",
            "a.png",
            "x",
        ];
        bench.run(&[&fixed, args].concat()).fails(status, parts);
        assert!(!bench.path("a.png").exists());
    };
    fails(&["--mask", "mask.png"], 2, &["--init"]);
    fails(&["--strength", "0.5"], 2, &["--init"]);
    fails(
        &["--init", "init.png"],
        2,
        &["width", "found 65; the nearest is 64"],
    );
    fails(&["--init", "none.png"], 1, &["none.png", "check the path"]);
    fails(&["--init", "text.png"], 1, &["text.png", "expected a PNG"]);
    fs::rename(bench.path("mask.png"), bench.path("other.png")).unwrap();
    pictures(&bench, 64, 64);
    fails(
        &["--init", "init.png", "--mask", "other.png"],
        2,
        &["mask", "64×64", "65×64"],
    );
    fails(
        &["--init", "init.png", "--mask", "text.png"],
        1,
        &["text.png", "expected a PNG"],
    );
    for strength in ["0", "1.5", "NaN"] {
        fails(
            &["--init", "init.png", "--strength", strength],
            2,
            &["strength", "up to 1"],
        );
    }
    fails(
        &["--init", "init.png", "--strength", "0.05"],
        2,
        &["strength", "0.1"],
    );
}
