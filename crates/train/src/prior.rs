//! Pictures of a class, learnt beside those of a subject (DreamBooth: Ruiz et al. 2022, arXiv:2208.12242). Those that
//! are missing are painted by the model as it is before training.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use velatura::files::{Existing, write_file};
use velatura::pipeline::{LoadOptions, Pipeline, Request};

use crate::config::{Config, Prior};
use crate::error::{Error, Result};
use crate::latent_source::LatentBatch;
use crate::picture::is_picture;
use crate::progress::duration;
use crate::random::{Purpose, mix};

/// Paints what is missing in the folder of `prior`. False if `stop` asked to leave before all were there; what has been
/// painted stays.
///
/// # Errors
/// The base model cannot paint; the folder cannot be written.
pub(crate) fn complete(config: &Config, prior: &Prior, stop: &dyn Fn() -> bool) -> Result<bool> {
    let dir = &prior.path;
    fs::create_dir_all(dir).map_err(Error::io("make the folder", dir))?;
    let have = present(dir);
    let Some(base) = config.model.base.as_deref().filter(|_| have < prior.count) else {
        return Ok(true);
    };
    let pipeline = Pipeline::load(base, LoadOptions::default())?;
    let began = std::time::Instant::now();
    for number in have..prior.count {
        if stop() {
            return Ok(false);
        }
        paint(&pipeline, config, prior, number as u64)?;
        let done = number + 1 - have;
        let each = began.elapsed().as_secs_f64() / done as f64;
        eprintln!(
            "prior: picture {} of {} painted, {} left",
            number + 1,
            prior.count,
            duration(each * (prior.count - number - 1) as f64)
        );
    }
    Ok(true)
}

/// Pictures in the folder; none where there is none.
pub(crate) fn present(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| is_picture(&entry.path())).count()
}

fn paint(pipeline: &Pipeline, config: &Config, prior: &Prior, number: u64) -> Result<PathBuf> {
    let request = Request {
        prompt: prior.caption.clone(),
        // 32 bits, as people write seeds.
        seed: Some(mix(config.run.seed, Purpose::Prior, number) >> 32),
        width: Some(config.data.size),
        height: Some(config.data.size),
        ..Request::default()
    };
    let plan = pipeline.model().plan(&request)?;
    let painted = pipeline.paint(&plan, None, &mut |_| ControlFlow::Continue(()))?;
    let image = painted.image;
    let path: PathBuf = prior.path.join(format!("prior-{number:05}.png"));
    let picture = image::RgbImage::from_raw(
        image.width() as u32,
        image.height() as u32,
        Vec::from(image.pixels()),
    );
    let mut png = std::io::Cursor::new(Vec::new());
    let fault = |message: String| Error::run(&path, format!("cannot write the picture: {message}"));
    picture
        .ok_or_else(|| fault("its size is wrong".into()))?
        .write_to(&mut png, image::ImageFormat::Png)
        .map_err(|error| fault(error.to_string()))?;
    // Never over a picture that someone has put there.
    Ok(write_file(
        Path::new(&path),
        &png.into_inner(),
        Existing::Keep,
    )?)
}

/// The samples of both batches, the class's counting `weight` times as much as the subject's: the loss is then the mean
/// over the subject's samples plus `weight` times the mean over the class's, as in the paper.
pub(crate) fn beside(subject: LatentBatch, class: LatentBatch, weight: f32) -> LatentBatch {
    let (subjects, classes) = (subject.len() as f32, class.len() as f32);
    let all = subjects + classes;
    let mut both = subject.followed_by(class);
    both.importance = vec![all / subjects; subjects as usize];
    both.importance.resize(both.len(), weight * all / classes);
    both
}

#[cfg(test)]
mod tests {
    use super::*;
    use velatura_tensor::Tensor;

    fn batch(values: &[f32]) -> LatentBatch {
        let tensor = Tensor::from_vec(values.to_vec(), &[values.len(), 1, 1, 1]);
        LatentBatch {
            step: 1,
            latents: tensor.clone(),
            noise: tensor,
            timesteps: vec![0; values.len()],
            ids: vec![0; values.len()],
            captions: vec![String::new(); values.len()],
            importance: Vec::new(),
        }
    }

    #[test]
    fn the_weighted_mean_over_both_is_the_sum_of_both_means() {
        let both = beside(batch(&[1.0, 3.0]), batch(&[10.0, 20.0, 60.0]), 0.5);
        let weighted = both.latents.scale_samples(&both.importance).mean().item();
        assert!((weighted - (2.0 + 0.5 * 30.0)).abs() < 1e-5, "{weighted}");
    }
}
