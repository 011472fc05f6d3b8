//! Pictures that are painted at once share the UNet's batches, and are the pictures that are painted alone.

mod support;

use std::ops::ControlFlow;
use std::sync::Barrier;
use std::thread;

use support::topic;
use velatura::Error;
use velatura::diffusion::Sampler;
use velatura::image::Image;
use velatura::pipeline::{LoadOptions, Pipeline, Plan, PrecisionChoice, Request};

/// One picture for each sampler, of one size; everything else differs: steps, guidance or none, prompts, noise.
fn plans(pipeline: &Pipeline) -> Vec<Plan> {
    let request = |(i, sampler): (usize, Sampler)| Request {
        prompt: format!("a photo of {i} cats"),
        negative: Some(["", "dark"][i % 2].to_string()),
        steps: Some(4 + i),
        guidance: Some([7.5, 1.0, 3.0][i % 3]),
        seed: Some(i as u64),
        sampler: Some(sampler),
        eta: Some(0.5),
        width: Some(64),
        height: Some(64),
        ..Request::default()
    };
    let samplers = Sampler::ALL.into_iter().enumerate();
    let mut plans: Vec<Plan> = samplers
        .map(|which| pipeline.model().plan(&request(which)).unwrap())
        .collect();
    // And one that begins with a picture.
    let begun = Request {
        init: Some(Image::new(64, 64, vec![90; 64 * 64 * 3])),
        strength: Some(0.6),
        ..request((9, Sampler::Euler))
    };
    plans.push(pipeline.model().plan(&begun).unwrap());
    plans
}

#[test]
fn pictures_painted_at_once_are_those_painted_alone() {
    let Some(models) = topic("models") else {
        return;
    };
    for (model, precision) in [
        ("sd15", PrecisionChoice::F32),
        ("sd15", PrecisionChoice::Bf16),
        ("sd21", PrecisionChoice::F32),
    ] {
        let options = LoadOptions {
            precision,
            variant: None,
        };
        let pipeline = Pipeline::load(&models.join(model), options).unwrap();
        let plans = plans(&pipeline);
        let alone: Vec<_> = plans
            .iter()
            .map(|plan| {
                let painted = pipeline.paint(plan, None, &mut |_| ControlFlow::Continue(()));
                painted.unwrap()
            })
            .collect();
        // One is cancelled in the middle, which is nobody else's matter.
        let cancelled = 3;
        let begin = Barrier::new(plans.len());
        let together: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = plans
                .iter()
                .enumerate()
                .map(|(i, plan)| {
                    let (pipeline, begin) = (&pipeline, &begin);
                    scope.spawn(move || {
                        begin.wait();
                        pipeline.paint(plan, None, &mut |step| {
                            if i == cancelled && step.done() == 2 {
                                return ControlFlow::Break(());
                            }
                            ControlFlow::Continue(())
                        })
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        for (i, (together, alone)) in together.into_iter().zip(&alone).enumerate() {
            if i == cancelled {
                assert!(matches!(together, Err(Error::Cancelled)));
                continue;
            }
            let together = together.unwrap();
            assert_eq!(
                together.latents.as_slice(),
                alone.latents.as_slice(),
                "{model}, {precision:?}: {}",
                plans[i].sampler
            );
            assert_eq!(together.image, alone.image);
        }
    }
}
