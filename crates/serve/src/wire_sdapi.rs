//! How AUTOMATIC1111's web UI spells requests and answers.
//!
//! Its requests have some seventy fields, most of which do nothing unless they are set to something. A field is either
//! honoured, or harmless ([`HARMLESS`]: it never changes the picture), or has a value at which it does nothing
//! ([`NEUTRAL`]). Anything else is answered with an error: no wish is dropped silently.

mod answer;

use serde_json::{Map, Value, json};
use velatura::diffusion::{Sampler, Spacing};
use velatura::pipeline::Request;

use crate::app;
use crate::order::Wish;
use crate::problem::Problem;

pub use answer::{info, items, samplers, schedulers};

/// What never changes the picture: where the web UI's own copies go, and what only it knows of.
const HARMLESS: &[&str] = &[
    "do_not_save_grid",
    "do_not_save_samples",
    "disable_extra_networks",
    "force_task_id",
    "override_settings_restore_afterwards",
    "save_images",
    "comments",
];

/// What the library calls otherwise than the web UI.
pub const NAMES: &[(&str, &str)] = &[
    ("guidance", "cfg_scale"),
    ("strength", "denoising_strength"),
    ("init", "init_images"),
    ("sampler", "sampler_name"),
    ("schedule", "scheduler"),
    ("count", "batch_size"),
];

/// What hires.fix would do, if `enable_hr` asked for it; that must be false.
const WITHOUT_HIRES: &[&str] = &[
    "hr_scale",
    "hr_upscaler",
    "hr_second_pass_steps",
    "hr_resize_x",
    "hr_resize_y",
    "hr_checkpoint_name",
    "hr_sampler_name",
    "hr_scheduler",
    "hr_prompt",
    "hr_negative_prompt",
    "firstphase_width",
    "firstphase_height",
];

/// Fields and the values at which they do nothing. `null` and a missing field never do anything.
fn neutral(field: &str) -> Option<&'static [Value]> {
    static TABLE: std::sync::LazyLock<Vec<(&str, Vec<Value>)>> = std::sync::LazyLock::new(|| {
        vec![
            ("enable_hr", vec![json!(false)]),
            ("styles", vec![json!([])]),
            ("subseed", vec![json!(-1)]),
            ("subseed_strength", vec![json!(0)]),
            ("seed_resize_from_h", vec![json!(-1), json!(0)]),
            ("seed_resize_from_w", vec![json!(-1), json!(0)]),
            ("restore_faces", vec![json!(false)]),
            ("tiling", vec![json!(false)]),
            ("s_churn", vec![json!(0)]),
            ("s_min_uncond", vec![json!(0)]),
            ("s_noise", vec![json!(1)]),
            ("s_tmin", vec![json!(0)]),
            // 0 counts as infinity.
            ("s_tmax", vec![json!(0)]),
            ("refiner_checkpoint", vec![json!(""), json!("None")]),
            ("script_name", vec![json!(""), json!("None")]),
            ("script_args", vec![json!([])]),
            ("alwayson_scripts", vec![json!({})]),
            ("infotext", vec![json!("")]),
            // Only models that were trained on edits use it.
            ("image_cfg_scale", vec![json!(0), json!(1), json!(1.5)]),
            ("initial_noise_multiplier", vec![json!(1)]),
            ("resize_mode", vec![json!(0)]),
            ("latent_mask", vec![]),
            ("refiner_switch_at", vec![json!(0), json!(0.8), json!(1)]),
        ]
    });
    let row = TABLE.iter().find(|row| row.0 == field)?;
    Some(&row.1)
}

/// Whether two JSON values are the same, 1 and 1.0 alike.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

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

/// The fields of a request, taken out one after the other.
struct Fields(Map<String, Value>);

impl Fields {
    /// A field that has not been taken yet; `null` is none.
    fn take(&mut self, field: &str) -> Option<Value> {
        self.0.remove(field).filter(|value| !value.is_null())
    }

    fn number(&mut self, field: &str) -> Result<Option<f64>, Problem> {
        self.take(field)
            .map(|value| {
                value
                    .as_f64()
                    .ok_or_else(|| Problem::field(field, "a number", &value))
            })
            .transpose()
    }

    /// A whole number; JSON has 20 and 20.0.
    fn whole(&mut self, field: &str) -> Result<Option<i64>, Problem> {
        let Some(number) = self.number(field)? else {
            return Ok(None);
        };
        if number.fract() == 0.0 && number.abs() < 9.1e15 {
            return Ok(Some(number as i64));
        }
        Err(Problem::field(field, "a whole number", number))
    }

    fn count(&mut self, field: &str) -> Result<Option<usize>, Problem> {
        self.whole(field)?
            .map(|number| {
                usize::try_from(number)
                    .map_err(|_| Problem::field(field, "a number that is not negative", number))
            })
            .transpose()
    }

    fn flag(&mut self, field: &str) -> Result<Option<bool>, Problem> {
        self.take(field)
            .map(|value| match (&value, value.as_f64()) {
                (Value::Bool(flag), _) => Ok(*flag),
                (_, Some(number)) if number == 0.0 || number == 1.0 => Ok(number == 1.0),
                _ => Err(Problem::field(field, "true or false", &value)),
            })
            .transpose()
    }

    fn text(&mut self, field: &str) -> Result<Option<String>, Problem> {
        self.take(field)
            .map(|value| match value {
                Value::String(text) => Ok(text),
                other => Err(Problem::field(field, "a text", other)),
            })
            .transpose()
    }
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
    let mut mask_blur = 0.0;
    if with_picture {
        request.strength = Some(strength.unwrap_or(0.75));
        mask_blur = pictures(&mut fields, &mut request)?;
    }
    settings(&mut fields, model)?;
    let asked = Asked {
        wish: Wish {
            request,
            seeds,
            count: Some(batch_size.saturating_mul(rounds)),
            mask_blur,
        },
        send_images: fields.flag("send_images")?.unwrap_or(true),
        include_init_images: fields.flag("include_init_images")?.unwrap_or(false),
        parameters,
        batch_size,
    };
    refuse_the_rest(&fields.0)?;
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

/// The picture to begin with and its mask. Returns how soft the mask's edge is.
fn pictures(fields: &mut Fields, request: &mut Request) -> Result<f32, Problem> {
    let one = "a list with one picture in base64";
    let list = fields.take("init_images").unwrap_or_default();
    request.init = match list.as_array().map(Vec::as_slice) {
        Some([Value::String(text)]) => Some(app::picture("init_images", text)?),
        Some(list) => {
            return Err(Problem::field(
                "init_images",
                one,
                format!("a list of {}", list.len()),
            ));
        }
        None => return Err(Problem::field("init_images", one, "no list")),
    };
    let mask = fields.text("mask")?.filter(|mask| !mask.is_empty());
    let blur = fields.number("mask_blur")?;
    let blur_x = fields.number("mask_blur_x")?;
    let blur_y = fields.number("mask_blur_y")?;
    let fill = fields.whole("inpainting_fill")?;
    let full = fields.flag("inpaint_full_res")?.unwrap_or(false);
    fields.take("inpaint_full_res_padding");
    let invert = fields.whole("inpainting_mask_invert")?.unwrap_or(0);
    let rounded = fields.flag("mask_round")?.unwrap_or(true);
    let Some(mask) = mask else {
        // Without a mask none of these does anything.
        return Ok(0.0);
    };
    let mask = app::mask("mask", &mask)?;
    request.mask = Some(match invert {
        0 => mask,
        1 => mask.inverted(),
        other => return Err(Problem::field("inpainting_mask_invert", "0 or 1", other)),
    });
    if full {
        let found = "true: painting the masked part alone in a higher resolution is not supported";
        return Err(Problem::field("inpaint_full_res", "false", found));
    }
    if !rounded {
        let found = "false: soft masks are not supported";
        return Err(Problem::field("mask_round", "true", found));
    }
    // From pure noise it does not matter what was there before.
    let strength = request.strength.unwrap_or(1.0);
    if let Some(fill) = fill.filter(|&fill| fill != 1 && strength < 1.0) {
        let expected =
            "1 (begin with what the picture has there), or denoising_strength 1 (begin with noise)";
        return Err(Problem::field("inpainting_fill", expected, fill));
    }
    let radius = blur.or(blur_x).unwrap_or(4.0);
    if [blur_x, blur_y]
        .iter()
        .flatten()
        .any(|&other| other != radius)
    {
        let expected = "the same blur in both directions";
        return Err(Problem::field(
            "mask_blur_y",
            expected,
            format!("{blur_x:?} and {blur_y:?}"),
        ));
    }
    Ok(radius as f32)
}

/// The settings that a request overrides: only those that are as they would be anyway.
fn settings(fields: &mut Fields, model: &str) -> Result<(), Problem> {
    let Some(settings) = fields.take("override_settings") else {
        return Ok(());
    };
    let Value::Object(settings) = settings else {
        return Err(Problem::field("override_settings", "an object", settings));
    };
    check_settings(&settings, model, "override_settings.")
}

/// Refuses settings that would change something.
///
/// # Errors
/// 422 with the setting, its name behind `prefix`.
pub fn check_settings(
    settings: &Map<String, Value>,
    model: &str,
    prefix: &str,
) -> Result<(), Problem> {
    for (name, value) in settings {
        let own = |text: &str| {
            text.is_empty() || text == model || text.starts_with(&format!("{model} ["))
        };
        let fine = match name.as_str() {
            _ if value.is_null() => true,
            "sd_model_checkpoint" => value.as_str().is_some_and(own),
            "sd_vae" => ["", "Automatic", "None"].contains(&value.as_str().unwrap_or("?")),
            "CLIP_stop_at_last_layers" => same(value, &json!(1)),
            "eta_noise_seed_delta" => same(value, &json!(0)),
            "samples_format" => value.as_str() == Some("png"),
            "enable_pnginfo" => value.as_bool() == Some(true),
            "samples_save" | "grid_save" | "save_images_before_highres_fix" => true,
            _ => false,
        };
        if !fine {
            let field = format!("{prefix}{name}");
            let expected = match name.as_str() {
                "sd_model_checkpoint" => format!("{model}, the one model that is loaded"),
                _ => "a setting that changes nothing here".to_string(),
            };
            return Err(Problem::field(&field, expected, value));
        }
    }
    Ok(())
}

/// Refuses what has been neither honoured nor is without effect.
fn refuse_the_rest(rest: &Map<String, Value>) -> Result<(), Problem> {
    let hires = |name: &str| WITHOUT_HIRES.contains(&name);
    for (name, value) in rest {
        let known = HARMLESS.contains(&name.as_str()) || hires(name);
        if known || value.is_null() {
            continue;
        }
        match neutral(name) {
            Some(values) if values.iter().any(|neutral| same(neutral, value)) => {}
            Some(values) => {
                let values: Vec<String> = values.iter().map(Value::to_string).collect();
                let expected = format!(
                    "{} or nothing, because this server cannot honour it",
                    values.join(", ")
                );
                return Err(Problem::field(name, expected, value));
            }
            None => {
                let expected = "a field that this server can honour; docs/serving.md lists them";
                return Err(Problem::field(name, expected, "one that it does not know"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
