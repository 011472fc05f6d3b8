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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn refusal(text: &str) -> String {
        let parsed = Config::parse(&format!("{DATA}{text}"), Path::new("c.toml"));
        parsed
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    const DATA: &str = r#"
[run]
dir = "runs/x"
steps = 10
batch_size = 2
[data]
kind = "folder"
path = "pictures"
size = 64
"#;

    const UNET: &str = r#"
[model]
part = "unet"
vae = "vae"
[unet]
in_channels = 4
out_channels = 4
block_out_channels = [32, 64]
down_block_types = ["CrossAttnDownBlock2D", "DownBlock2D"]
up_block_types = ["UpBlock2D", "CrossAttnUpBlock2D"]
layers_per_block = 1
attention_head_dim = 4
cross_attention_dim = 32
norm_num_groups = 8
[text_encoder]
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 1
num_attention_heads = 2
hidden_act = "gelu"
[scheduler]
prediction_type = "v_prediction"
timestep_spacing = "trailing"
use_karras_sigmas = true
"#;

    const VAE: &str = r#"
[model]
part = "vae"
[vae]
in_channels = 3
out_channels = 3
latent_channels = 4
block_out_channels = [8, 16]
down_block_types = ["DownEncoderBlock2D", "DownEncoderBlock2D"]
up_block_types = ["UpDecoderBlock2D", "UpDecoderBlock2D"]
layers_per_block = 1
norm_num_groups = 4
scaling_factor = 1.0
"#;

    #[test]
    fn slips_of_the_pen_are_told_by_table_and_field() {
        assert_eq!((refusal(UNET), refusal(VAE)), Default::default());
        for (text, from, to, place) in [
            (
                UNET,
                "norm_num_groups",
                "norm_num_group",
                "[unet] norm_num_group",
            ),
            (UNET, "hidden_act", "hiden_act", "[text_encoder] hiden_act"),
            (
                UNET,
                "prediction_type",
                "prediction_typ",
                "[scheduler] prediction_typ",
            ),
            (VAE, "scaling_factor", "scaling", "[vae] scaling"),
        ] {
            let message = refusal(&text.replace(from, to));
            let expected = format!("c.toml: {place}: unknown field, expected one of ");
            assert!(message.starts_with(&expected), "{message}");
            assert!(message.contains(&format!(" {from}")), "{message}");
        }
    }
}
