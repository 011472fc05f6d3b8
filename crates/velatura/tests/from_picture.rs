//! Pictures that begin with pictures against diffusers' StableDiffusionImg2ImgPipeline and
//! StableDiffusionInpaintPipeline (fixtures/make_pipeline_from_picture.py).

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use serde::Deserialize;
use support::{Expected, json, relative, topic};
use velatura::image::{Image, Mask};
use velatura::pipeline::{LoadOptions, Pipeline, PrecisionChoice, Preview, Request, Trace};
use velatura_tensor::Tensor;

/// The tolerances of text to picture (tests/pipeline.rs): latents, the encoder's part, and 2 of 255 in the picture.
const LATENTS: f64 = 1e-3;
const PARTS: f64 = 1e-4;
const PIXELS: u8 = 2;

/// One entry of the manifest.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    mode: String,
    model: String,
    prompt: String,
    negative: String,
    guidance_scale: f32,
    steps: usize,
    strength: f64,
    sampler: String,
    schedule: String,
    seed: u64,
    width: usize,
    height: usize,
    eta: f32,
}

impl Case {
    fn request(&self, folder: &Path) -> Request {
        let file = |what: &str| folder.join(format!("{}.{what}.png", self.name));
        Request {
            prompt: self.prompt.clone(),
            negative: Some(self.negative.clone()),
            steps: Some(self.steps),
            guidance: Some(self.guidance_scale),
            seed: Some(self.seed),
            sampler: Some(self.sampler.parse().unwrap()),
            schedule: Some(self.schedule.parse().unwrap()),
            eta: Some(self.eta),
            init: Some(Image::read(&file("init")).unwrap()),
            mask: (self.mode == "inpaint").then(|| Mask::read(&file("mask")).unwrap()),
            strength: Some(self.strength),
            ..Request::default()
        }
    }
}

fn traced(trace: &Trace, name: &str) -> Tensor {
    let (shape, values) = trace
        .get(name)
        .unwrap_or_else(|| panic!("the trace has no {name}"));
    Tensor::from_vec(values, shape)
}

#[test]
fn every_picture_is_diffusers_picture() {
    let (Some(pictures), Some(models)) = (topic("from_picture"), topic("models")) else {
        return;
    };
    let cases: Vec<Case> = serde_json::from_value(json(&pictures.join("manifest.json"))).unwrap();
    assert!(!cases.is_empty());
    let mut pipelines = BTreeMap::new();
    for case in cases {
        let expected = Expected::open(&pictures.join(format!("{}.safetensors", case.name)));
        let pipeline = pipelines.entry(case.model.clone()).or_insert_with(|| {
            let options = LoadOptions {
                precision: PrecisionChoice::F32,
                variant: None,
            };
            Pipeline::load(&models.join(&case.model), options).unwrap()
        });
        let request = case.request(&pictures);
        let plan = pipeline.model().plan(&request).unwrap();
        assert_eq!((plan.width, plan.height), (case.width, case.height));
        assert_eq!(plan.mode(), case.mode);
        let mut trace = Trace::new();
        let mut seen = Vec::new();
        let painted = pipeline
            .paint(&plan, Some(&mut trace), &mut |step| {
                seen.push((step.done(), step.total()));
                ControlFlow::Continue(())
            })
            .unwrap();
        let compare = |name: &str, tolerance: f64| {
            let difference = relative(&traced(&trace, name), &expected.plain(name));
            assert!(
                difference <= tolerance,
                "{}: {name} differs by {difference:.2e}",
                case.name
            );
            difference
        };
        let encoded = compare("init_latents", PARTS);
        compare("noise", 1e-6);
        compare("timesteps", 1e-6);
        let steps = expected.numbers("latents.");
        let count = steps.len();
        assert_eq!(
            seen,
            (1..=count).map(|step| (step, count)).collect::<Vec<_>>(),
            "{}",
            case.name
        );
        let latents = steps
            .iter()
            .map(|step| compare(&format!("latents.{step}"), LATENTS))
            .fold(0.0, f64::max);

        let theirs = Image::read(&pictures.join(format!("{}.png", case.name))).unwrap();
        let init = request.init.unwrap();
        let mut largest = 0;
        for (i, ours) in painted.image.pixels().chunks_exact(3).enumerate() {
            let at = 3 * i..3 * i + 3;
            let stays = request.mask.as_ref().is_some_and(|mask| !mask.painted()[i]);
            if stays {
                assert_eq!(ours, &init.pixels()[at], "{}: pixel {i}", case.name);
                continue;
            }
            for (ours, theirs) in ours.iter().zip(&theirs.pixels()[at]) {
                largest = largest.max(ours.abs_diff(*theirs));
            }
        }
        println!(
            "{}: encoder {encoded:.1e}, latents {latents:.1e}, picture {largest}/255",
            case.name
        );
        assert!(
            largest <= PIXELS,
            "{}: the pictures differ by {largest}/255",
            case.name
        );

        let mut preview = Preview::new(4);
        preview.learn(&painted.latents, &painted.image);
        let small = preview.of(&painted.latents).unwrap();
        assert_eq!(
            (small.width(), small.height()),
            (painted.latents.dim(2), painted.latents.dim(1))
        );
    }
}

#[test]
fn what_cannot_be_is_refused_and_names_the_field() {
    let Some(models) = topic("models") else {
        return;
    };
    let pipeline = Pipeline::load(&models.join("sd15"), LoadOptions::default()).unwrap();
    let picture =
        |width: usize, height: usize| Image::new(width, height, vec![128; width * height * 3]);
    let mask = |width: usize, height: usize| Mask::new(width, height, vec![true; width * height]);
    let refused = |request: Request, parts: &[&str]| {
        let error = pipeline.model().plan(&request).unwrap_err();
        assert!(error.is_usage(), "{error}");
        for part in parts {
            assert!(
                error.to_string().contains(part),
                "{part:?} is not in: {error}"
            );
        }
    };
    let request = || Request {
        steps: Some(10),
        init: Some(picture(64, 64)),
        ..Request::default()
    };
    refused(
        Request {
            init: Some(picture(65, 64)),
            ..request()
        },
        &["width", "65", "64"],
    );
    refused(
        Request {
            mask: Some(mask(64, 72)),
            ..request()
        },
        &["mask", "64×64", "64×72"],
    );
    for strength in [0.0, -1.0, 1.5, f64::NAN, f64::INFINITY] {
        refused(
            Request {
                strength: Some(strength),
                ..request()
            },
            &["strength", "up to 1"],
        );
    }
    refused(
        Request {
            strength: Some(0.05),
            ..request()
        },
        &["strength", "one of 10 steps", "0.1"],
    );
    refused(
        Request {
            init: None,
            mask: Some(mask(64, 64)),
            ..request()
        },
        &["mask", "init"],
    );
    refused(
        Request {
            init: None,
            strength: Some(0.5),
            ..request()
        },
        &["strength", "init"],
    );

    // Asked for another size, the picture and its mask are scaled.
    let scaled = Request {
        init: Some(picture(30, 50)),
        mask: Some(mask(30, 50)),
        width: Some(64),
        height: Some(72),
        ..request()
    };
    let plan = pipeline.model().plan(&scaled).unwrap();
    let init = plan.init.unwrap();
    assert_eq!((init.image.width(), init.image.height()), (64, 72));
    assert!(init.mask.unwrap().painted().iter().all(|painted| *painted));
}
