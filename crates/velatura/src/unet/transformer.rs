//! The transformer of a UNet level (`Transformer2DModel`): the feature map as a sequence of places that look at
//! each other and at the text.

use velatura_tensor::Tensor;

use super::config::UnetConfig;
use crate::Result;
use crate::nn::{
    Attention, AttentionSizes, Condition, Conv2d, FeedForward, GroupNorm, LayerNorm, Linear,
};
use crate::weights::Weights;

/// diffusers has these two fixed, whatever the config's `norm_eps`.
const GROUP_NORM_EPS: f32 = 1e-6;
const LAYER_NORM_EPS: f32 = 1e-5;

/// Projection in, transformer blocks, projection out, plus the input.
#[derive(Clone, Debug)]
pub(super) struct Transformer {
    norm: GroupNorm,
    proj_in: Projection,
    blocks: Vec<TransformerBlock>,
    proj_out: Projection,
}

/// The same product under two names and two shapes: SD 1.x stores a 1×1 convolution, 2.x a linear layer.
#[derive(Clone, Debug)]
enum Projection {
    Conv(Conv2d),
    Linear(Linear),
}

impl Projection {
    fn load(linear: bool, channels: usize, w: &Weights) -> Result<Self> {
        Ok(if linear {
            Projection::Linear(Linear::load(w, channels, channels)?)
        } else {
            Projection::Conv(Conv2d::load(w, channels, channels, 1)?)
        })
    }

    /// x `[B, H, W, C]`
    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Projection::Conv(conv) => conv.forward(x),
            Projection::Linear(linear) => linear.forward(x),
        }
    }

    /// The same, and `residual` `[B, H, W, C]`.
    fn forward_onto(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        match self {
            Projection::Conv(conv) => conv.forward_onto(x, residual),
            Projection::Linear(linear) => linear.forward_onto(x, residual),
        }
    }
}

impl Transformer {
    pub fn load(config: &UnetConfig, level: usize, w: &Weights) -> Result<Self> {
        let channels = config.block_out_channels[level];
        let linear = config.use_linear_projection;
        Ok(Transformer {
            norm: GroupNorm::load(
                &w.at("norm"),
                config.norm_num_groups,
                channels,
                GROUP_NORM_EPS,
            )?,
            proj_in: Projection::load(linear, channels, &w.at("proj_in"))?,
            blocks: (0..config.transformer_layers[level])
                .map(|i| TransformerBlock::load(config, level, &w.at("transformer_blocks").at(i)))
                .collect::<Result<_>>()?,
            proj_out: Projection::load(linear, channels, &w.at("proj_out"))?,
        })
    }

    /// x `[B, H, W, C]`, context `[B, S, D]`: `[B, H, W, C]`.
    pub fn forward(&self, x: &Tensor, context: &Condition) -> Tensor {
        let &[batch, height, width, channels] = x.shape() else {
            panic!("a transformer of {:?}, expected [B, H, W, C]", x.shape());
        };
        let mut h =
            self.proj_in
                .forward(&self.norm.forward(x))
                .reshape(&[batch, height * width, channels]);
        for block in &self.blocks {
            h = block.forward(&h, context);
        }
        self.proj_out.forward_onto(&h.reshape(x.shape()), x)
    }
}

/// Attention to the picture, attention to the text, feed-forward; each behind a norm and beside a residual
/// connection (`BasicTransformerBlock`).
#[derive(Clone, Debug)]
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl TransformerBlock {
    fn load(config: &UnetConfig, level: usize, w: &Weights) -> Result<Self> {
        let channels = config.block_out_channels[level];
        let own = AttentionSizes {
            channels,
            context: channels,
            heads: config.heads[level],
            bias: false,
        };
        let cross = AttentionSizes {
            context: config.cross_attention_dim[level],
            ..own
        };
        Ok(TransformerBlock {
            norm1: LayerNorm::load(&w.at("norm1"), channels, LAYER_NORM_EPS)?,
            attn1: Attention::load(&w.at("attn1"), own)?,
            norm2: LayerNorm::load(&w.at("norm2"), channels, LAYER_NORM_EPS)?,
            attn2: Attention::load(&w.at("attn2"), cross)?,
            norm3: LayerNorm::load(&w.at("norm3"), channels, LAYER_NORM_EPS)?,
            ff: FeedForward::load(&w.at("ff"), channels)?,
        })
    }

    fn forward(&self, x: &Tensor, context: &Condition) -> Tensor {
        let x = self.attn1.forward(&self.norm1.forward(x), x);
        let x = self.attn2.forward_to(&self.norm2.forward(&x), context, &x);
        self.ff.forward(&self.norm3.forward(&x), &x)
    }
}
