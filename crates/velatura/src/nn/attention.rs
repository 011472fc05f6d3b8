//! Attention and the feed-forward network of a transformer block.

use std::sync::Arc;

use velatura_tensor::Tensor;

use super::{Condition, Linear, watch};
use crate::Result;
use crate::weights::Weights;

/// Multi-head attention with its four projections.
#[derive(Clone, Debug)]
pub struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
    causal: bool,
    path: Arc<str>,
}

/// The sizes of an [`Attention`] in diffusers' naming.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSizes {
    /// Channels of the queries and of the result.
    pub channels: usize,
    /// Channels of what keys and values are made from.
    pub context: usize,
    /// `channels` is a multiple of it.
    pub heads: usize,
    /// Whether the projections of q, k and v have biases.
    pub bias: bool,
}

impl Attention {
    /// Under diffusers' names: `to_q`, `to_k`, `to_v`, `to_out.0`.
    pub fn load(w: &Weights, sizes: AttentionSizes) -> Result<Self> {
        let AttentionSizes {
            channels,
            context,
            heads,
            bias,
        } = sizes;
        let project = if bias {
            Linear::load
        } else {
            Linear::without_bias
        };
        Ok(Attention {
            q: project(&w.at("to_q"), channels, channels)?,
            k: project(&w.at("to_k"), context, channels)?,
            v: project(&w.at("to_v"), context, channels)?,
            out: Linear::load(&w.at("to_out").at(0), channels, channels)?,
            heads,
            causal: false,
            path: w.path().into(),
        })
    }

    /// CLIP's, under the names `q_proj`, `k_proj`, `v_proj`, `out_proj`; `causal` for texts, of which a token sees only
    /// those before it. `depth` is the number of the model's layers, on which the deviation of fresh weights depends.
    pub fn load_clip(
        w: &Weights,
        channels: usize,
        heads: usize,
        depth: usize,
        causal: bool,
    ) -> Result<Self> {
        let std = (channels as f32).powf(-0.5);
        let inner = std * (2.0 * depth as f32).powf(-0.5);
        Ok(Attention {
            q: Linear::normal(&w.at("q_proj"), channels, channels, inner)?,
            k: Linear::normal(&w.at("k_proj"), channels, channels, inner)?,
            v: Linear::normal(&w.at("v_proj"), channels, channels, inner)?,
            out: Linear::normal(&w.at("out_proj"), channels, channels, std)?,
            heads,
            causal,
            path: w.path().into(),
        })
    }

    /// From x `[B, S, C]` to itself, and `residual` `[B, S, C]`.
    pub fn forward(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        let q = self.q.forward(x);
        let mixed = self.mix(q, self.k.forward(x), self.v.forward(x));
        self.out.forward_onto(&mixed, residual)
    }

    /// From x `[B, S, C]` to `context` `[B, T, D]`, and `residual` `[B, S, C]`.
    pub fn forward_to(&self, x: &Tensor, context: &Condition, residual: &Tensor) -> Tensor {
        let q = self.q.forward(x);
        let mixed = self.mix(q, context.project(&self.k), context.project(&self.v));
        self.out.forward_onto(&mixed, residual)
    }

    /// softmax(q·kᵀ / √d)·v of all heads.
    fn mix(&self, q: Tensor, k: Tensor, v: Tensor) -> Tensor {
        watch(
            &self.path,
            q.attention(
                &k,
                &v,
                self.heads,
                self.causal,
                self.q.precision().beside_linear(),
            ),
        )
    }
}

/// The feed-forward network of diffusers' transformer blocks: a gated linear unit with gelu (Shazeer 2020,
/// arXiv:2002.05202) of four times the width, and back.
#[derive(Clone, Debug)]
pub struct FeedForward {
    proj: Linear,
    out: Linear,
    path: Arc<str>,
}

impl FeedForward {
    pub fn load(w: &Weights, channels: usize) -> Result<Self> {
        let inner = 4 * channels;
        Ok(FeedForward {
            // Value and gate come from one projection.
            proj: Linear::gated(&w.at("net").at(0).at("proj"), channels, 2 * inner)?,
            out: Linear::load(&w.at("net").at(2), inner, channels)?,
            path: w.path().into(),
        })
    }

    /// Of x `[B, S, C]`, and `residual` `[B, S, C]`.
    pub fn forward(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        let gated = watch(&self.path, self.proj.forward_geglu(x));
        self.out.forward_onto(&gated, residual)
    }
}
