//! `velatura evaluate`.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use image::RgbImage;
use serde_json::json;
use velatura::checkpoint::Component;
use velatura::clip::ClipModel;
use velatura::image::Image;
use velatura::pipeline::Request;
use velatura::vae::AutoencoderKl;
use velatura_tensor::Precision;
use velatura_train::config::{DataKind, Source};
use velatura_train::dataset::Dataset;
use velatura_train::evaluate::distance::Features;
use velatura_train::evaluate::features::Network;
use velatura_train::evaluate::inception::Inception;
use velatura_train::evaluate::{
    self, PromptsOptions, Verdict, distance, features, nouns_of, prompts, reconstruction,
    scenes_known_to, scenes_of, write_html,
};
use velatura_train::scorer::Scorer;

use crate::args::{
    ClipArgs, DistanceArgs, EvaluateCommand, ModelArgs, NearestArgs, NetworkArgs, PromptsArgs,
    VaeArgs,
};
use crate::progress::Progress;
use crate::{device, interrupt, model};

pub fn run(command: &EvaluateCommand) -> Result<()> {
    interrupt::end_at_once();
    match command {
        EvaluateCommand::Vae(args) => device::on(args.model.device, || vae(args)),
        EvaluateCommand::Prompts(args) => device::on(args.model.device, || fidelity(args)),
        EvaluateCommand::Distance(args) => sets(args),
        EvaluateCommand::Clip(args) => clip(args),
        EvaluateCommand::Nearest(args) => nearest(args),
    }
}

/// Shows how far each stage is.
struct Stages {
    progress: Option<(&'static str, Progress)>,
}

impl Stages {
    fn new() -> Stages {
        Stages { progress: None }
    }

    fn tell(&mut self, what: &'static str, done: usize, of: usize) -> bool {
        if self
            .progress
            .as_ref()
            .is_none_or(|(stage, _)| *stage != what)
        {
            self.progress = Some((what, Progress::new(what, of)));
        }
        if let Some((_, progress)) = &mut self.progress {
            progress.step(done);
        }
        if done == of {
            self.progress = None;
        }
        true
    }
}

/// The scorer in `dir`, or of the embedded ones the first that knows these nouns.
fn scorer(dir: Option<&Path>, nouns: &[String]) -> Result<Scorer> {
    if let Some(dir) = dir {
        return Ok(Scorer::open(dir)?);
    }
    let mut scorers = Vec::new();
    for files in velatura_models::SCORERS {
        let file = |ending: &str| {
            let found = files.iter().find(|(name, _)| name.ends_with(ending));
            found.map(|&(_, bytes)| bytes)
        };
        if let (Some(config), Some(weights)) = (file("config.json"), file(".safetensors")) {
            let config = std::str::from_utf8(config)?;
            let component = Component::from_static("the embedded scorer", config, &[weights])?;
            scorers.push(Scorer::from_component(&component)?);
        }
    }
    let knows = |scorer: &Scorer| {
        nouns
            .iter()
            .all(|noun| scorer.config().nouns.contains(noun))
    };
    // Where none knows them all, the first says which it misses.
    let chosen = scorers.iter().position(knows).unwrap_or(0);
    if scorers.is_empty() {
        bail!(
            "this program was built without an embedded scorer, because the repository had no models/scorer; train one \
             with `velatura train configs/scorer.toml` and name it with --scorer runs/scorer/model"
        );
    }
    Ok(scorers.swap_remove(chosen))
}

/// The scenes of a training config, or all that there are.
fn drawn(config: Option<&Path>) -> Result<Source> {
    Ok(match config {
        Some(file) => scenes_of(file)?,
        None => Source::new(DataKind::Scenes),
    })
}

/// The autoencoder to judge, its name and the side of its pictures: of a model, or alone in a folder as training
/// writes it.
fn autoencoder(args: &ModelArgs) -> Result<(AutoencoderKl, String, usize)> {
    let precision = model::precision(args)?;
    if let Some(dir) = args
        .model
        .as_ref()
        .filter(|dir| !dir.join("model_index.json").is_file())
        && (dir.join("vae").is_dir() || dir.join("config.json").is_file())
    {
        let vae = evaluate::open_vae(dir, precision)?;
        let side = vae.config().sample_size.map_or(512, |[_, width]| width);
        return Ok((vae, dir.display().to_string(), side));
    }
    let pipeline = model::open(args)?.load(precision)?;
    let plan = pipeline.model().plan(&Request::default())?;
    let name = pipeline.model().name();
    Ok((pipeline.vae().clone(), name, plan.width))
}

fn vae(args: &VaeArgs) -> Result<()> {
    let (vae, name, side) = autoencoder(&args.model)?;
    let size = args.size.map_or(side, usize::from);
    let mut stages = Stages::new();
    let mut report = |what, done, of| stages.tell(what, done, of);
    let count = args.count as usize;
    let (result, of) = match &args.pictures {
        Some(folder) => {
            let files = features::pictures(folder)?;
            let picture = |number: usize| features::read_square(&files[number], size);
            let result = reconstruction(&vae, count.min(files.len()), picture, &mut report)?;
            (result, folder.display().to_string())
        }
        None => {
            let scenes = evaluate::held_back_scenes(&drawn(args.config.as_deref())?, size)?;
            let result = reconstruction(&vae, count, |number| Ok(scenes(number)), &mut report)?;
            (result, "scenes that no model has learnt from".to_owned())
        }
    };
    if args.json {
        let mut value = serde_json::to_value(&result)?;
        value["model"] = json!(name);
        value["size"] = json!(size);
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    println!(
        "{name}: {} pictures of {size}×{size}, {of}",
        result.pictures
    );
    println!(
        "PSNR {:.2} dB (of the mean error {:.2} dB)",
        result.psnr, result.psnr_of_mean
    );
    if let Some(ssim) = result.ssim {
        println!("SSIM {ssim:.4}");
    }
    Ok(())
}

fn fidelity(args: &PromptsArgs) -> Result<()> {
    let model = model::open(&args.model)?;
    let dir = args.scorer.as_deref();
    let (scorer, scenes) = match &args.config {
        Some(file) => {
            let scenes = scenes_of(file)?;
            (scorer(dir, &nouns_of(&scenes)?)?, scenes)
        }
        None => {
            let scorer = scorer(dir, &[])?;
            let things = &model.facts().advice.things;
            let strange = |noun: &&String| !things.is_empty() && !things.contains(noun);
            if let Some(noun) = scorer.config().nouns.iter().find(strange) {
                bail!(
                    "{} paints {} things, and no {noun}, for which the scenes that are drawn without a config would ask; \
                     name the config that it was trained by with --config",
                    model.name(),
                    things.len()
                );
            }
            let scenes = scenes_known_to(&scorer);
            (scorer, scenes)
        }
    };
    let options = PromptsOptions {
        scenes,
        prompts: args.prompts as usize,
        seeds: args.seeds.into(),
        proof: args.proof as usize,
        together: args.batch.into(),
        steps: args.steps,
        guidance: args.guidance,
    };
    let pipeline = model.load(model::precision(&args.model)?)?;
    let mut stages = Stages::new();
    let mut report = |what, done, of| stages.tell(what, done, of);
    let mut kept: Vec<(Verdict, RgbImage)> = Vec::new();
    let result = prompts(
        &pipeline,
        &scorer,
        &options,
        &mut report,
        |verdict, picture| {
            if args.html.is_some() {
                kept.push((verdict.clone(), picture));
            }
            Ok(())
        },
    )?;
    if let Some(file) = &args.html {
        let _guard = interrupt::writing();
        kept.sort_by(|(a, _), (b, _)| {
            (a.unseen, &a.prompt, a.seed).cmp(&(b.unseen, &b.prompt, b.seed))
        });
        write_html(file, &result, &kept)?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        println!("{result}");
    }
    Ok(())
}

/// The network whose features are compared.
fn network(args: &NetworkArgs) -> Result<Network> {
    Ok(match &args.inception {
        Some(file) => Network::Inception(Inception::load(file)?),
        None => Network::Scorer(Box::new(scorer(args.scorer.as_deref(), &[])?)),
    })
}

fn features_of(network: &Network, folder: &Path) -> Result<Features> {
    let mut stages = Stages::new();
    let files = features::pictures(folder)?;
    let mut report = |what, done, of| stages.tell(what, done, of);
    Ok(network.features(&files, &mut report)?)
}

fn sets(args: &DistanceArgs) -> Result<()> {
    let network = network(&args.network)?;
    let (a, b) = (
        features_of(&network, &args.first)?,
        features_of(&network, &args.second)?,
    );
    let Some(fid) = distance::frechet(&a, &b) else {
        bail!(
            "a distance between sets needs at least two pictures in each; found {} in {} and {} in {}",
            a.len(),
            args.first.display(),
            b.len(),
            args.second.display()
        );
    };
    let kid = distance::kernel(&a, &b, SUBSETS, SUBSET);
    let name = network.name();
    if args.json {
        return print(&json!({
            "network": name, "features": a.width(), "pictures": [a.len(), b.len()], "fid": fid,
            "kid": kid.map(|(mean, _)| mean), "kid_std": kid.map(|(_, std)| std),
        }));
    }
    println!(
        "{} and {} pictures, {} features of the {name}",
        a.len(),
        b.len(),
        a.width()
    );
    println!("FID {fid:.4}");
    if let Some((mean, std)) = kid {
        println!("KID {mean:.6} ± {std:.6}");
    }
    let fewest = a.len().min(b.len());
    if fewest < a.width() {
        println!(
            "With fewer pictures ({fewest}) than features ({}) the FID is too high; the KID is not biased.",
            a.width()
        );
    }
    if let Network::Scorer(_) = network {
        println!(
            "The features are our own network's, for scenes: no figures to compare with published ones."
        );
    }
    Ok(())
}

/// As pytorch-fid's and torchmetrics' relatives have them, up to the size of the sets.
const SUBSETS: usize = 100;
const SUBSET: usize = 1000;

fn clip(args: &ClipArgs) -> Result<()> {
    // Its figures are held against published ones, which are taken in f32.
    let model = ClipModel::open(&args.clip, Precision::F32)?;
    let source = Source {
        path: Some(args.pictures.clone()),
        ..Source::new(DataKind::Folder)
    };
    let dataset = Dataset::open(&source, 0, true)?;
    let count = dataset.len().unwrap_or_default();
    let mut stages = Stages::new();
    let mut sum = 0.0;
    for number in 0..count {
        let item = dataset
            .item(number)
            .map_err(|skipped| anyhow!("{skipped}"))?;
        let (width, height) = item.picture.dimensions();
        let picture = Image::new(width as usize, height as usize, item.picture.into_raw());
        let caption = item.captions.first().map_or("", String::as_str);
        sum += f64::from(model.score(&picture, caption)?);
        stages.tell("picture", number as usize + 1, count as usize);
    }
    let score = sum / count as f64;
    if args.json {
        return print(&json!({ "pictures": count, "clip_score": score }));
    }
    println!(
        "CLIP score {score:.3}: the mean of 100 cos over {count} pictures and their first captions"
    );
    Ok(())
}

fn nearest(args: &NearestArgs) -> Result<()> {
    let network = network(&args.network)?;
    let training = features_of(&network, &args.training)?;
    let distances = |folder: &Path| -> Result<Vec<f64>> {
        let mut all = features_of(&network, folder)?.nearest(&training);
        all.sort_by(f64::total_cmp);
        Ok(all)
    };
    let (painted, held_out) = (distances(&args.painted)?, distances(&args.held_out)?);
    let at = |sorted: &[f64], share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    let mark = at(&held_out, 0.01);
    let nearer = painted.iter().filter(|&&distance| distance < mark).count();
    let share = nearer as f64 / painted.len() as f64;
    if args.json {
        return print(&json!({
            "network": network.name(), "training": training.len(),
            "painted": { "pictures": painted.len(), "median": at(&painted, 0.5), "first_percentile": at(&painted, 0.01) },
            "held_out": { "pictures": held_out.len(), "median": at(&held_out, 0.5), "first_percentile": mark },
            "nearer_than_first_percentile": share,
        }));
    }
    println!(
        "Distances to the nearest of {} pictures of the training",
        training.len()
    );
    for (name, sorted) in [("painted", &painted), ("held out", &held_out)] {
        println!(
            "{name:10} {} pictures, median {:.4}, first percentile {:.4}",
            sorted.len(),
            at(sorted, 0.5),
            at(sorted, 0.01)
        );
    }
    println!(
        "{:.1} % of what was painted is nearer than the nearest 1 % of what was held out; about 1 % is no memorising",
        100.0 * share
    );
    Ok(())
}

fn print(value: &serde_json::Value) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
