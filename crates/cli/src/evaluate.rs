//! `velatura evaluate`.

use std::path::Path;

use anyhow::{Result, bail};
use image::RgbImage;
use serde_json::json;
use velatura::checkpoint::Component;
use velatura::pipeline::Request;
use velatura_train::evaluate::{
    self, PromptsOptions, Verdict, distance, features, prompts, reconstruction, write_html,
};
use velatura_train::scorer::Scorer;

use crate::args::{DistanceArgs, EvaluateCommand, PromptsArgs, VaeArgs};
use crate::progress::Progress;
use crate::{interrupt, model};

pub fn run(command: &EvaluateCommand) -> Result<()> {
    interrupt::end_at_once();
    match command {
        EvaluateCommand::Vae(args) => vae(args),
        EvaluateCommand::Prompts(args) => fidelity(args),
        EvaluateCommand::Distance(args) => sets(args),
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

/// The scorer in `dir`, or the embedded one.
fn scorer(dir: Option<&Path>) -> Result<Scorer> {
    if let Some(dir) = dir {
        return Ok(Scorer::open(dir)?);
    }
    let file = |ending: &str| {
        let found = velatura_models::SCORER
            .iter()
            .find(|(name, _)| name.ends_with(ending));
        found.map(|&(_, bytes)| bytes)
    };
    let (Some(config), Some(weights)) = (file("config.json"), file(".safetensors")) else {
        bail!(
            "this program was built without an embedded scorer, because the repository had no models/scorer; train one \
             with `velatura train configs/scorer.toml` and name it with --scorer runs/scorer/model"
        );
    };
    let config = std::str::from_utf8(config)?;
    let component = Component::from_static("the embedded scorer", config, &[weights])?;
    Ok(Scorer::from_component(&component)?)
}

fn vae(args: &VaeArgs) -> Result<()> {
    let pipeline = model::open(&args.model)?.load(args.model.precision.into())?;
    let plan = pipeline.model().plan(&Request::default())?;
    let size = args.size.map_or(plan.width, usize::from);
    let mut stages = Stages::new();
    let mut report = |what, done, of| stages.tell(what, done, of);
    let vae = pipeline.painter().vae;
    let count = args.count as usize;
    let (result, of) = match &args.pictures {
        Some(folder) => {
            let files = features::pictures(folder)?;
            let picture = |number: usize| features::read_square(&files[number], size);
            let result = reconstruction(vae, count.min(files.len()), picture, &mut report)?;
            (result, folder.display().to_string())
        }
        None => {
            let scenes = evaluate::held_back_scenes(size)?;
            let result = reconstruction(vae, count, |number| Ok(scenes(number)), &mut report)?;
            (result, "scenes that no model has learnt from".to_owned())
        }
    };
    if args.json {
        let mut value = serde_json::to_value(&result)?;
        value["model"] = json!(pipeline.model().name());
        value["size"] = json!(size);
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    println!(
        "{}: {} pictures of {size}×{size}, {of}",
        pipeline.model().name(),
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
    let options = PromptsOptions {
        prompts: args.prompts as usize,
        seeds: args.seeds.into(),
        proof: args.proof as usize,
        together: args.batch.into(),
        steps: args.steps,
        guidance: args.guidance,
        ..PromptsOptions::default()
    };
    let options = match &args.config {
        Some(file) => options.with_scenes_of(file)?,
        None => options,
    };
    let scorer = scorer(args.scorer.as_deref())?;
    let pipeline = model::open(&args.model)?.load(args.model.precision.into())?;
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

fn sets(args: &DistanceArgs) -> Result<()> {
    let scorer = scorer(args.scorer.as_deref())?;
    let mut stages = Stages::new();
    let mut report = |what, done, of| stages.tell(what, done, of);
    let mut of = |folder: &Path| -> Result<distance::Features> {
        let files = features::pictures(folder)?;
        Ok(features::of_scenes(&scorer, &files, &mut report)?)
    };
    let (a, b) = (of(&args.first)?, of(&args.second)?);
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
    let network = "scene scorer";
    if args.json {
        let value = json!({
            "network": network, "features": a.width(), "pictures": [a.len(), b.len()], "fid": fid,
            "kid": kid.map(|(mean, _)| mean), "kid_std": kid.map(|(_, std)| std),
        });
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    println!(
        "{} and {} pictures, {} features of the {network}",
        a.len(),
        b.len(),
        a.width()
    );
    println!("Fréchet distance {fid:.4}");
    if let Some((mean, std)) = kid {
        println!("kernel distance {mean:.6} ± {std:.6} over subsets");
    }
    println!(
        "The features are those of our own network for scenes, so these are no figures to compare with published FIDs."
    );
    Ok(())
}

/// As torch-fidelity has them, up to the size of the sets.
const SUBSETS: usize = 100;
const SUBSET: usize = 1000;
