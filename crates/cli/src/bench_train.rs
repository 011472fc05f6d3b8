//! `velatura bench --train`: how long a training step takes, optimiser included.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use velatura::Error;
use velatura_kernels::{pool, profile};
use velatura_tensor::Precision;
use velatura_train::bench::Bench;

use crate::args::{BenchArgs, PrecisionArg, TrainedPart};
use crate::bench::{Peaks, layers};
use crate::generate::{median, ms};
use crate::progress::peak_memory_mb;

pub fn run(args: &BenchArgs, part: TrainedPart) -> Result<()> {
    if let Some(threads) = args.model.threads {
        pool::set_threads(usize::from(threads));
    }
    let precision = match args.model.precision {
        PrecisionArg::F32 => Precision::F32,
        PrecisionArg::Auto | PrecisionArg::Bf16 => Precision::Bf16,
        PrecisionArg::Int8 => {
            let expected = "f32 or bf16: 8-bit integers have no gradients";
            return Err(Error::request("--precision", expected, "int8").into());
        }
    };
    let (name, mut bench) = match part {
        TrainedPart::Unet => ("unet", Bench::unet(precision)?),
        TrainedPart::Vae => ("vae", Bench::vae(precision)?),
    };
    // The first two steps fill caches and buffers, and are not counted.
    let first = bench.step();
    bench.step();
    let mut last = first;
    let times: Vec<f64> = (0..args.repeat)
        .map(|_| {
            let start = Instant::now();
            last = bench.step();
            ms(start.elapsed())
        })
        .collect();
    let step = median(&times).unwrap_or_default();
    let peak = peak_memory_mb();
    let (_, events) = profile::record(|| bench.step());
    let gflop = events.iter().map(|event| event.flops).sum::<f64>() / 1e9;
    let mut report = json!({
        "train": name,
        "precision": format!("{precision:?}").to_lowercase(),
        "threads": pool::threads(),
        "parameters": bench.parameters,
        "batch": bench.batch,
        "gflop": gflop,
        "repeat": args.repeat,
        "step_ms": step,
        "steps_ms": times,
        "peak_rss_mb": peak,
        "loss": [first, last],
    });
    let layers = if args.layers {
        layers(events, &Peaks::measure())
    } else {
        Vec::new()
    };
    if args.json {
        if args.layers {
            report["layers"] = json!(layers);
        }
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!(
        "{name}, {:.1} million parameters, batch {}, {precision:?}",
        bench.parameters as f64 / 1e6,
        bench.batch
    );
    println!(
        "step_ms          {step:10.1}   {gflop:.0} GFLOP, {:.0} GFLOP/s",
        gflop / step * 1e3
    );
    layers.iter().for_each(|layer| println!("  {layer}"));
    if let Some(peak) = peak {
        println!("peak_rss_mb      {peak:10.1}");
    }
    Ok(())
}
