//! Multi-head attention without the matrix of scores in memory.

use super::on_gpu;
use crate::buffer::Buffer;
use crate::tape::is_recording;
use crate::{Precision, Tensor, device};
use velatura_kernels::attention::{self, AttentionShape};
use velatura_kernels::{isa, profile};

impl Tensor {
    /// softmax(q·kᵀ / √D)·v for each head (Vaswani et al. 2017, arXiv:1706.03762, eq. 1).
    ///
    /// q: `[B, Sq, heads·D]`, k and v: `[B, Sk, heads·D]`; the result has q's shape. With `causal`,
    /// place i sees places 0..=i only. `precision` is that of the products' factors.
    ///
    /// # Panics
    /// When the shapes don't fit each other or the channels don't divide into heads.
    pub fn attention(
        &self,
        k: &Tensor,
        v: &Tensor,
        heads: usize,
        causal: bool,
        precision: Precision,
    ) -> Tensor {
        let (&[batch, queries, channels], &[k_batch, keys, k_channels]) = (self.shape(), k.shape())
        else {
            panic!(
                "attention of {:?} to {:?}, expected [B, S, C]",
                self.shape(),
                k.shape()
            );
        };
        assert_eq!(
            (batch, channels),
            (k_batch, k_channels),
            "attention of q to k"
        );
        assert_eq!(k.shape(), v.shape(), "attention to k and v");
        assert!(
            channels.is_multiple_of(heads),
            "{channels} channels in {heads} heads"
        );
        let shape = AttentionShape {
            batch,
            heads,
            queries,
            keys,
            head_dim: channels / heads,
            causal,
            precision,
        };
        if let Some(gpu) = device::current() {
            return on_gpu::attention(&gpu, &shape, [self, k, v]);
        }
        // The backward pass rebuilds the scores from their row-wise log-sum-exp.
        let mut lse = is_recording(&[self, k, v]).then(|| vec![0.0; batch * heads * queries]);
        let mut out = Tensor::output(self.shape(), |out| {
            let (q, k, v) = (self.as_slice(), k.as_slice(), v.as_slice());
            attention::forward(&shape, q, k, v, out, lse.as_deref_mut())
        });
        let Some(lse) = lse else { return out };
        let (q, kept_k, kept_v, y) = (self.clone(), k.clone(), v.clone(), out.detach());
        out.record(&[self, k, v], move |dy, gradients| {
            let (k, v) = (kept_k, kept_v);
            let (mut dk, mut dv) = (Buffer::for_output(k.len()), Buffer::for_output(v.len()));
            // Five products where the forward pass has two: the scores again, and the gradients of scores, q, k and v.
            let _note = profile::note(|| {
                (
                    format!(
                        "attention gradient {batch}×{queries}×{keys} {heads}·{}",
                        shape.head_dim
                    ),
                    precision.algorithm(isa::active()),
                    10.0 * (batch * queries * keys) as f64 * channels as f64,
                )
            });
            let dq = Tensor::output(q.shape(), |dq| {
                let (q, k, v) = (q.as_slice(), k.as_slice(), v.as_slice());
                let (y, dy) = (y.as_slice(), dy.as_slice());
                attention::backward(&shape, q, k, v, y, &lse, dy, dq, &mut dk, &mut dv)
            });
            gradients.add(q.node(), || dq);
            gradients.add(k.node(), || Tensor::from_buffer(dk, k.shape()));
            gradients.add(v.node(), || Tensor::from_buffer(dv, v.shape()));
        });
        out
    }
}
