//! What this server cannot honour: fields and settings that would change something, and are answered with an error.

use serde_json::{Map, Value, json};

use super::fields::Fields;
use crate::problem::Problem;

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

/// The settings that a request overrides: only those that are as they would be anyway.
pub(super) fn settings(fields: &mut Fields, model: &str) -> Result<(), Problem> {
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
pub(super) fn the_rest(rest: &Map<String, Value>) -> Result<(), Problem> {
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
