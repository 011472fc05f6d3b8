//! Convolution over channels-last feature maps.

use std::cell::Cell;

use super::linear::bias_gradient;
use super::on_gpu;
use crate::weight::Packed;
use crate::{Gpu, Padding, Parameter, Tensor, Weight};
use velatura_kernels::conv::{self, ConvShape, PackedConv};
use velatura_kernels::gemm::{Epilogue, Precision};
use velatura_kernels::isa;
use velatura_kernels::profile::{self, Note};

impl Tensor {
    /// x `[B, H, W, I]` convolved with W `[O, I, k, k]`, plus bias `[O]`: `[B, H', W', O]` with
    /// H' = (H + top + bottom − k) / stride + 1. A 1×1 kernel takes the matrix product's way.
    ///
    /// # Panics
    /// When x is no feature map of I channels, or a 1×1 kernel comes with a stride or padding.
    pub fn conv2d(
        &self,
        weight: &Weight,
        bias: Option<&Parameter>,
        stride: usize,
        padding: Padding,
    ) -> Tensor {
        self.conv2d_added(weight, bias, stride, padding, None)
    }

    /// [`Tensor::conv2d`] plus `residual` of the result's shape, in one pass.
    pub(super) fn conv2d_added(
        &self,
        weight: &Weight,
        bias: Option<&Parameter>,
        stride: usize,
        padding: Padding,
        residual: Option<&Tensor>,
    ) -> Tensor {
        let &[batch, height, width, in_channels] = self.shape() else {
            panic!("conv2d of {:?}, expected [B, H, W, C]", self.shape());
        };
        let &[out_channels, expected, kernel, _] = weight.shape() else {
            panic!("conv2d with {weight:?}, expected [O, I, k, k]");
        };
        assert_eq!(
            in_channels,
            expected,
            "conv2d {weight:?} of {:?}",
            self.shape()
        );
        if kernel == 1 {
            let plain = stride == 1 && padding == Padding::default();
            assert!(plain, "a 1×1 convolution with stride or padding");
            return self.linear_added(weight, bias, residual);
        }
        let shape = ConvShape {
            batch,
            height,
            width,
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
        };
        let out_shape = [batch, shape.out_height(), shape.out_width(), out_channels];
        if let Some(residual) = residual {
            assert_eq!(residual.shape(), out_shape, "what is added to a conv2d");
        }

        let bias = bias.map(Parameter::value);
        let precision = weight.precision();
        let on_gpu = |on: &Gpu| on_gpu::conv(on, &shape, self, weight, [bias.as_ref(), residual]);
        let mut out = Tensor::computed(&out_shape, on_gpu, |out| {
            let packed = weight.forward(Some(&shape));
            let epilogue = Epilogue {
                bias: bias.as_ref().map(Tensor::as_slice),
                residual: residual.map(Tensor::as_slice),
            };
            conv::forward(&shape, self.as_slice(), as_conv(&packed), out, &epilogue);
        });

        let w = weight.parameter().map(Parameter::value);
        let on_tape: Vec<&Tensor> = [Some(self), w.as_ref(), bias.as_ref(), residual]
            .into_iter()
            .flatten()
            .collect();
        let x = self.clone();
        let w_node = w.as_ref().map(|w| w.node().clone()).unwrap_or_default();
        let bias_node = bias.as_ref().map(|b| b.node().clone()).unwrap_or_default();
        let residual_node = residual.map(|r| r.node().clone()).unwrap_or_default();
        let weight = weight.clone();
        out.record(&on_tape, move |dy, gradients| {
            gradients.add(x.node(), || {
                let on_gpu = |on: &Gpu| on_gpu::conv_backward_input(on, &shape, dy, &weight, None);
                Tensor::computed(x.shape(), on_gpu, |dx| {
                    let packed = weight.for_input_gradient(Some(&shape));
                    let _note = note("input", &shape, precision);
                    conv::backward_input(&shape, dy.as_slice(), as_conv(&packed), dx)
                })
            });
            let bias_sums = Cell::new(None);
            gradients.add(&w_node, || {
                let on_gpu = |on: &Gpu| {
                    let (dw, sums) = on_gpu::conv_backward_weight(on, &shape, [&x, dy], precision);
                    bias_sums.set(sums);
                    dw
                };
                Tensor::computed(weight.shape(), on_gpu, |dw| {
                    let _note = note("weight", &shape, precision);
                    let (x, dy) = (x.as_slice(), dy.as_slice());
                    let mut db = vec![0.0; out_channels];
                    conv::backward_weight(&shape, x, dy, dw, Some(&mut db), precision);
                    bias_sums.set(Some(Tensor::from_vec(db, &[out_channels])));
                })
            });
            gradients.add(&bias_node, || {
                bias_gradient(dy, out_channels, bias_sums.take())
            });
            gradients.add(&residual_node, || dy.clone());
        });
        out
    }
}

/// For profiles: the gradient of a convolution for its input or weight takes as many operations as the convolution.
fn note(gradient: &str, shape: &ConvShape, precision: Precision) -> Option<Note> {
    profile::note(|| {
        let ConvShape {
            batch,
            height,
            width,
            in_channels: i,
            out_channels: o,
            kernel: k,
            stride,
            ..
        } = *shape;
        let places = batch * shape.out_height() * shape.out_width();
        (
            format!("conv {k}×{k}/{stride} {gradient} gradient {batch}×{height}×{width} {i}→{o}"),
            precision.algorithm(isa::active()),
            2.0 * places as f64 * (o * i * k * k) as f64,
        )
    })
}

pub(super) fn as_conv(packed: &Packed) -> &PackedConv {
    match packed {
        Packed::Conv(conv) => conv,
        Packed::Matrix(_) => panic!("a matrix given to a convolution"),
    }
}
