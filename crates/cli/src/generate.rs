//! `velatura generate`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use velatura::files::{Existing, check_writable};
use velatura::image::{Image, Mask};
use velatura::pipeline::{Model, Painted, Plan, Request, Trace, precision_name};
use velatura_tensor::device::Device;

use crate::args::GenerateArgs;
use crate::progress::{Progress, peak_memory_mb};
use crate::{interrupt, model, show};

/// The longest file name made from a prompt, in characters; the usual limit is 255 bytes.
const NAME_LENGTH: usize = 50;
/// As many of the cut words are told.
const WORDS_TOLD: usize = 20;

pub fn run(args: &GenerateArgs) -> Result<()> {
    interrupt::end_at_once();
    let start = Instant::now();
    let model = model::open(&args.model)?;
    let plan = model.plan(&request(args)?)?;
    let (output, existing) = output(args, &plan);
    {
        let _guard = interrupt::writing();
        check_writable(&output)?;
        args.trace.as_deref().map(check_writable).transpose()?;
    }
    if plan.prompt.trim().is_empty() {
        eprintln!("note: the prompt is empty; the picture shows whatever the model likes");
    }

    tell_unknown(&model, &plan.prompt)?;

    let precision = model::precision(&args.model)?;
    if args.memory.is_some() && args.model.device != Device::Cpu {
        bail!("--memory is for the processor; leave it out with --device cuda");
    }
    let before = start.elapsed();
    eprintln!(
        "{}: {} steps of {}, guidance {}, seed {}, {}×{}, {}",
        model.name(),
        plan.steps,
        plan.sampler.name(),
        plan.guidance,
        plan.seed,
        plan.width,
        plan.height,
        precision_name(precision.resolve()),
    );
    let mut trace = args.trace.as_ref().map(|_| Trace::new());
    let mut progress = None;
    let memory = args.memory.map(|size| size.as_u64());
    let painted = model.paint(precision, memory, &plan, trace.as_mut(), &mut |step| {
        progress
            .get_or_insert_with(|| Progress::new("step", step.total()))
            .step(step.done());
        ControlFlow::Continue(())
    })?;
    drop(progress);
    for (which, cut) in [
        ("prompt", &painted.prompt_cut),
        ("negative prompt", &painted.negative_cut),
    ] {
        tell_cut(which, cut);
    }

    let write = Instant::now();
    let recipe = model.recipe(&plan, precision.resolve());
    let file = {
        let _guard = interrupt::writing();
        if let (Some(trace), Some(path)) = (&trace, &args.trace) {
            trace.write(path)?;
        }
        painted
            .image
            .write_png(&output, &recipe.text_chunks(), existing)?
    };
    eprintln!("{}", file.display());
    if args.json {
        let times = times(&painted, before, write.elapsed(), start.elapsed());
        println!(
            "{}",
            summary(&recipe, &file, args.trace.as_deref(), &painted, times)?
        );
    } else if !args.no_preview {
        show::on_terminal(&painted.image);
    }
    Ok(())
}

fn request(args: &GenerateArgs) -> Result<Request> {
    Ok(Request {
        prompt: args.prompt.clone(),
        negative: args.negative.clone(),
        steps: args.steps,
        guidance: args.guidance,
        seed: args.seed,
        sampler: args.sampler,
        schedule: args.schedule,
        eta: args.eta,
        width: args.width,
        height: args.height,
        init: args.init.as_deref().map(Image::read).transpose()?,
        mask: args.mask.as_deref().map(Mask::read).transpose()?,
        strength: args.strength,
        masked_content: args.masked_content,
        mask_blur: args.mask_blur,
        padding_mask_crop: args.padding_mask_crop,
    })
}

/// Where the picture goes. A name that a person gave is theirs to overwrite; one that we made up is not ours.
fn output(args: &GenerateArgs, plan: &Plan) -> (PathBuf, Existing) {
    match &args.output {
        Some(path) => (path.clone(), Existing::Replace),
        None => (
            PathBuf::from(file_name(&plan.prompt, plan.seed)),
            Existing::Keep,
        ),
    }
}

/// `a-red-car-on-a-beach-42.png`: the prompt's letters and digits, whole words as far as they fit, and the seed.
fn file_name(prompt: &str, seed: u64) -> String {
    let mut name = String::new();
    let words = prompt
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    for word in words {
        if name.chars().count() + word.chars().count() > NAME_LENGTH {
            break;
        }
        name.push_str(&word.to_lowercase());
        name.push('-');
    }
    if name.is_empty() {
        name.push_str("picture-");
    }
    format!("{name}{seed}.png")
}

/// Says which words of the prompt a small model has never seen, and what it knows.
fn tell_unknown(model: &Model, prompt: &str) -> Result<()> {
    let unknown = model.unknown_words(prompt)?;
    if unknown.is_empty() {
        return Ok(());
    }
    let things = &model.facts().advice.things;
    let unknown: Vec<String> = unknown.iter().map(|word| format!("{word:?}")).collect();
    eprintln!(
        "note: {} is a small model that has never seen {}. It paints {} things: {}. For anything else give it a full \
         model with --model DIR",
        model.name(),
        unknown.join(", "),
        things.len(),
        things.join(", "),
    );
    Ok(())
}

/// Says which words of a text were too many.
fn tell_cut(which: &str, words: &[String]) {
    if words.is_empty() {
        return;
    }
    let told = words[..words.len().min(WORDS_TOLD)].join(" ");
    let more = match words.len().saturating_sub(WORDS_TOLD) {
        0 => String::new(),
        more => format!(" … and {more} words more"),
    };
    eprintln!("note: the {which} is longer than the model reads; this was cut off: {told}{more}");
}

/// The stages' times in milliseconds.
fn times(painted: &Painted, before: Duration, write: Duration, total: Duration) -> Value {
    let steps: Vec<f64> = painted.steps.iter().copied().map(ms).collect();
    json!({
        "load": ms(before + painted.loading),
        "text_encoder": ms(painted.text_encoder),
        "sampling": ms(painted.steps.iter().sum()),
        "unet_step": median(&steps),
        "vae_decode": ms(painted.vae_decode),
        "write": ms(write),
        "total": ms(total),
    })
}

fn summary(
    recipe: &velatura::metadata::Recipe,
    file: &Path,
    trace: Option<&Path>,
    painted: &Painted,
    times: Value,
) -> Result<String> {
    let mut summary = serde_json::to_value(recipe)?;
    summary["file"] = json!(file);
    summary["trace"] = json!(trace);
    summary["prompt_cut"] = json!(painted.prompt_cut);
    summary["negative_prompt_cut"] = json!(painted.negative_cut);
    summary["times_ms"] = times;
    summary["peak_memory_mb"] = json!(peak_memory_mb());
    Ok(serde_json::to_string_pretty(&summary)?)
}

/// Milliseconds, to the microsecond.
pub fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// The middle of the values, or the mean of the two in the middle; none of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_whole_words() {
        assert_eq!(
            file_name("A red car, on a beach!", 42),
            "a-red-car-on-a-beach-42.png"
        );
        assert_eq!(file_name("../../etc/passwd", 1), "etc-passwd-1.png");
        assert_eq!(file_name("", 7), "picture-7.png");
        assert_eq!(
            file_name("ein Bär 🐻 im Schnee", 7),
            "ein-bär-im-schnee-7.png"
        );
        assert!(file_name(&"word ".repeat(1000), 7).len() < 64);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
