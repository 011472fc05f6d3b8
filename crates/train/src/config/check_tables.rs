//! Tables in the words of diffusers and transformers, `[vae]`, `[unet]`, `[text_encoder]` and `[scheduler]`: a field that
//! nobody reads is a slip of the pen, and would be passed over in silence where it has a default.

use serde_json::Value;
use velatura::clip::ClipTextConfig;
use velatura::diffusion::{Sampler, SchedulerConfig};
use velatura::unet::UnetConfig;
use velatura::vae::VaeConfig;
use velatura::{Result, fields_read_by};

use super::Config;
use crate::models;

impl Config {
    /// The first field of these tables that there is not, in words for the person. What else may be wrong with them is said
    /// when the models are made.
    pub(super) fn check_tables(&self) -> Result<(), String> {
        let table =
            |given: &Option<toml::Table>| given.as_ref().map(|table| models::table(Some(table)));
        if let Some(value) = table(&self.vae) {
            check("vae", &value, || VaeConfig::from_json(&value))?;
        }
        if let Some(value) = table(&self.unet) {
            check("unet", &value, || UnetConfig::from_json(&value))?;
        }
        if let Some(mut value) = table(&self.text_encoder) {
            // Known when the captions are.
            if let Value::Object(fields) = &mut value {
                fields.entry("vocab_size").or_insert(1.into());
            }
            check("text_encoder", &value, || ClipTextConfig::from_json(&value))?;
        }
        if let Some(value) = table(&self.scheduler) {
            check("scheduler", &value, || {
                let config = SchedulerConfig::from_value(value.clone())?;
                // Each sampler reads some fields, and the model may be painted with by any.
                for sampler in Sampler::ALL {
                    let _ = config.settings(sampler);
                }
                Ok(config)
            })?;
        }
        Ok(())
    }
}

fn check<T>(name: &str, value: &Value, read: impl FnOnce() -> Result<T>) -> Result<(), String> {
    let (result, known) = fields_read_by(read);
    let Value::Object(fields) = value else {
        return Ok(());
    };
    // A table that cannot be read has not been read to its end.
    let unknown = |field: &&String| !field.starts_with('_') && !known.contains(*field);
    match fields.keys().find(unknown) {
        Some(field) if result.is_ok() => {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            Err(format!(
                "[{name}] {field}: unknown field, expected one of {}",
                known.join(", ")
            ))
        }
        _ => Ok(()),
    }
}
