//! Pictures that begin with pictures against diffusers' StableDiffusionImg2ImgPipeline and
//! StableDiffusionInpaintPipeline (fixtures/make_pipeline_from_picture.py).

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use serde::Deserialize;
use support::{Expected, json, relative, topic};
use velatura::image::{Image, Mask};
use velatura::pipeline::{
    LoadOptions, MaskedContent, Pipeline, PrecisionChoice, Preview, Request, Trace,
};
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

/// One mask, and the field that diffusers repaints around it.
#[derive(Debug, Deserialize)]
struct Crop {
    width: usize,
    height: usize,
    painted: Vec<[usize; 4]>,
    padding: usize,
    to: [usize; 2],
    region: [usize; 4],
}

#[test]
fn the_field_around_a_mask_is_that_of_diffusers() {
    let Some(cases) = topic("crop_regions") else {
        return;
    };
    let cases: Vec<Crop> = serde_json::from_value(json(&cases.join("cases.json"))).unwrap();
    assert!(cases.len() > 100);
    for case in cases {
        let painted = |i: usize| {
            let (x, y) = (i % case.width, i / case.width);
            let mut boxes = case.painted.iter();
            boxes.any(|[left, top, right, bottom]| {
                (*left..*right).contains(&x) && (*top..*bottom).contains(&y)
            })
        };
        let bits = (0..case.width * case.height).map(painted).collect();
        let region = Mask::new(case.width, case.height, bits)
            .region(case.padding, case.to[0], case.to[1])
            .unwrap();
        let found = [
            region.x,
            region.y,
            region.x + region.width,
            region.y + region.height,
        ];
        assert_eq!(found, case.region, "{case:?}");
    }
}

#[test]
fn a_masked_part_is_repainted_alone_and_from_what_it_shall_hold() {
    let Some(models) = topic("models") else {
        return;
    };
    let pipeline = Pipeline::load(&models.join("sd15"), LoadOptions::default()).unwrap();
    let (width, height) = (100, 70);
    let pixels =
        (0..width * height).flat_map(|i| [(i % width * 2) as u8, (i / width * 3) as u8, 40]);
    let picture = Image::new(width, height, pixels.collect());
    let bits = (0..width * height)
        .map(|i| (60..76).contains(&(i % width)) && (20..44).contains(&(i / width)));
    let mask = Mask::new(width, height, bits.collect());
    let request = |content, padding| Request {
        prompt: "a house".to_string(),
        init: Some(picture.clone()),
        mask: Some(mask.clone()),
        masked_content: Some(content),
        padding_mask_crop: padding,
        strength: Some(0.6),
        steps: Some(5),
        seed: Some(3),
        width: Some(64),
        height: Some(64),
        ..Request::default()
    };
    let paint = |request: &Request| {
        let plan = pipeline.model().plan(request).unwrap();
        let painted = pipeline.paint(&plan, None, &mut |_| ControlFlow::Continue(()));
        (plan, painted.unwrap().image)
    };
    let mut seen = Vec::new();
    for content in MaskedContent::ALL {
        let (plan, image) = paint(&request(content, Some(8)));
        let whole = plan.init.as_ref().unwrap().whole.as_ref().unwrap();
        assert_eq!((whole.region.width, whole.region.height), (40, 40));
        // The picture keeps its size, and everything outside the mask its pixels.
        assert_eq!((image.width(), image.height()), (width, height));
        let pairs = image.pixels().chunks(3).zip(picture.pixels().chunks(3));
        let mut changed = 0;
        for ((new, old), painted) in pairs.zip(mask.painted()) {
            assert!(*painted || new == old);
            changed += usize::from(new != old);
        }
        assert!(changed > 300, "{changed} of 384 changed");
        let recipe = pipeline.recipe(&plan).parameters();
        assert!(
            recipe.contains("Inpaint area: Only masked, Masked area padding: 8"),
            "{recipe}"
        );
        assert!(!seen.contains(&image), "{content} is another picture");
        seen.push(image);
    }
    // Nothing is said of padding: within the whole picture, in the size asked for.
    let (plan, image) = paint(&request(MaskedContent::Original, None));
    assert_eq!((image.width(), plan.init.unwrap().whole), (64, None));

    let empty = Request {
        mask: Some(Mask::new(width, height, vec![false; width * height])),
        ..request(MaskedContent::Fill, Some(0))
    };
    let error = pipeline.model().plan(&empty).unwrap_err();
    assert!(
        error.is_usage() && error.to_string().contains("mask"),
        "{error}"
    );
    let lonely = Request {
        mask: None,
        ..request(MaskedContent::Fill, None)
    };
    let error = pipeline.model().plan(&lonely).unwrap_err();
    assert!(error.to_string().contains("masked_content"), "{error}");
}
