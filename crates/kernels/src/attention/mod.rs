//! Scaled dot-product attention, forward and backward, without the matrix of scores in memory.
//!
//! Strips of queries stand in the lanes of the vectors, keys in the rows, so that the softmax runs
//! lane by lane and nothing is padded to the head size: `Sᵀ = K·Qᵀ`, `Oᵀ = Vᵀ·Pᵀ`, with a running
//! maximum and sum over blocks of keys (Milakov & Gimelshein, "Online normalizer calculation for
//! softmax", 2018; Dao et al., "FlashAttention", 2022). The backward pass computes the
//! probabilities again from the stored log-sum-exp. With a matrix unit, bf16 products go there
//! (`tiled`); with a bf16 dot product they use that (`dot`, `dot_backward`).

mod backward;
mod dot;
mod dot_backward;
mod forward;
mod powers;
mod rounded;
mod strip;
mod tiled;

pub use backward::backward;
pub use forward::forward;

use crate::gemm::Precision;
use crate::isa;

/// Sizes of an attention, and how it is computed. Queries, keys and values are `[batch, positions, heads · head_dim]`; the
/// scores are scaled by `1/√head_dim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Samples.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Positions of the queries.
    pub queries: usize,
    /// Positions of the keys and values.
    pub keys: usize,
    /// Numbers per head and position.
    pub head_dim: usize,
    /// Whether query `i` sees the keys up to `i` only.
    pub causal: bool,
    /// The number format of the products' factors. [`Precision::Bf16`] counts where the CPU has a
    /// matrix unit or a dot product; elsewhere they stay f32. Softmax and sums are f32 always.
    pub precision: Precision,
}

impl AttentionShape {
    /// Numbers per position.
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Where head `h` of sample `b` starts in `[batch, positions, heads · head_dim]`.
    fn start(&self, positions: usize, b: usize, h: usize) -> usize {
        b * positions * self.width() + h * self.head_dim
    }

    fn query_len(&self) -> usize {
        self.batch * self.queries * self.width()
    }

    fn key_len(&self) -> usize {
        self.batch * self.keys * self.width()
    }

    /// How many keys the queries before `end` may see.
    fn visible(&self, end: usize) -> usize {
        if self.causal {
            self.keys.min(end)
        } else {
            self.keys
        }
    }

    fn tiled(&self) -> bool {
        self.precision == Precision::Bf16 && isa::active().has_tiles()
    }

    /// Whether the products are bf16 dot products.
    fn dotted(&self) -> bool {
        self.precision == Precision::Bf16 && isa::active().has_bf16_dot()
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn check(&self) {
        assert!(self.keys > 0 || self.queries == 0, "attention needs a key");
        assert!(self.head_dim > 0, "attention needs a head size");
    }
}
