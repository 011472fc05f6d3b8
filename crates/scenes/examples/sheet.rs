//! Contact sheets of scenes and of all drawings, to look at: `cargo run -p velatura-scenes --example
//! sheet -- OUT_DIR [SEED] [SIZE] [SPRITES_DIR]`.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use image::{RgbImage, imageops};
use velatura_scenes::{COLOURS, SceneConfig, SceneGenerator, SpriteSet, Time};

fn sheet(generator: &SceneGenerator, seed: u64, columns: u32, rows: u32) -> RgbImage {
    let size = generator.config().size;
    let mut sheet = RgbImage::new(columns * (size + 4), rows * (size + 4));
    for i in 0..columns * rows {
        let scene = generator.scene(seed, u64::from(i));
        println!("{i:3} {}", scene.captions.join(" | "));
        let (x, y) = ((i % columns) * (size + 4), (i / columns) * (size + 4));
        imageops::replace(&mut sheet, &scene.render(), i64::from(x), i64::from(y));
    }
    sheet
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let out = PathBuf::from(arguments.next().ok_or("name a folder for the sheets")?);
    let seed: u64 = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let size: u32 = arguments.next().map_or(Ok(128), |text| text.parse())?;
    let sprites = arguments
        .next()
        .map(|dir| SpriteSet::load(dir.as_ref()))
        .transpose()?
        .map(Arc::new);
    std::fs::create_dir_all(&out)?;
    let config = SceneConfig {
        size,
        sprites,
        ..SceneConfig::default()
    };
    let generator = SceneGenerator::new(config.clone())?;
    sheet(&generator, seed, 8, 6).save(out.join("scenes.png"))?;
    if config.sprites.is_none() {
        // One of each kind, by day and at night.
        for time in [Time::Noon, Time::Night] {
            let nouns: Vec<String> = generator
                .nouns()
                .iter()
                .map(|noun| (*noun).to_owned())
                .collect();
            let size = config.size;
            let mut sheet =
                RgbImage::new(8 * (size + 4), nouns.len().div_ceil(8) as u32 * (size + 4));
            for (i, noun) in nouns.iter().enumerate() {
                let only = SceneConfig {
                    nouns: vec![noun.clone()],
                    times: vec![time],
                    colours: COLOURS[i % 8..].to_vec(),
                    pair_share: 0.0,
                    count_share: 0.0,
                    odd_size_share: 0.0,
                    clear_share: 1.0,
                    ..SceneConfig::default()
                };
                let scene = SceneGenerator::new(only)?.scene(seed, i as u64);
                println!("{} {}", time.name(), scene.captions[0]);
                let (x, y) = ((i as u32 % 8) * (size + 4), (i as u32 / 8) * (size + 4));
                imageops::replace(&mut sheet, &scene.render(), i64::from(x), i64::from(y));
            }
            sheet.save(out.join(format!("kinds-{}.png", time.name())))?;
        }
    }
    let start = std::time::Instant::now();
    let count = 200;
    for i in 0..count {
        generator.scene(seed + 1, i).render();
    }
    println!(
        "{:.0} scenes/s",
        count as f64 / start.elapsed().as_secs_f64()
    );
    Ok(())
}
