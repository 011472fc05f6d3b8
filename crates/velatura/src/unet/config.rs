//! `unet/config.json`: which UNet it is. Stable Diffusion 1.x and 2.x differ here and nowhere else.

use serde_json::{Value, json};

use crate::Result;
use crate::checkpoint::Component;
use crate::fields::{Fields, check, check_groups, decimal};

/// Whether a level has transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// `DownBlock2D`, `UpBlock2D`.
    Plain,
    /// `CrossAttnDownBlock2D`, `CrossAttnUpBlock2D`.
    CrossAttention,
}

impl BlockKind {
    pub fn has_attention(self) -> bool {
        self == BlockKind::CrossAttention
    }

    /// diffusers' name of the kind on the way `Down` or `Up`.
    fn name(self, way: &str) -> String {
        match self {
            BlockKind::Plain => format!("{way}Block2D"),
            BlockKind::CrossAttention => format!("CrossAttn{way}Block2D"),
        }
    }
}

/// The sizes of a UNet. Lists have one entry per level, the finest first, except `up_blocks`.
#[derive(Clone, Debug, PartialEq)]
pub struct UnetConfig {
    /// Height and width of the latents that the model was trained on.
    pub sample_size: Option<[usize; 2]>,
    pub in_channels: usize,
    pub out_channels: usize,
    pub block_out_channels: Vec<usize>,
    pub down_blocks: Vec<BlockKind>,
    /// From the coarsest level to the finest.
    pub up_blocks: Vec<BlockKind>,
    /// On the way down; on the way up there is one more.
    pub layers_per_block: Vec<usize>,
    /// Attention heads. The file calls this `attention_head_dim`, by an old mistake that diffusers keeps for the
    /// sake of the files that have it.
    pub heads: Vec<usize>,
    /// Width D of the context.
    pub cross_attention_dim: Vec<usize>,
    /// Transformer blocks in each transformer.
    pub transformer_layers: Vec<usize>,
    pub norm_num_groups: usize,
    pub norm_eps: f32,
    /// 0 or 1.
    pub downsample_padding: usize,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f32,
    pub use_linear_projection: bool,
    /// Four times the first level's channels, unless the file says otherwise.
    pub time_embedding_dim: usize,
    pub conv_in_kernel: usize,
    pub conv_out_kernel: usize,
}

impl UnetConfig {
    /// The config of a component, checked.
    ///
    /// # Errors
    /// A field is missing, impossible, or asks for what is not supported; with file and field.
    pub fn read(component: &Component) -> Result<Self> {
        Self::from_json(&component.config()?)
            .map_err(|error| error.in_file(component.config_path()))
    }

    /// As [`UnetConfig::read`], from diffusers' JSON. Fields that diffusers may omit have its defaults.
    ///
    /// # Errors
    /// As there, without the file.
    pub fn from_json(config: &Value) -> Result<Self> {
        let fields = Fields::of(config, "UNet2DConditionModel")?;
        refuse_unsupported(fields)?;
        let block_out_channels: Vec<usize> = fields.get("block_out_channels")?;
        let levels = block_out_channels.len();
        check(
            levels > 0,
            "block_out_channels",
            || "at least one number",
            || "an empty list",
        )?;
        let first = block_out_channels[0];
        let config = UnetConfig {
            sample_size: read_size(fields)?,
            in_channels: fields.get("in_channels")?,
            out_channels: fields.get("out_channels")?,
            down_blocks: block_kinds(fields, "down_block_types", "Down", levels)?,
            up_blocks: block_kinds(fields, "up_block_types", "Up", levels)?,
            layers_per_block: fields.per_level("layers_per_block", levels, Some(2))?,
            heads: fields.per_level("attention_head_dim", levels, None)?,
            cross_attention_dim: fields.per_level("cross_attention_dim", levels, None)?,
            transformer_layers: fields.per_level(
                "transformer_layers_per_block",
                levels,
                Some(1),
            )?,
            norm_num_groups: fields.get_or("norm_num_groups", 32)?,
            norm_eps: fields.get_or("norm_eps", 1e-5)?,
            // Known to be 0 or 1 by now; a size, as the other fields are, could not be 0.
            downsample_padding: fields.get_or("downsample_padding", 1.0)? as usize,
            flip_sin_to_cos: fields.get_or("flip_sin_to_cos", true)?,
            freq_shift: fields.get_or("freq_shift", 0.0)?,
            use_linear_projection: fields.get_or("use_linear_projection", false)?,
            time_embedding_dim: fields.get_or("time_embedding_dim", 4 * first)?,
            conv_in_kernel: fields.get_or("conv_in_kernel", 3)?,
            conv_out_kernel: fields.get_or("conv_out_kernel", 3)?,
            block_out_channels,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        check_groups(
            "block_out_channels",
            &self.block_out_channels,
            self.norm_num_groups,
        )?;
        let levels = self.block_out_channels.len();
        for (i, (&channels, &heads)) in self.block_out_channels.iter().zip(&self.heads).enumerate()
        {
            let attention = self.down_blocks[i].has_attention()
                || self.up_blocks[levels - 1 - i].has_attention()
                || i + 1 == levels;
            let expected =
                || format!("a divisor of the level's {channels} channels (it counts heads)");
            check(
                !attention || channels.is_multiple_of(heads),
                format!("attention_head_dim[{i}]"),
                expected,
                || heads,
            )?;
        }
        let first = self.block_out_channels[0];
        let expected = || format!("less than half of block_out_channels[0] = {first}");
        check(
            self.freq_shift < (first / 2) as f32,
            "freq_shift",
            expected,
            || self.freq_shift,
        )
    }

    /// How often the size is halved: 2 to the power of this divides the sizes that need no rounding.
    pub fn halvings(&self) -> usize {
        self.block_out_channels.len() - 1
    }

    /// Whether a latent of `height` × `width` can pass. Any size can, unless the model halves without padding:
    /// then rounding down on the way down cannot be undone on the way up.
    ///
    /// # Errors
    /// [`Error::Request`](crate::Error::Request).
    pub fn check_latent_size(&self, height: usize, width: usize) -> Result<()> {
        let factor = 1 << self.halvings();
        let fits = |n: usize| n > 0 && (self.downsample_padding > 0 || n.is_multiple_of(factor));
        if fits(height) && fits(width) {
            return Ok(());
        }
        let expected =
            format!("a latent height and width that are multiples of {factor} for this model");
        Err(crate::Error::request(
            "size",
            expected,
            format!("{width}×{height}"),
        ))
    }

    /// In diffusers' form, for a new checkpoint.
    pub fn to_json(&self) -> Value {
        let names =
            |kinds: &[BlockKind], way| kinds.iter().map(|kind| kind.name(way)).collect::<Vec<_>>();
        json!({
            "_class_name": "UNet2DConditionModel",
            "sample_size": self.sample_size.map(|[h, w]| if h == w { json!(h) } else { json!([h, w]) }),
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "block_out_channels": self.block_out_channels,
            "down_block_types": names(&self.down_blocks, "Down"),
            "mid_block_type": MID_BLOCK,
            "up_block_types": names(&self.up_blocks, "Up"),
            "layers_per_block": one_or_list(&self.layers_per_block),
            "attention_head_dim": one_or_list(&self.heads),
            "cross_attention_dim": one_or_list(&self.cross_attention_dim),
            "transformer_layers_per_block": one_or_list(&self.transformer_layers),
            "norm_num_groups": self.norm_num_groups,
            "norm_eps": decimal(self.norm_eps),
            "act_fn": "silu",
            "downsample_padding": self.downsample_padding,
            "flip_sin_to_cos": self.flip_sin_to_cos,
            "freq_shift": decimal(self.freq_shift),
            "use_linear_projection": self.use_linear_projection,
            "time_embedding_dim": self.time_embedding_dim,
            "conv_in_kernel": self.conv_in_kernel,
            "conv_out_kernel": self.conv_out_kernel,
        })
    }
}

const MID_BLOCK: &str = "UNetMidBlock2DCrossAttn";

/// Refuses what other models of this class have and this implementation does not.
fn refuse_unsupported(fields: Fields) -> Result<()> {
    // Missing, null, or the one value that changes nothing.
    let table: [(&str, &[Value]); 27] = [
        ("mid_block_type", &[MID_BLOCK.into()]),
        ("act_fn", &["silu".into(), "swish".into()]),
        ("center_input_sample", &[false.into()]),
        ("mid_block_scale_factor", &[1.into()]),
        ("downsample_padding", &[0.into(), 1.into()]),
        ("dropout", &[0.into()]),
        ("num_attention_heads", &[]),
        ("dual_cross_attention", &[false.into()]),
        ("mid_block_only_cross_attention", &[false.into()]),
        ("cross_attention_norm", &[]),
        ("attention_type", &["default".into()]),
        ("reverse_transformer_layers_per_block", &[]),
        ("class_embed_type", &[]),
        ("num_class_embeds", &[]),
        ("class_embeddings_concat", &[false.into()]),
        ("addition_embed_type", &[]),
        ("encoder_hid_dim", &[]),
        ("encoder_hid_dim_type", &[]),
        ("resnet_time_scale_shift", &["default".into()]),
        ("resnet_skip_time_act", &[false.into()]),
        ("resnet_out_scale_factor", &[1.into()]),
        ("time_embedding_type", &["positional".into()]),
        ("time_embedding_act_fn", &[]),
        ("timestep_post_act", &[]),
        ("time_cond_proj_dim", &[]),
        ("conv_in_kernel", &[1.into(), 3.into(), 5.into(), 7.into()]),
        ("conv_out_kernel", &[1.into(), 3.into(), 5.into(), 7.into()]),
    ];
    for (field, supported) in table {
        fields.only(field, supported)?;
    }
    match fields.value("only_cross_attention") {
        Some(Value::Array(list)) if list.iter().all(|value| value == &Value::Bool(false)) => Ok(()),
        _ => fields.only("only_cross_attention", &[false.into()]),
    }
}

fn block_kinds(fields: Fields, field: &str, way: &str, levels: usize) -> Result<Vec<BlockKind>> {
    let names: Vec<String> = fields.get(field)?;
    let expected = || format!("{levels} names, as many as block_out_channels has entries");
    check(names.len() == levels, field, expected, || names.len())?;
    let kinds = [BlockKind::Plain, BlockKind::CrossAttention];
    let find = |(i, name): (usize, &String)| {
        kinds
            .into_iter()
            .find(|kind| kind.name(way) == *name)
            .ok_or_else(|| {
                let supported = kinds.map(|kind| kind.name(way)).join(" or ");
                crate::Error::config(
                    format!("{field}[{i}]"),
                    format!("{supported} (nothing else is supported)"),
                    name,
                )
            })
    };
    names.iter().enumerate().map(find).collect()
}

/// `sample_size`: one number, or height and width.
fn read_size(fields: Fields) -> Result<Option<[usize; 2]>> {
    match fields.value("sample_size") {
        None => Ok(None),
        Some(_) => Ok(fields.per_level("sample_size", 2, None)?.try_into().ok()),
    }
}

fn one_or_list(values: &[usize]) -> Value {
    match values {
        [first, rest @ ..] if rest.iter().all(|value| value == first) => json!(first),
        values => json!(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stable Diffusion 1.5's file, which leaves most fields to their defaults.
    fn published() -> Value {
        json!({
            "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu",
            "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": false,
            "cross_attention_dim": 768,
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4,
            "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32,
            "out_channels": 4, "sample_size": 64,
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        })
    }

    #[test]
    fn the_published_config_is_read_and_written() {
        let config = UnetConfig::from_json(&published()).unwrap();
        assert_eq!(config.heads, [8; 4]);
        assert_eq!(
            (config.time_embedding_dim, config.sample_size),
            (1280, Some([64, 64]))
        );
        assert_eq!(UnetConfig::from_json(&config.to_json()).unwrap(), config);
        assert_eq!(
            config.to_json()["down_block_types"],
            published()["down_block_types"]
        );
    }

    #[test]
    fn what_cannot_be_is_refused_by_field() {
        for (field, value, part) in [
            ("norm_num_groups", json!(33), "block_out_channels[0]"),
            (
                "attention_head_dim",
                json!([5, 10, 20]),
                "attention_head_dim",
            ),
            ("attention_head_dim", json!(7), "attention_head_dim[0]"),
            ("attention_head_dim", json!(null), "attention_head_dim"),
            ("block_out_channels", json!([]), "block_out_channels"),
            (
                "block_out_channels",
                json!([320, "640", 1280, 1280]),
                "block_out_channels[1]",
            ),
            (
                "down_block_types",
                json!(["DownBlock2D"]),
                "down_block_types",
            ),
            (
                "up_block_types",
                json!(["UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"]),
                "up_block_types[1]",
            ),
            ("act_fn", json!("mish"), "act_fn"),
            (
                "addition_embed_type",
                json!("text_time"),
                "addition_embed_type",
            ),
            ("num_attention_heads", json!(8), "num_attention_heads"),
            (
                "resnet_time_scale_shift",
                json!("scale_shift"),
                "resnet_time_scale_shift",
            ),
            (
                "only_cross_attention",
                json!([true, false, false, false]),
                "only_cross_attention",
            ),
            (
                "transformer_layers_per_block",
                json!([[1], [1], [1], [1]]),
                "transformer_layers_per_block[0]",
            ),
            ("conv_in_kernel", json!(4), "conv_in_kernel"),
            ("in_channels", json!(-4), "in_channels"),
            ("freq_shift", json!(160), "freq_shift"),
            ("_class_name", json!("UNet2DModel"), "_class_name"),
        ] {
            let mut config = published();
            config[field] = value.clone();
            let message = UnetConfig::from_json(&config).unwrap_err().to_string();
            assert!(
                message.contains(&format!("field `{part}`")),
                "{field} = {value}: {message}"
            );
        }
    }

    #[test]
    fn sizes_that_cannot_be_undone_are_refused() {
        let mut config = UnetConfig::from_json(&published()).unwrap();
        assert!(config.check_latent_size(9, 12).is_ok() && config.check_latent_size(0, 8).is_err());
        config.downsample_padding = 0;
        assert!(config.check_latent_size(16, 8).is_ok() && config.check_latent_size(9, 8).is_err());
    }
}
