//! Change of a feature map's size.

use crate::Tensor;
use velatura_gpu::layout as gpu;
use velatura_kernels::resample;

impl Tensor {
    /// Each place of x `[B, H, W, C]` four times: `[B, 2H, 2W, C]`.
    pub fn upsample_nearest2x(&self) -> Tensor {
        let &[b, h, w, c] = self.shape() else {
            panic!("upsampling of {:?}, expected [B, H, W, C]", self.shape());
        };
        let mut out = Tensor::computed(
            &[b, 2 * h, 2 * w, c],
            |on| gpu::upsample_nearest2x(self.memory(on), [h, w, c]),
            |out| resample::upsample_nearest2x(b, h, w, c, self.as_slice(), out),
        );
        let node = self.node().clone();
        out.record(&[self], move |dy, gradients| {
            gradients.add(&node, || {
                Tensor::computed(
                    &[b, h, w, c],
                    |on| gpu::upsample_nearest2x_backward(dy.memory(on), [h, w, c]),
                    |dx| resample::upsample_nearest2x_backward(b, h, w, c, dy.as_slice(), dx),
                )
            })
        });
        out
    }

    /// The largest of each 2×2 places of x `[B, H, W, C]`: `[B, H/2, W/2, C]`. The gradient goes to that one.
    pub fn max_pool2x2(&self) -> Tensor {
        let &[b, h, w, c] = self.shape() else {
            panic!("pooling of {:?}, expected [B, H, W, C]", self.shape());
        };
        let mut out = Tensor::output(&[b, h / 2, w / 2, c], |out| {
            resample::max_pool2x2(b, h, w, c, self.as_slice(), out)
        });
        let x = self.clone();
        out.record(&[self], move |dy, gradients| {
            gradients.add(x.node(), || {
                Tensor::output(&[b, h, w, c], |dx| {
                    let (x, dy) = (x.as_slice(), dy.as_slice());
                    resample::max_pool2x2_backward(b, h, w, c, x, dy, dx)
                })
            })
        });
        out
    }

    /// The first `height` rows and `width` columns of x `[B, H, W, C]`: what nearest-neighbour
    /// upsampling to an odd size is, after doubling.
    pub fn crop(&self, height: usize, width: usize) -> Tensor {
        let &[b, h, w, c] = self.shape() else {
            panic!("crop of {:?}, expected [B, H, W, C]", self.shape());
        };
        assert!(
            height <= h && width <= w,
            "crop of {:?} to {height}×{width}",
            self.shape()
        );
        if (height, width) == (h, w) {
            return self.clone();
        }
        let mut out = Tensor::output(&[b, height, width, c], |out| {
            for (i, row) in out.chunks_exact_mut(width * c).enumerate() {
                let from = (i / height * h + i % height) * w * c;
                row.copy_from_slice(&self.as_slice()[from..][..width * c]);
            }
        });
        let node = self.node().clone();
        out.record(&[self], move |dy, gradients| {
            gradients.add(&node, || {
                Tensor::output(&[b, h, w, c], |dx| {
                    dx.fill(0.0);
                    for (i, row) in dy.as_slice().chunks_exact(width * c).enumerate() {
                        let to = (i / height * h + i % height) * w * c;
                        dx[to..][..width * c].copy_from_slice(row);
                    }
                })
            })
        });
        out
    }
}
