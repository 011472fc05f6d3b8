//! `velatura scenes render`.

use std::sync::Arc;

use anyhow::Result;
use velatura::Error;
use velatura_scenes::{SceneConfig, SceneGenerator, SpriteSet};
use velatura_train::dataset::scene_generator;
use velatura_train::evaluate::scenes_of;

use crate::args::RenderArgs;
use crate::interrupt;
use crate::progress::Progress;

/// Sides in pixels between which a scene can be drawn and recognised.
const SIDES: std::ops::RangeInclusive<u32> = 16..=4096;

pub fn render(args: &RenderArgs) -> Result<()> {
    if args.count == 0 {
        return Err(Error::request("--count", "at least 1", args.count).into());
    }
    if !SIDES.contains(&args.size) {
        let expected = format!("{} to {} pixels", SIDES.start(), SIDES.end());
        return Err(Error::request("--size", expected, args.size).into());
    }
    interrupt::end_when_asked_twice("stopping: nothing is kept; Ctrl-C once more to stop at once");
    let generator = match &args.config {
        Some(file) => scene_generator(&scenes_of(file)?, args.size as usize)?,
        None => {
            let sprites = args.sprites.as_deref().map(SpriteSet::load);
            SceneGenerator::new(SceneConfig {
                size: args.size,
                sprites: sprites.transpose()?.map(Arc::new),
                ..SceneConfig::default()
            })?
        }
    };
    let mut progress = Progress::new("scene", args.count as usize);
    let result = generator.render_folder(
        args.count,
        args.seed,
        &args.out,
        Some(&mut |done, _| {
            progress.step(done as usize);
            !interrupt::asked()
        }),
    );
    drop(progress);
    result?;
    eprintln!("{} scenes in {}", args.count, args.out.display());
    Ok(())
}
