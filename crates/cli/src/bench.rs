//! `velatura bench`: how long each stage of a model takes.

use std::fmt;
use std::time::Instant;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::json;
use velatura::pipeline::{Request, Stage};
use velatura_kernels::gemm::Precision;
use velatura_kernels::peak::peak;
use velatura_kernels::profile::{self, Event};
use velatura_tensor::device::Device;

use crate::args::BenchArgs;
use crate::generate::{median, ms};
use crate::progress::peak_memory_mb;
use crate::{bench_train, device, interrupt, model};

/// All calls with the same sizes.
#[derive(Serialize)]
pub struct Layer {
    layer: String,
    algorithm: String,
    calls: usize,
    ms: f64,
    gflops: f64,
    /// Of the peak of its number format; more than 1 where fewer operations are made than are counted.
    share_of_peak: Option<f64>,
}

/// What the machine can do at all, in GFLOP/s.
#[derive(Serialize)]
pub struct Peaks {
    f32: Option<f64>,
    bf16: Option<f64>,
    int8: Option<f64>,
}

impl Peaks {
    pub fn measure() -> Peaks {
        let [f32, bf16, int8] =
            [Precision::F32, Precision::Bf16, Precision::Int8].map(|format| peak(format, 100));
        Peaks { f32, bf16, int8 }
    }

    /// That of the number format which is a word of an algorithm's name.
    fn of(&self, algorithm: &str) -> Option<f64> {
        let has = |word| algorithm.split_whitespace().any(|w| w == word);
        if has("int8") {
            self.int8
        } else if has("dot") || has("amx") {
            self.bf16
        } else {
            self.f32
        }
    }
}

impl fmt::Display for Peaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peak GFLOP/s    ")?;
        for (name, peak) in [("f32", self.f32), ("bf16", self.bf16), ("int8", self.int8)] {
            if let Some(peak) = peak {
                write!(f, " {name} {peak:.0}")?;
            }
        }
        Ok(())
    }
}

pub fn run(args: &BenchArgs) -> Result<()> {
    interrupt::end_at_once();
    if let Some(part) = args.train {
        return device::on(args.model.device, || bench_train::run(args, part));
    }
    if args.model.device != Device::Cpu {
        bail!("stages are measured on the processor; with --device cuda there is --train");
    }
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
    let (stages, mut trace) = pipeline.stages(&plan, args.batch.into())?;
    let mut report = json!({
        "model": model.name(),
        "width": plan.width,
        "height": plan.height,
        "batch": args.batch,
        "precision": pipeline.precision_name(),
        "threads": velatura_kernels::pool::threads(),
        "repeat": args.repeat,
    });
    let asked =
        |stage: &Stage| args.stages.is_empty() || args.stages.iter().any(|s| s == stage.name);
    for stage in stages.into_iter().filter(asked) {
        // The first run fills caches and buffers, and is not counted.
        let output = stage.run();
        if args.trace.is_some() {
            match output.shape() {
                [_, _, _, _] => trace.image(stage.name, &output),
                shape => trace.floats(stage.name, output.as_slice(), shape),
            }
        }
        drop(output);
        let times: Vec<f64> = (0..args.repeat)
            .map(|_| {
                let start = Instant::now();
                stage.run();
                ms(start.elapsed())
            })
            .collect();
        let median = median(&times);
        let name = format!("{}_ms", stage.name);
        report[&name] = json!(median);
        if !args.json {
            println!("{name:16} {:10.1}", median.unwrap_or_default());
        }
        if args.layers {
            let peaks = Peaks::measure();
            let layers = layers(profile::record(|| stage.run()).1, &peaks);
            if args.json {
                report["peak_gflops"] = json!(peaks);
                report[format!("{}_layers", stage.name)] = json!(layers);
            } else {
                println!("{peaks}");
                layers.iter().for_each(|layer| println!("  {layer}"));
            }
        }
    }
    if let Some(path) = &args.trace {
        trace.write(path)?;
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

/// Equal calls added up, the longest first.
pub fn layers(events: Vec<Event>, peaks: &Peaks) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    let mut flops = Vec::new();
    for event in events {
        let same = |l: &Layer| l.layer == event.name && l.algorithm == event.algorithm;
        let index = layers.iter().position(same).unwrap_or_else(|| {
            layers.push(Layer {
                layer: event.name.clone(),
                algorithm: event.algorithm.clone(),
                calls: 0,
                ms: 0.0,
                gflops: 0.0,
                share_of_peak: None,
            });
            flops.push(0.0);
            layers.len() - 1
        });
        layers[index].calls += 1;
        layers[index].ms += ms(event.time);
        flops[index] += event.flops;
    }
    for (layer, flops) in layers.iter_mut().zip(flops) {
        layer.gflops = flops / layer.ms / 1e6;
        let peak = peaks.of(&layer.algorithm).filter(|_| flops > 0.0);
        layer.share_of_peak = peak.map(|peak| layer.gflops / peak);
    }
    layers.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    layers
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Layer {
            layer,
            algorithm,
            calls,
            ms,
            gflops,
            share_of_peak,
        } = self;
        write!(
            f,
            "{layer:44} {algorithm:14} {calls:4} × {:9.3} ms = {ms:9.1} ms",
            ms / *calls as f64
        )?;
        if *gflops > 0.0 {
            write!(f, " {gflops:7.0} GFLOP/s")?;
        }
        if let Some(share) = share_of_peak {
            write!(f, " {:4.0} %", 100.0 * share)?;
        }
        Ok(())
    }
}
