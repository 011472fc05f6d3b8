//! Whether a scorer may judge: what it says of drawings whose truth is known.

use serde::Serialize;
use velatura::vae::AutoencoderKl;
use velatura_scenes::{SceneGenerator, Truth};
use velatura_tensor::Tensor;

use super::tally::Tally;
use super::{Report, tell};
use crate::error::Result;
use crate::random::{Choices, Purpose};
use crate::scorer::{
    Aspect, Pixels, Question, Scorer, ScorerConfig, Sight, judge, reconstruct, scaled,
};

/// What a scorer says of pictures that it has not learnt from.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Proof {
    /// How many of each kind of picture.
    pub pictures: usize,
    /// What is right of drawings, judged by their own captions.
    pub drawings: Tally,
    /// The same of drawings taken through the model's autoencoder; none where there is no model.
    pub reconstructions: Option<Tally>,
    /// What is found, wrongly, of other scenes' captions: only what the drawing does not show is asked.
    pub shuffled: Tally,
    /// What is found, wrongly, in noise.
    pub noise: Tally,
}

/// Drawings are to be judged rightly at least so often, in each aspect.
pub const DRAWINGS: f64 = 0.99;
/// Drawings taken through an autoencoder.
pub const RECONSTRUCTIONS: f64 = 0.97;
/// What is not there is to be found at most so often.
pub const FALSE_POSITIVES: f64 = 0.02;

/// The seed of scenes that nothing is trained on.
pub(super) const SEED: u64 = 0x5ce7e5;
/// Pictures looked at in one batch.
const TOGETHER: usize = 32;

/// Shows the scorer `count` scenes of `generator`, the same through `vae`, the captions of others, and noise.
///
/// # Errors
/// `report` says stop.
pub fn prove(
    scorer: &Scorer,
    generator: &SceneGenerator,
    vae: Option<&AutoencoderKl>,
    count: usize,
    report: Report,
) -> Result<Proof> {
    let mut proof = Proof {
        pictures: count,
        reconstructions: vae.map(|_| Tally::default()),
        ..Proof::default()
    };
    let side = ScorerConfig::SIZE;
    let mut known: Vec<(Truth, Question)> = Vec::new();
    let mut sights: Vec<Sight> = Vec::new();
    for start in (0..count).step_by(TOGETHER) {
        let numbers = start..(start + TOGETHER).min(count);
        let (mut drawn, mut questions) = (Vec::new(), Vec::new());
        let mut noise = Vec::new();
        for number in numbers.clone() {
            let scene = generator.scene(SEED, number as u64);
            let caption = scene.captions.first().map_or("", String::as_str);
            questions.push(Question::of(&scene.truth, caption));
            drawn.push(scene.render());
            let mut choices = Choices::new(SEED, Purpose::Degrade, number as u64);
            noise.extend(Pixels::noise(side, &mut choices).values);
            known.push((scene.truth, questions[questions.len() - 1].clone()));
        }
        if let (Some(vae), Some(tally)) = (vae, &mut proof.reconstructions) {
            // In the size in which they were drawn, which is the model's.
            for (picture, question) in drawn.iter().zip(&questions) {
                let seen = scorer.look(&batch(&[scaled(reconstruct(vae, picture))]));
                tally.add(&judge(&seen[0], question));
            }
        }
        let drawn: Vec<Pixels> = drawn.into_iter().map(scaled).collect();
        let seen = scorer.look(&batch(&drawn));
        for (sight, question) in seen.iter().zip(&questions) {
            proof.drawings.add(&judge(sight, question));
        }
        sights.extend(seen);
        let noise = Tensor::from_vec(noise, &[numbers.len(), side, side, 3]);
        for (sight, question) in scorer.look(&noise).iter().zip(&questions) {
            proof.noise.add(&judge(sight, question));
        }
        tell(&mut *report, "proof", numbers.end, count)?;
    }
    for (i, (sight, (truth, _))) in sights.iter().zip(&known).enumerate() {
        // A caption of another scene, far enough away that every one is asked of some other.
        let (_, question) = &known[(i + count / 2) % count];
        let truly = judge(&Sight::of(truth), question);
        for (&(aspect, yes), &(_, true_yes)) in judge(sight, question).iter().zip(&truly) {
            if !true_yes {
                proof.shuffled.count(aspect, yes);
            }
        }
    }
    Ok(proof)
}

fn batch(pictures: &[Pixels]) -> Tensor {
    let side = ScorerConfig::SIZE;
    let values = pictures.iter().flat_map(|pixels| &pixels.values).copied();
    Tensor::from_vec(values.collect(), &[pictures.len(), side, side, 3])
}

impl Proof {
    /// What falls short, in words: the scorer's figures for these aspects are not to be trusted. Empty when all is
    /// well. "All together" is not held to the mark of a single aspect, of which it holds up to six.
    pub fn shortcomings(&self) -> Vec<String> {
        let mut short = Vec::new();
        let mut check = |tally: &Tally, what: &str, enough: &dyn Fn(f64) -> bool, mark: String| {
            for aspect in Aspect::ALL {
                let Some(value) = tally.of(aspect).value() else {
                    continue;
                };
                if aspect != Aspect::All && !enough(value) {
                    let name = aspect.name();
                    short.push(format!("{name}: {:.1} % {what}, {mark}", 100.0 * value));
                }
            }
        };
        let least = |mark: f64| move |value: f64| value >= mark;
        let percent = |mark: f64| format!("{:.0} %", 100.0 * mark);
        let mark = format!("at least {} wanted", percent(DRAWINGS));
        check(&self.drawings, "right on drawings", &least(DRAWINGS), mark);
        if let Some(tally) = &self.reconstructions {
            let mark = format!("at least {} wanted", percent(RECONSTRUCTIONS));
            let what = "right on reconstructions";
            check(tally, what, &least(RECONSTRUCTIONS), mark);
        }
        let mark = format!("at most {} wanted", percent(FALSE_POSITIVES));
        let most = |value: f64| value <= FALSE_POSITIVES;
        let what = "found in others' captions";
        check(&self.shuffled, what, &most, mark.clone());
        check(&self.noise, "found in noise", &most, mark);
        short
    }
}
