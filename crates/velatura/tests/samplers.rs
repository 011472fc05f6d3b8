//! Noise schedules and samplers against diffusers. The cases come from the folder `samplers`, which
//! `fixtures/make_samplers.py` writes; its `model` is written down a second time here.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use velatura::diffusion::{
    NoiseSchedule, Options, PredictionType, Sampler, SamplerSchedule, SchedulerConfig, guidance,
    sample,
};
use velatura::{Error, Result};
use velatura_tensor::Tensor;
use velatura_tensor::random::TorchGenerator;

const SHAPE: [usize; 4] = [1, 4, 4, 4];

#[derive(Deserialize)]
struct Case {
    sampler: String,
    config: Value,
    steps: usize,
    seed: u64,
    eta: f32,
    guidance: f32,
    init_noise_sigma: f32,
    kept: Vec<usize>,
    next: u32,
}

#[derive(Deserialize)]
struct ScheduleCase {
    config: Value,
    timesteps: Vec<usize>,
}

/// The folder of this topic's fixtures; `None` when `VELATURA_FIXTURES` names a folder without the topic.
fn fixtures() -> Option<PathBuf> {
    let given = std::env::var_os("VELATURA_FIXTURES");
    let root = given.clone().map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data"),
        PathBuf::from,
    );
    let folder = root.join("samplers");
    if given.is_some() && !folder.is_dir() {
        println!("no `samplers` in {}: skipped", root.display());
        return None;
    }
    Some(folder)
}

/// The cases of a file, of which there must be some, and the tensors of another.
fn load<T: DeserializeOwned>(json: &Path, tensors: &Path) -> (Vec<T>, BTreeMap<String, Vec<f32>>) {
    let cases: Vec<T> = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert!(!cases.is_empty(), "no cases in {}", json.display());
    let bytes = std::fs::read(tensors).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |data: &[u8]| {
        let (numbers, _) = data.as_chunks::<4>();
        numbers
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()
    };
    let tensors = tensors
        .iter()
        .map(|(name, view)| (name.to_owned(), floats(view.data())))
        .collect();
    (cases, tensors)
}

/// ‖a − b‖/‖b‖
fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f32>| {
        values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
    };
    let error = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
    error / norm(&mut b.iter().copied()).max(1e-30)
}

/// The formula of the fixtures: x is mixed with a permutation of itself and a pattern.
fn model(x: &Tensor, t: &[f32], context: &Tensor) -> Result<Tensor> {
    let flat = x.nhwc_to_nchw();
    let len = flat.len() / t.len();
    let mut out = Vec::with_capacity(flat.len());
    for (b, x) in flat.as_slice().chunks_exact(len).enumerate() {
        let (u, context) = (f64::from(t[b]) / 1000.0, context.as_slice()[b]);
        // The factors are f64 and the products f32, as in Python.
        let own = (0.45 + 0.5 * u) as f32;
        let mixed = (0.2 * u * (1.0 - u)) as f32;
        let other = (0.3 - 0.2 * u) as f32;
        out.extend((0..len).map(|i| {
            let pattern = (i % 5) as f32 / 2.0 - 1.0;
            x[i] * own + x[(i * 7 + 3) % len] * mixed + context * pattern * other
        }));
    }
    Ok(Tensor::from_vec(out, flat.shape()).nchw_to_nhwc())
}

/// Runs a case; the latents after each evaluation (NCHW) and what the generator gives next.
fn run(case: &Case, schedule: &SamplerSchedule) -> (Vec<Vec<f32>>, u32) {
    let mut generator = TorchGenerator::new(case.seed);
    let noise = Tensor::from_vec(generator.randn(SHAPE.iter().product()), &SHAPE).nchw_to_nhwc();
    let context = if guidance::is_guided(case.guidance) {
        vec![-0.5, 1.0]
    } else {
        vec![1.0]
    };
    let context = Tensor::from_vec(context.clone(), &[context.len(), 1, 1]);
    let mut rows = Vec::new();
    let result = sample(
        schedule,
        Options {
            eta: case.eta,
            ..Options::default()
        },
        &mut |x, t| {
            let mut model = |x: &Tensor, t| model(x, &vec![t; x.dim(0)], &context);
            guidance::predict(&mut model, x, t, case.guidance)
        },
        schedule.start(&noise),
        &mut generator,
        &mut |step| {
            assert_eq!(
                (step.index, step.total),
                (rows.len(), schedule.evaluations())
            );
            assert!(step.predicted_x0().is_finite());
            rows.push(step.latents.nhwc_to_nchw().to_vec());
            ControlFlow::Continue(())
        },
    );
    let result = result.unwrap().nhwc_to_nchw().to_vec();
    assert_eq!(rows.last(), Some(&result), "the last step is the result");
    (rows, generator.randint(1 << 24, 1)[0])
}

#[test]
fn every_sampler_walks_as_in_diffusers() {
    let Some(folder) = fixtures() else {
        return;
    };
    let (cases, tensors) = load::<Case>(
        &folder.join("cases.json"),
        &folder.join("samplers.safetensors"),
    );
    let mut worst = BTreeMap::<String, (f64, String)>::new();
    let mut failures = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        let place = format!(
            "case {n}: {} steps of {}, {}",
            case.steps, case.sampler, case.config
        );
        let config = SchedulerConfig::from_value(case.config.clone()).unwrap();
        let sampler: Sampler = case.sampler.parse().unwrap();
        assert_eq!(sampler, config.sampler, "{place}");
        let schedule = match SamplerSchedule::new(&config, sampler, None, case.steps) {
            Ok(schedule) => schedule,
            Err(error) => {
                failures.push(format!("{place}: {error}"));
                continue;
            }
        };
        let close = |a: f32, b: f32| (a - b).abs() <= 2e-6 * b.abs().max(1.0);
        let timesteps = &tensors[&format!("{n}.timesteps")];
        let sigmas = tensors
            .get(&format!("{n}.sigmas"))
            .map_or(&[][..], Vec::as_slice);
        // Fractional timesteps are read off a table of logarithms in f32, so they carry its rounding.
        let near = |a: &f32, b: &f32| (a - b).abs() <= if b.fract() == 0.0 { 0.0 } else { 1e-3 };
        let same_times = timesteps.len() == schedule.timesteps.len()
            && schedule
                .timesteps
                .iter()
                .zip(timesteps)
                .all(|(a, b)| near(a, b) || near(b, a));
        let same_sigmas = sigmas.len() == schedule.sigmas.len()
            && schedule
                .sigmas
                .iter()
                .zip(sigmas)
                .all(|(&a, &b)| close(a, b));
        if !same_times || !same_sigmas || !close(schedule.init_noise_sigma, case.init_noise_sigma) {
            failures.push(format!(
                "{place}: timesteps {:?}, expected {timesteps:?}; sigmas {:?}, expected {sigmas:?}",
                schedule.timesteps, schedule.sigmas
            ));
            continue;
        }
        let (rows, next) = run(case, &schedule);
        assert_eq!(
            next, case.next,
            "{place}: the generator has drawn another number of times"
        );
        let expected = tensors[&format!("{n}.latents")].chunks_exact(rows[0].len());
        for (&i, expected) in case.kept.iter().zip(expected) {
            let error = relative(&rows[i], expected);
            let entry = worst.entry(case.sampler.clone()).or_default();
            if error >= entry.0 {
                *entry = (error, place.clone());
            }
            if error.is_nan() || error > 1e-3 {
                failures.push(format!(
                    "{place}: after evaluation {i} the relative error is {error:.1e}"
                ));
            }
        }
    }
    println!("{} cases; largest relative errors:", cases.len());
    for (sampler, (error, place)) in worst {
        println!("  {sampler:8} {error:.1e}  {place}");
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn noise_schedules_are_those_of_diffusers() {
    let Some(folder) = fixtures() else {
        return;
    };
    let (cases, tensors) = load::<ScheduleCase>(
        &folder.join("schedules.json"),
        &folder.join("schedules.safetensors"),
    );
    let tensor = |name: &str| {
        let values = tensors[name].clone();
        let each = values.len() / cases[0].timesteps.len();
        Tensor::from_vec(values, &[cases[0].timesteps.len(), each])
    };
    let (x0, noise) = (tensor("x0"), tensor("noise"));
    for (n, case) in cases.iter().enumerate() {
        let config = SchedulerConfig::from_value(case.config.clone()).unwrap();
        let schedule = NoiseSchedule::new(&config.settings(config.sampler).unwrap());
        let alphas = &tensors[&format!("{n}.alphas_cumprod")];
        if case.config["rescale_betas_zero_snr"] == true {
            // Rescaling takes square roots, and PyTorch's vectorised ones may be off by one in the last place: 2⁻²⁴ for
            // √ᾱ and for the last √ᾱ that is subtracted, so 2·2·2⁻²⁴ for ᾱ, and one rounding more.
            let pairs = schedule.alphas_cumprod.iter().zip(alphas);
            let largest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(
                largest <= 5.0 * 2f32.powi(-24),
                "{}: {largest:.1e}",
                case.config
            );
            assert_eq!(schedule.alphas_cumprod.last(), Some(&0.0));
        } else {
            let betas = &tensors[&format!("{n}.betas")];
            assert_eq!(&schedule.betas, betas, "betas of {}", case.config);
            assert_eq!(
                &schedule.alphas_cumprod, alphas,
                "alphas_cumprod of {}",
                case.config
            );
        }
        let noisy = schedule.add_noise(&x0, &noise, &case.timesteps);
        let target = PredictionType::VPrediction.target(&schedule, &x0, &noise, &case.timesteps);
        for (found, name) in [(noisy, "noisy"), (target, "velocity")] {
            let error = relative(found.as_slice(), &tensors[&format!("{n}.{name}")]);
            assert!(error < 1e-6, "{name} of {}: {error:.1e}", case.config);
        }
    }
}

fn config(fields: Value) -> SchedulerConfig {
    SchedulerConfig::from_value(fields).unwrap()
}

fn walk(
    model: &mut dyn FnMut(&Tensor, f32) -> Result<Tensor>,
    cancel_at: usize,
) -> (Result<Tensor>, usize) {
    let config = config(serde_json::json!({"_class_name": "EulerDiscreteScheduler"}));
    let schedule = SamplerSchedule::new(&config, Sampler::Euler, None, 8).unwrap();
    let mut generator = TorchGenerator::new(0);
    let x = schedule.start(&Tensor::full(&[1, 2, 2, 4], 1.0));
    let mut seen = 0;
    let result = sample(
        &schedule,
        Options::default(),
        model,
        x,
        &mut generator,
        &mut |step| {
            seen += 1;
            match step.index == cancel_at {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        },
    );
    (result, seen)
}

#[test]
fn the_callback_can_cancel() {
    let (result, seen) = walk(&mut |x, _| Ok(x.clone()), 3);
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(seen, 4);
}

#[test]
fn a_nan_from_the_model_names_the_step() {
    let mut calls = 0;
    let mut breaks = |x: &Tensor, _| {
        calls += 1;
        Ok(Tensor::full(
            x.shape(),
            if calls == 3 { f32::NAN } else { 0.1 },
        ))
    };
    let (result, seen) = walk(&mut breaks, usize::MAX);
    let message = result.map(|_| ()).unwrap_err().to_string();
    assert!(message.starts_with("step 3 of 8"), "{message}");
    assert_eq!(seen, 2);
}

#[test]
fn impossible_configs_and_requests_are_named() {
    use serde_json::json;
    let complaint = |fields: Value, steps: usize| {
        let schedule = SchedulerConfig::from_value(fields)
            .and_then(|config| SamplerSchedule::new(&config, config.sampler, None, steps));
        schedule.map(|_| ()).unwrap_err().to_string()
    };
    let table = [
        (json!({"beta_schedule": "cosine"}), 5, "`beta_schedule`"),
        (json!({"beta_end": 1.5}), 5, "`beta_end`"),
        (json!({"prediction_type": "flow"}), 5, "`prediction_type`"),
        (
            json!({"num_train_timesteps": 0}),
            5,
            "`num_train_timesteps`",
        ),
        (
            json!({"num_train_timesteps": "many"}),
            5,
            "`num_train_timesteps`",
        ),
        (json!({"thresholding": true}), 5, "`thresholding`"),
        (json!({"variance_type": "learned"}), 5, "`variance_type`"),
        (json!({"steps_offset": -1}), 5, "`steps_offset`"),
        (json!({"trained_betas": [0.1, 0.2]}), 5, "`trained_betas`"),
        (
            json!({"trained_betas": [0.1, 2.0], "num_train_timesteps": 2}),
            1,
            "`trained_betas[1]`",
        ),
        (json!({"_class_name": "LCMScheduler"}), 5, "`_class_name`"),
        (
            json!({"_class_name": "PNDMScheduler", "prediction_type": "sample"}),
            5,
            "`prediction_type`",
        ),
        (
            json!({"_class_name": "PNDMScheduler"}),
            3,
            "steps: expected a number from 4",
        ),
        (
            json!({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}),
            5,
            "`solver_order`",
        ),
        (
            json!({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true, "use_exponential_sigmas": true}),
            5,
            "`use_exponential_sigmas`",
        ),
        (
            json!({"rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}),
            5,
            "`prediction_type`",
        ),
        (json!({}), 0, "steps: expected a number from 1 to 1000"),
        (json!({}), 1001, "steps: expected a number from 1 to 1000"),
        (json!({"steps_offset": 1}), 1000, "steps"),
        (json!([]), 5, "expected a JSON object"),
    ];
    for (fields, steps, expected) in table {
        let message = complaint(fields.clone(), steps);
        assert!(message.contains(expected), "{fields}: {message}");
    }
    let karras = "karras".parse().unwrap();
    let asked = SamplerSchedule::new(&config(json!({})), Sampler::Ddim, Some(karras), 5);
    let message = asked.map(|_| ()).unwrap_err().to_string();
    assert!(
        message.starts_with("schedule: expected normal"),
        "{message}"
    );
}

#[test]
fn pythons_infinity_is_understood() {
    let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "note": "NaN \" Infinity", "lambda_min_clipped": -Infinity}"#;
    let config = SchedulerConfig::from_json(text).unwrap();
    let settings = config.settings(config.sampler).unwrap();
    assert_eq!(settings.lambda_min_clipped, f64::NEG_INFINITY);
    assert_eq!(config.value()["note"], "NaN \" Infinity");
    assert!(SchedulerConfig::from_json("{").is_err());
}

#[test]
fn a_field_left_open_takes_the_default_of_the_class_that_samples() {
    let pndm = config(serde_json::json!({"_class_name": "PNDMScheduler", "skip_prk_steps": true}));
    let first = |config: &SchedulerConfig, sampler| {
        SamplerSchedule::new(config, sampler, None, 10)
            .unwrap()
            .timesteps[0]
    };
    assert_eq!(first(&pndm, Sampler::Pndm), 900.0);
    assert_eq!(first(&pndm, Sampler::Euler), 999.0);
    // The pipeline's correction of steps_offset reaches the file's own sampler only, because the field is open.
    let changed = |sampler| first(&pndm.in_stable_diffusion(sampler), sampler);
    assert_eq!(changed(Sampler::Pndm), 901.0);
    assert_eq!(changed(Sampler::Ddim), 900.0);
}
