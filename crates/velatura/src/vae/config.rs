//! `vae/config.json`.

use serde_json::{Value, json};
use velatura_tensor::Tensor;

use crate::Result;
use crate::checkpoint::Component;
use crate::fields::{Fields, check, check_groups, decimal};

/// The epsilon of all group norms; no field of the config changes it.
pub(super) const EPS: f32 = 1e-6;

/// The sizes of an autoencoder, and how its latents are scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Height and width of the pictures that the model was trained on.
    pub sample_size: Option<[usize; 2]>,
    pub in_channels: usize,
    pub out_channels: usize,
    pub latent_channels: usize,
    /// One entry per level, the finest first.
    pub block_out_channels: Vec<usize>,
    /// In the encoder; the decoder has one more.
    pub layers_per_block: usize,
    pub norm_num_groups: usize,
    /// What makes the latents' deviation about 1.
    pub scaling_factor: f32,
    /// Subtracted before scaling; Stable Diffusion has none.
    pub shift_factor: f32,
    pub use_quant_conv: bool,
    pub use_post_quant_conv: bool,
    pub mid_block_add_attention: bool,
}

impl VaeConfig {
    /// The config of a component, checked.
    ///
    /// # Errors
    /// A field is missing, impossible, or asks for what is not supported; with file and field.
    pub fn read(component: &Component) -> Result<Self> {
        Self::from_json(&component.config()?)
            .map_err(|error| error.in_file(component.config_path()))
    }

    /// As [`VaeConfig::read`], from diffusers' JSON. Fields that diffusers may omit have its defaults.
    ///
    /// # Errors
    /// As there, without the file.
    pub fn from_json(config: &Value) -> Result<Self> {
        let fields = Fields::of(config, "AutoencoderKL")?;
        fields.only("act_fn", &["silu".into(), "swish".into()])?;
        fields.only("latents_mean", &[])?;
        fields.only("latents_std", &[])?;
        let block_out_channels: Vec<usize> = fields.get("block_out_channels")?;
        let levels = block_out_channels.len();
        check(
            levels > 0,
            "block_out_channels",
            || "at least one number",
            || "an empty list",
        )?;
        check_block_types(fields, "down_block_types", DOWN_BLOCK, levels)?;
        check_block_types(fields, "up_block_types", UP_BLOCK, levels)?;
        let norm_num_groups = fields.get_or("norm_num_groups", 32)?;
        check_groups("block_out_channels", &block_out_channels, norm_num_groups)?;
        let scaling_factor = fields.get_or("scaling_factor", 0.18215)?;
        check(
            scaling_factor > 0.0,
            "scaling_factor",
            || "a number above 0",
            || scaling_factor,
        )?;
        Ok(VaeConfig {
            sample_size: fields
                .value("sample_size")
                .map(|_| fields.per_level("sample_size", 2, None))
                .transpose()?
                .and_then(|size| size.try_into().ok()),
            in_channels: fields.get("in_channels")?,
            out_channels: fields.get("out_channels")?,
            latent_channels: fields.get("latent_channels")?,
            layers_per_block: fields.get("layers_per_block")?,
            norm_num_groups,
            scaling_factor,
            shift_factor: fields.get_or("shift_factor", 0.0)?,
            use_quant_conv: fields.get_or("use_quant_conv", true)?,
            use_post_quant_conv: fields.get_or("use_post_quant_conv", true)?,
            mid_block_add_attention: fields.get_or("mid_block_add_attention", true)?,
            block_out_channels,
        })
    }

    /// How many pixels a latent place is wide: 8 for Stable Diffusion.
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// The feature maps of a level, each level's half as high and wide as the finer one's.
    pub(super) fn map_size(&self, level: usize) -> (usize, usize) {
        let [height, width] = self.sample_size.unwrap_or([512, 512]);
        (height >> level, width >> level)
    }

    /// Latents as the UNet knows them, from the encoder's.
    pub fn scale(&self, z: &Tensor) -> Tensor {
        z.add_scalar(-self.shift_factor).scale(self.scaling_factor)
    }

    /// Latents for the decoder, from the UNet's.
    pub fn unscale(&self, z: &Tensor) -> Tensor {
        z.scale(1.0 / self.scaling_factor)
            .add_scalar(self.shift_factor)
    }

    /// In diffusers' form, for a new checkpoint.
    pub fn to_json(&self) -> Value {
        let levels = self.block_out_channels.len();
        json!({
            "_class_name": "AutoencoderKL",
            "sample_size": self.sample_size.map(|[h, w]| if h == w { json!(h) } else { json!([h, w]) }),
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "latent_channels": self.latent_channels,
            "block_out_channels": self.block_out_channels,
            "down_block_types": vec![DOWN_BLOCK; levels],
            "up_block_types": vec![UP_BLOCK; levels],
            "layers_per_block": self.layers_per_block,
            "norm_num_groups": self.norm_num_groups,
            "act_fn": "silu",
            "scaling_factor": decimal(self.scaling_factor),
            "shift_factor": (self.shift_factor != 0.0).then(|| decimal(self.shift_factor)),
            "use_quant_conv": self.use_quant_conv,
            "use_post_quant_conv": self.use_post_quant_conv,
            "mid_block_add_attention": self.mid_block_add_attention,
        })
    }
}

const DOWN_BLOCK: &str = "DownEncoderBlock2D";
const UP_BLOCK: &str = "UpDecoderBlock2D";

fn check_block_types(fields: Fields, field: &str, supported: &str, levels: usize) -> Result<()> {
    let names: Vec<String> = fields.get(field)?;
    let expected = || format!("{levels} names, as many as block_out_channels has entries");
    check(names.len() == levels, field, expected, || names.len())?;
    for (i, name) in names.iter().enumerate() {
        let expected = || format!("{supported} (nothing else is supported)");
        check(name == supported, format!("{field}[{i}]"), expected, || {
            name
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stable Diffusion 1.5's file.
    fn published() -> Value {
        json!({
            "_class_name": "AutoencoderKL", "_diffusers_version": "0.6.0", "act_fn": "silu",
            "block_out_channels": [128, 256, 512, 512], "down_block_types": [DOWN_BLOCK, DOWN_BLOCK, DOWN_BLOCK, DOWN_BLOCK],
            "in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3,
            "sample_size": 512, "up_block_types": [UP_BLOCK, UP_BLOCK, UP_BLOCK, UP_BLOCK],
        })
    }

    #[test]
    fn the_published_config_is_read_and_written() {
        let config = VaeConfig::from_json(&published()).unwrap();
        assert_eq!(
            (config.factor(), config.scaling_factor, config.shift_factor),
            (8, 0.18215, 0.0)
        );
        assert_eq!(VaeConfig::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn what_cannot_be_is_refused_by_field() {
        for (field, value, part) in [
            ("norm_num_groups", json!(48), "block_out_channels[0]"),
            ("scaling_factor", json!(0), "scaling_factor"),
            ("latents_mean", json!([0.0]), "latents_mean"),
            (
                "up_block_types",
                json!([UP_BLOCK, "Other", UP_BLOCK, UP_BLOCK]),
                "up_block_types[1]",
            ),
            ("latent_channels", json!(null), "latent_channels"),
        ] {
            let mut config = published();
            config[field] = value;
            let message = VaeConfig::from_json(&config).unwrap_err().to_string();
            assert!(message.contains(&format!("field `{part}`")), "{message}");
        }
    }

    #[test]
    fn scaling_is_undone() {
        let config = VaeConfig {
            shift_factor: 0.25,
            ..VaeConfig::from_json(&published()).unwrap()
        };
        let z = Tensor::from_vec(vec![1.0, -2.0], &[2]);
        let back = config.unscale(&config.scale(&z));
        assert!(
            back.as_slice()
                .iter()
                .zip(z.as_slice())
                .all(|(a, b)| (a - b).abs() < 1e-6)
        );
    }
}
