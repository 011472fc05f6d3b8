//! `velatura bench`: how long each stage of a model takes.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use velatura::pipeline::Request;

use crate::args::BenchArgs;
use crate::generate::{median, ms};
use crate::progress::peak_memory_mb;
use crate::{interrupt, model};

pub fn run(args: &BenchArgs) -> Result<()> {
    interrupt::end_at_once();
    let model = model::open(&args.model)?;
    let request = Request {
        prompt: "a red car on a beach at sunset".into(),
        width: args.width,
        height: args.height,
        seed: Some(0),
        ..Request::default()
    };
    let plan = model.plan(&request)?;
    let pipeline = model.load(args.model.precision.into())?;
    let stages = pipeline.stages(&plan)?;
    let mut report = json!({
        "model": model.name(),
        "width": plan.width,
        "height": plan.height,
        "precision": pipeline.precision_name(),
        "threads": velatura_kernels::pool::threads(),
        "repeat": args.repeat,
    });
    for (name, stage) in [
        ("text_encoder_ms", &stages.text_encoder),
        ("unet_step_ms", &stages.unet_step),
        ("vae_encode_ms", &stages.vae_encode),
        ("vae_decode_ms", &stages.vae_decode),
    ] {
        // The first run fills caches and buffers, and is not counted.
        stage();
        let times: Vec<f64> = (0..args.repeat)
            .map(|_| {
                let start = Instant::now();
                stage();
                ms(start.elapsed())
            })
            .collect();
        let median = median(&times);
        report[name] = json!(median);
        if !args.json {
            println!("{name:16} {:10.1}", median.unwrap_or_default());
        }
    }
    let peak = peak_memory_mb();
    report["peak_rss_mb"] = json!(peak);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else if let Some(peak) = peak {
        println!("{:16} {peak:10.1}", "peak_rss_mb");
    }
    Ok(())
}
