//! How AUTOMATIC1111's web UI spells requests and answers.
//!
//! Its requests have some seventy fields, most of which do nothing unless they are set to something. A field is either
//! honoured, or harmless (`refused::HARMLESS`: it never changes the picture), or has a value at which it does nothing
//! (`refused::neutral`). Anything else is answered with an error: no wish is dropped silently.

mod answer;
mod fields;
mod pictures;
mod refused;

use serde_json::{Map, Value};
use velatura::diffusion::{Sampler, Spacing};
use velatura::pipeline::Request;

use crate::order::Wish;
use crate::problem::Problem;

pub use answer::{info, items, samplers, schedulers};
pub use refused::check_settings;

use fields::Fields;

/// What the library calls otherwise than the web UI.
pub const NAMES: &[(&str, &str)] = &[
    ("guidance", "cfg_scale"),
    ("strength", "denoising_strength"),
    ("init", "init_images"),
    ("sampler", "sampler_name"),
    ("schedule", "scheduler"),
    ("count", "batch_size"),
    ("masked_content", "inpainting_fill"),
    ("padding_mask_crop", "inpaint_full_res_padding"),
];

/// A request, and how its answer is to look.
pub struct Asked {
    /// The pictures.
    pub wish: Wish,
    /// Whether the answer shall have them.
    pub send_images: bool,
    /// The request itself, which the answer repeats.
    pub parameters: Map<String, Value>,
    /// Whether the pictures that it began with are part of the answer.
    pub include_init_images: bool,
    /// Pictures at once; the answer repeats it.
    pub batch_size: usize,
}

/// Reads the body of `txt2img`, or of `img2img` when `with_picture`.
///
/// # Errors
/// 422 with the field that is wrong, or that this server cannot honour.
pub fn read(body: Map<String, Value>, with_picture: bool, model: &str) -> Result<Asked, Problem> {
    let parameters = body
        .iter()
        .filter(|(name, _)| !["init_images", "mask"].contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut fields = Fields(body);
    let (sampler, schedule) = sampler(&mut fields)?;
    let mut request = Request {
        prompt: fields.text("prompt")?.unwrap_or_default(),
        negative: fields.text("negative_prompt")?,
        steps: fields.count("steps")?,
        guidance: fields.number("cfg_scale")?.map(|scale| scale as f32),
        seed: None,
        eta: eta(fields.number("eta")?, sampler)?,
        sampler,
        schedule,
        width: fields.count("width")?,
        height: fields.count("height")?,
        ..Request::default()
    };
    let seed = fields.whole("seed")?.unwrap_or(-1);
    let seeds = match seed {
        -1 => vec![],
        seed => vec![
            u64::try_from(seed)
                .map_err(|_| Problem::field("seed", "-1 or a number that is not negative", seed))?,
        ],
    };
    let batch_size = fields.count("batch_size")?.unwrap_or(1);
    let rounds = fields.count("n_iter")?.unwrap_or(1);
    let strength = fields.number("denoising_strength")?;
    if with_picture {
        request.strength = Some(strength.unwrap_or(0.75));
        pictures::read(&mut fields, &mut request)?;
    }
    refused::settings(&mut fields, model)?;
    let asked = Asked {
        wish: Wish {
            request,
            seeds,
            count: Some(batch_size.saturating_mul(rounds)),
        },
        send_images: fields.flag("send_images")?.unwrap_or(true),
        include_init_images: fields.flag("include_init_images")?.unwrap_or(false),
        parameters,
        batch_size,
    };
    refused::the_rest(&fields.0)?;
    Ok(asked)
}

/// Sampler and spacing. `sampler_name` counts before the older `sampler_index`; names of before version 1.9 have the
/// spacing in them: `DPM++ 2M Karras`.
fn sampler(fields: &mut Fields) -> Result<(Option<Sampler>, Option<Spacing>), Problem> {
    let older = fields.text("sampler_index")?;
    let name = fields
        .text("sampler_name")?
        .or(older)
        .filter(|name| !name.is_empty());
    let schedule = fields
        .text("scheduler")?
        .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("automatic"));
    let mut spacing: Option<Spacing> = match schedule {
        None => None,
        Some(name) => Some(name.parse().map_err(renamed)?),
    };
    let Some(name) = name.filter(|name| !name.eq_ignore_ascii_case("automatic")) else {
        return Ok((None, spacing));
    };
    let sampler = match name.parse() {
        Ok(sampler) => sampler,
        Err(error) => {
            let old = name.rsplit_once(' ').and_then(|(sampler, ending)| {
                Some((sampler.parse().ok()?, ending.parse::<Spacing>().ok()?))
            });
            match old {
                Some((sampler, ending)) => {
                    spacing = spacing.or(Some(ending));
                    sampler
                }
                None => return Err(renamed(error)),
            }
        }
    };
    Ok((Some(sampler), spacing))
}

/// The library's error with the field as it is called here.
fn renamed(error: velatura::Error) -> Problem {
    Problem::from(error).renamed(NAMES)
}

/// The web UI's eta is DDIM's η, and with ancestral samplers the share of their noise, of which ours have all. Other
/// samplers do not use it.
fn eta(eta: Option<f64>, sampler: Option<Sampler>) -> Result<Option<f32>, Problem> {
    match (eta, sampler) {
        (None, _) => Ok(None),
        (Some(eta), Some(Sampler::Ddim)) => Ok(Some(eta as f32)),
        (Some(eta), Some(Sampler::EulerAncestral)) if eta != 1.0 => {
            Err(Problem::field("eta", "1 with ancestral samplers", eta))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(body: Value) -> Result<Asked, Problem> {
        read(body.as_object().unwrap().clone(), false, "tiny")
    }

    #[test]
    fn names_of_both_kinds_are_understood() {
        let request = |body| {
            asked(body)
                .unwrap_or_else(|problem| panic!("{}", problem.detail))
                .wish
                .request
        };
        let old = request(json!({"sampler_name": "DPM++ 2M Karras"}));
        assert_eq!(
            (old.sampler, old.schedule),
            (Some(Sampler::DpmPp2m), Some(Spacing::Karras))
        );
        let new = request(json!({"sampler_name": "Euler a", "scheduler": "automatic", "eta": 1.0}));
        assert_eq!(
            (new.sampler, new.schedule),
            (Some(Sampler::EulerAncestral), None)
        );
        let index =
            request(json!({"sampler_index": "DDIM", "eta": 0.5, "cfg_scale": 5, "steps": 20.0}));
        assert_eq!(
            (index.sampler, index.eta, index.steps),
            (Some(Sampler::Ddim), Some(0.5), Some(20))
        );
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let field = |body| asked(body).err().unwrap().field.unwrap();
        assert_eq!(field(json!({"enable_hr": true})), "enable_hr");
        assert_eq!(field(json!({"styles": ["x"]})), "styles");
        assert_eq!(field(json!({"tiling": true})), "tiling");
        assert_eq!(
            field(json!({"alwayson_scripts": {"ADetailer": {}}})),
            "alwayson_scripts"
        );
        assert_eq!(field(json!({"brightness": 3})), "brightness");
        assert_eq!(field(json!({"steps": "many"})), "steps");
        assert_eq!(field(json!({"steps": -1})), "steps");
        assert_eq!(field(json!({"seed": -2})), "seed");
        assert_eq!(field(json!({"sampler_name": "Eular"})), "sampler_name");
        assert_eq!(field(json!({"scheduler": "karas"})), "scheduler");
        assert_eq!(field(json!({"sampler_name": "Euler a", "eta": 0.5})), "eta");
        let other = json!({"override_settings": {"sd_model_checkpoint": "other"}});
        assert_eq!(field(other), "override_settings.sd_model_checkpoint");
        let own = json!({"override_settings": {"sd_model_checkpoint": "tiny [123]"}, "restore_faces": false,
            "subseed": -1, "s_tmax": 0, "hr_scale": 2, "save_images": true, "enable_hr": null});
        assert!(asked(own).is_ok());
        let nearest = asked(json!({"sampler_name": "Eular"})).err().unwrap();
        assert!(
            nearest.detail.contains("the nearest is euler"),
            "{}",
            nearest.detail
        );
    }

    #[test]
    fn a_parameters_text_is_taken_apart() {
        let text = "a cat, black\nNegative prompt: dark\nblurry\nSteps: 4, Sampler: Euler, Model: \"a, \\\"b\\\"\", Seed: 7";
        let items = items(text);
        assert_eq!(items["Prompt"], "a cat, black");
        assert_eq!(items["Negative prompt"], "dark\nblurry");
        assert_eq!(items["Steps"], "4");
        assert_eq!(items["Model"], "a, \"b\"");
        assert_eq!(items["Seed"], "7");
        assert_eq!(super::items("only words")["Prompt"], "only words");
        assert_eq!(super::items("")["Prompt"], "");
    }
}
