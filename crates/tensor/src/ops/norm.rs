//! Group and layer normalisation, and channels of length 1.

use super::on_gpu;
use crate::{Parameter, Tensor, device};
use velatura_kernels::norm::{self, GroupNormShape};
use velatura_kernels::profile::{self, Note};

/// For profiles; bytes are what counts here.
fn note(norm: &str, x: &Tensor) -> Option<Note> {
    profile::note(|| {
        (
            format!("{norm} gradient {:?}", x.shape()),
            "F32".into(),
            0.0,
        )
    })
}

impl Tensor {
    /// Group normalisation (Wu & He 2018, arXiv:1803.08494) of x `[B, …, C]` over each sample's
    /// places and each group of C / groups channels, times gamma `[C]`, plus beta `[C]`.
    pub fn group_norm(
        &self,
        groups: usize,
        eps: f32,
        gamma: &Parameter,
        beta: &Parameter,
    ) -> Tensor {
        self.group_norm_then(groups, eps, gamma, beta, false)
    }

    /// [`Tensor::group_norm`] followed by SiLU, in one pass over memory.
    pub fn group_norm_silu(
        &self,
        groups: usize,
        eps: f32,
        gamma: &Parameter,
        beta: &Parameter,
    ) -> Tensor {
        self.group_norm_then(groups, eps, gamma, beta, true)
    }

    fn group_norm_then(
        &self,
        groups: usize,
        eps: f32,
        gamma: &Parameter,
        beta: &Parameter,
        silu: bool,
    ) -> Tensor {
        let (batch, channels) = (self.dim(0), self.channels());
        assert!(
            channels.is_multiple_of(groups),
            "{channels} channels in {groups} groups"
        );
        assert_eq!(
            gamma.shape(),
            [channels],
            "group norm {} of {:?}",
            gamma.name(),
            self.shape()
        );
        let spatial = self.len() / (batch * channels).max(1);
        let shape = GroupNormShape {
            batch,
            spatial,
            channels,
            groups,
        };
        let (gamma, beta) = (gamma.value(), beta.value());
        if let Some(gpu) = device::current() {
            return on_gpu::group_norm(&gpu, &shape, eps, self, [&gamma, &beta], silu);
        }
        let mut stats = vec![0.0; batch * groups * 2];
        let mut out = Tensor::output(self.shape(), |out| {
            let (gamma, beta) = (gamma.as_slice(), beta.as_slice());
            norm::group_norm(
                &shape,
                eps,
                self.as_slice(),
                gamma,
                beta,
                silu,
                out,
                &mut stats,
            )
        });
        let inputs = [self.clone(), gamma.clone(), beta.clone()];
        out.record(&[self, &gamma, &beta], move |dy, gradients| {
            let [x, gamma, beta] = inputs;
            let _note = note("group norm", &x);
            let (mut d_gamma, mut d_beta) = (vec![0.0; channels], vec![0.0; channels]);
            gradients.add_onto(x.node(), |before| {
                Tensor::output(x.shape(), |dx| {
                    norm::group_norm_backward(
                        &shape,
                        x.as_slice(),
                        gamma.as_slice(),
                        beta.as_slice(),
                        &stats,
                        silu,
                        dy.as_slice(),
                        before.map(Tensor::as_slice),
                        dx,
                        &mut d_gamma,
                        &mut d_beta,
                    )
                })
            });
            gradients.add(gamma.node(), || Tensor::from_vec(d_gamma, &[channels]));
            gradients.add(beta.node(), || Tensor::from_vec(d_beta, &[channels]));
        });
        out
    }

    /// Layer normalisation (Ba et al. 2016, arXiv:1607.06450) of x `[…, C]` over its channels.
    pub fn layer_norm(&self, eps: f32, gamma: &Parameter, beta: &Parameter) -> Tensor {
        let channels = self.channels();
        assert_eq!(
            gamma.shape(),
            [channels],
            "layer norm {} of {:?}",
            gamma.name(),
            self.shape()
        );
        let rows = self.len() / channels.max(1);
        let (gamma, beta) = (gamma.value(), beta.value());
        if let Some(gpu) = device::current() {
            return on_gpu::layer_norm(&gpu, rows, eps, self, [&gamma, &beta]);
        }
        let mut stats = vec![0.0; rows * 2];
        let mut out = Tensor::output(self.shape(), |out| {
            let (gamma, beta) = (gamma.as_slice(), beta.as_slice());
            norm::layer_norm(
                rows,
                channels,
                eps,
                self.as_slice(),
                gamma,
                beta,
                out,
                &mut stats,
            )
        });
        let inputs = [self.clone(), gamma.clone(), beta.clone()];
        out.record(&[self, &gamma, &beta], move |dy, gradients| {
            let [x, gamma, beta] = inputs;
            let _note = note("layer norm", &x);
            let (mut d_gamma, mut d_beta) = (vec![0.0; channels], vec![0.0; channels]);
            gradients.add_onto(x.node(), |before| {
                Tensor::output(x.shape(), |dx| {
                    let (x, gamma, dy) = (x.as_slice(), gamma.as_slice(), dy.as_slice());
                    norm::layer_norm_backward(
                        rows,
                        channels,
                        x,
                        gamma,
                        &stats,
                        dy,
                        before.map(Tensor::as_slice),
                        dx,
                        &mut d_gamma,
                        &mut d_beta,
                    )
                })
            });
            gradients.add(gamma.node(), || Tensor::from_vec(d_gamma, &[channels]));
            gradients.add(beta.node(), || Tensor::from_vec(d_beta, &[channels]));
        });
        out
    }

    /// x `[…, C]` with its channels scaled to length 1: x / (‖x‖ + eps).
    pub fn unit_channels(&self, eps: f32) -> Tensor {
        let channels = self.channels();
        let mut out = Tensor::output(self.shape(), |out| {
            norm::unit_rows(channels, eps, self.as_slice(), out)
        });
        let x = self.clone();
        out.record(&[self], move |dy, gradients| {
            gradients.add(x.node(), || {
                Tensor::output(x.shape(), |dx| {
                    norm::unit_rows_backward(channels, eps, x.as_slice(), dy.as_slice(), dx)
                })
            })
        });
        out
    }
}
