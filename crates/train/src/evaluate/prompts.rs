//! Whether a model paints what it is asked for, judged on scenes.

use image::RgbImage;
use serde::Serialize;
use velatura::pipeline::{Pipeline, Plan, Request};
use velatura_scenes::{HeldOut, SceneGenerator, Setting, Time, Weather};

use super::Report;
use super::paint::paint;
use super::proof::{Proof, SEED, prove};
use super::tally::Tally;
use crate::config::{DataKind, Source};
use crate::dataset::scene_generator;
use crate::error::{Error, Result};
use crate::scorer::{Aspect, Question, Scorer, Sight, judge, look};

/// What is asked.
#[derive(Clone, Debug)]
pub struct PromptsOptions {
    /// Prompts, half of them of combinations that are held out.
    pub prompts: usize,
    /// Pictures for each, of the seeds from 0 on.
    pub seeds: u64,
    /// Scenes by which the scorer is proved.
    pub proof: usize,
    /// Pictures painted at once.
    pub together: usize,
    /// Steps; the model's own if none.
    pub steps: Option<usize>,
    /// Guidance; the model's own if none.
    pub guidance: Option<f32>,
    /// Which scenes the model knows.
    pub scenes: Source,
}

impl Default for PromptsOptions {
    fn default() -> Self {
        PromptsOptions {
            prompts: 600,
            seeds: 4,
            proof: 500,
            together: 8,
            steps: None,
            guidance: None,
            scenes: Source::new(DataKind::Scenes),
        }
    }
}

/// How a model does.
#[derive(Clone, Debug, Serialize)]
pub struct Prompts {
    pub model: String,
    pub steps: usize,
    pub guidance: f32,
    pub sampler: String,
    pub size: [usize; 2],
    pub prompts: usize,
    pub seeds: u64,
    /// Whether the config that the scenes were taken from kept the held-out combinations out of training.
    pub excluded_in_training: bool,
    /// Combinations that are not held out.
    pub seen: Tally,
    /// Prompts with a combination that is.
    pub unseen: Tally,
    /// What the scorer itself is worth.
    pub proof: Proof,
    /// Where it falls short of what was asked of it.
    pub shortcomings: Vec<String>,
    /// Every picture.
    pub verdicts: Vec<Verdict>,
}

/// One picture, judged.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub prompt: String,
    pub seed: u64,
    /// Whether the prompt has a combination that is held out.
    pub unseen: bool,
    /// What was asked, and whether it is there.
    pub verdicts: Vec<(Aspect, bool)>,
}

/// Of scenes with two things, or two and three alike, there are more than in training, where there are some.
const PAIR_SHARE: f32 = 0.35;
const COUNT_SHARE: f32 = 0.2;
/// Half of the skies are clear, where there is other weather.
const CLEAR_SHARE: f32 = 0.5;

/// The scenes that prompts are made from.
fn generator(source: &Source, size: usize, held_out: HeldOut) -> Result<SceneGenerator> {
    let mut source = source.clone();
    let scenes = &mut source.scenes;
    let more = |share: Option<f32>, wanted: f32| match share {
        Some(0.0) => Some(0.0),
        _ => Some(wanted),
    };
    scenes.pair_share = more(scenes.pair_share, PAIR_SHARE);
    scenes.count_share = more(scenes.count_share, COUNT_SHARE);
    scenes.clear_share = Some(CLEAR_SHARE);
    scenes.held_out = Some(held_out);
    scene_generator(&source, size)
}

/// Whether the scorer knows everything that the scenes show.
fn check_known(scorer: &Scorer, scenes: &SceneGenerator) -> Result<()> {
    fn new<T: PartialEq + Copy>(
        known: &[T],
        shown: &[T],
        name: fn(T) -> &'static str,
    ) -> Option<String> {
        let new = shown.iter().find(|one| !known.contains(one));
        new.map(|&one| name(one).to_owned())
    }
    let (known, shown) = (scorer.config(), scenes.config());
    let noun = scenes.nouns().into_iter().map(str::to_owned);
    let unknown = [
        (
            "nouns",
            noun.into_iter().find(|noun| !known.nouns.contains(noun)),
        ),
        (
            "settings",
            new(&known.settings, &shown.settings, Setting::name),
        ),
        ("times", new(&known.times, &shown.times, Time::name)),
        (
            "weathers",
            new(&known.weathers, &shown.weathers, Weather::name),
        ),
    ];
    for (field, name) in unknown {
        if let Some(name) = name {
            let message = format!(
                "the scorer does not know {name:?}; train one on these scenes (configs/scorer.toml), or leave it out \
                 of [data.scenes] {field}"
            );
            return Err(Error::data("scenes", message));
        }
    }
    Ok(())
}

/// Paints the prompts, judges the pictures and proves the scorer. `keep` gets every picture with its verdict.
///
/// # Errors
/// The scenes cannot be drawn, the pictures not painted; the scorer does not know a noun; `report` says stop.
pub fn prompts(
    pipeline: &Pipeline,
    scorer: &Scorer,
    options: &PromptsOptions,
    report: Report,
    mut keep: impl FnMut(&Verdict, RgbImage) -> Result<()>,
) -> Result<Prompts> {
    let request = |prompt: &str, seed: u64| Request {
        prompt: prompt.to_owned(),
        seed: Some(seed),
        steps: options.steps,
        guidance: options.guidance,
        ..Request::default()
    };
    let first: Plan = pipeline.model().plan(&request("", 0))?;
    let size = first.width.max(first.height);
    let whole = generator(&options.scenes, size, HeldOut::Include)?;
    check_known(scorer, &whole)?;
    let proof = prove(
        scorer,
        &whole,
        Some(pipeline.vae()),
        options.proof,
        &mut *report,
    )?;

    let mut asked: Vec<(Question, bool)> = Vec::new();
    for (held_out, count) in [
        (HeldOut::Exclude, options.prompts.div_ceil(2)),
        (HeldOut::Only, options.prompts / 2),
    ] {
        let scenes = generator(&options.scenes, size, held_out)?;
        asked.extend((0..count as u64).map(|index| {
            // Not the scenes of the proof, which have the same seed.
            let scene = scenes.scene(SEED + 1, index);
            let caption = scene.captions.first().map_or("", String::as_str);
            (
                Question::of(&scene.truth, caption),
                held_out == HeldOut::Only,
            )
        }));
    }
    let mut works = Vec::new();
    for (number, (question, _)) in asked.iter().enumerate() {
        for seed in 0..options.seeds {
            let plan = pipeline.model().plan(&request(&question.prompt, seed))?;
            works.push((number, seed, plan));
        }
    }
    let plans: Vec<Plan> = works.iter().map(|work| work.2.clone()).collect();
    let mut judged: Vec<Option<Verdict>> = vec![None; plans.len()];
    paint(
        pipeline,
        &plans,
        options.together,
        &mut *report,
        |work, picture| {
            let (number, seed, _) = &works[work];
            let (question, unseen) = &asked[*number];
            let sight: Sight = look(scorer, picture.clone());
            let verdict = Verdict {
                prompt: question.prompt.clone(),
                seed: *seed,
                unseen: *unseen,
                verdicts: judge(&sight, question),
            };
            keep(&verdict, picture)?;
            judged[work] = Some(verdict);
            Ok(())
        },
    )?;
    let verdicts: Vec<Verdict> = judged.into_iter().flatten().collect();
    let (mut seen, mut unseen) = (Tally::default(), Tally::default());
    for verdict in &verdicts {
        let tally = if verdict.unseen {
            &mut unseen
        } else {
            &mut seen
        };
        tally.add(&verdict.verdicts);
    }
    Ok(Prompts {
        model: pipeline.model().name(),
        steps: first.steps,
        guidance: first.guidance,
        sampler: first.sampler.name().to_owned(),
        size: [first.width, first.height],
        prompts: asked.len(),
        seeds: options.seeds,
        excluded_in_training: options.scenes.scenes.held_out == Some(HeldOut::Exclude),
        seen,
        unseen,
        shortcomings: proof.shortcomings(),
        proof,
        verdicts,
    })
}
