//! Products, norms and attention on a graphics card, which keeps other things for the way back than the processor.

use velatura_gpu::norm::{self, Affine, Gradients};
use velatura_gpu::{Gpu, Memory, attention as kernel, conv, conv_product, matmul};
use velatura_kernels::attention::AttentionShape;
use velatura_kernels::conv::ConvShape;
use velatura_kernels::norm::GroupNormShape;

use crate::{Padding, Precision, Tensor, Weight, tape};

/// A linear layer's sizes as those of a convolution that sees one place.
pub(super) fn pointwise([rows, in_channels, out_channels]: [usize; 3]) -> ConvShape {
    ConvShape {
        batch: 1,
        height: 1,
        width: rows,
        in_channels,
        out_channels,
        kernel: 1,
        stride: 1,
        padding: Padding::default(),
    }
}

/// x convolved with the weight, plus bias and residual; on the matrix units where they can take it.
pub(super) fn conv(
    on: &Gpu,
    shape: &ConvShape,
    x: &Tensor,
    weight: &Weight,
    [bias, residual]: [Option<&Tensor>; 2],
) -> Memory {
    let [bias, residual] = [bias, residual].map(|added| added.map(|added| added.memory(on)));
    let (w, precision) = (weight.tensor(), weight.precision());
    let w = w.memory(on);
    if conv_product::takes(on, shape, precision) {
        return conv_product::forward(shape, x.rounded(on), w, bias, residual);
    }
    let x = x.memory(on);
    if shape.kernel == 1 {
        return matmul::linear(matrix(shape), x, w, bias, residual, precision);
    }
    conv::forward(shape, x, w, bias, residual, precision)
}

/// Its gradient for the input, plus what is there `before`, which only linear layers have.
pub(super) fn conv_backward_input(
    on: &Gpu,
    shape: &ConvShape,
    dy: &Tensor,
    weight: &Weight,
    before: Option<&Tensor>,
) -> Memory {
    let before = before.map(|before| before.memory(on));
    let (w, precision) = (weight.tensor(), weight.precision());
    let w = w.memory(on);
    if conv_product::takes_backward_input(on, shape, precision) {
        return conv_product::backward_input(shape, dy.rounded(on), w, before);
    }
    let dy = dy.memory(on);
    if shape.kernel == 1 {
        return matmul::linear_input_gradient(matrix(shape), dy, w, before, precision);
    }
    conv::backward_input(shape, dy, w, precision)
}

/// And for the weight, and for the bias where it is made on the way.
pub(super) fn conv_backward_weight(
    on: &Gpu,
    shape: &ConvShape,
    [x, dy]: [&Tensor; 2],
    precision: Precision,
) -> (Memory, Option<Tensor>) {
    if conv_product::takes_backward_weight(on, shape, precision) {
        let (x, dy) = (x.rounded(on), dy.rounded(on));
        let [dw, db] = conv_product::backward_weight(shape, x, dy);
        return (dw, Some(Tensor::from_memory(db, &[shape.out_channels])));
    }
    let (x, dy) = (x.memory(on), dy.memory(on));
    let dw = match shape.kernel {
        1 => matmul::linear_weight_gradient(matrix(shape), dy, x, precision),
        _ => conv::backward_weight(shape, x, dy, precision),
    };
    (dw, None)
}

/// Rows, inputs and outputs.
fn matrix(shape: &ConvShape) -> [usize; 3] {
    [
        shape.batch * shape.height * shape.width,
        shape.in_channels,
        shape.out_channels,
    ]
}

fn affine<'a>(on: &Gpu, gamma: &'a Tensor, beta: &'a Tensor) -> Affine<'a> {
    Affine {
        gamma: gamma.memory(on),
        beta: beta.memory(on),
    }
}

/// Hands a norm's gradients to its inputs; x's holds all of its sum so far already.
fn hand_out(gradients: &mut tape::Gradients, inputs: &[Tensor; 3], d: Gradients) {
    let [x, gamma, beta] = inputs;
    gradients.add_onto(x.node(), |_| Tensor::from_memory(d.dx, x.shape()));
    gradients.add(gamma.node(), || {
        Tensor::from_memory(d.d_gamma, gamma.shape())
    });
    gradients.add(beta.node(), || Tensor::from_memory(d.d_beta, beta.shape()));
}

pub(super) fn group_norm(
    on: &Gpu,
    shape: &GroupNormShape,
    eps: f32,
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    silu: bool,
) -> Tensor {
    let [out, stats] = norm::group_norm(shape, eps, x.memory(on), affine(on, gamma, beta), silu);
    let mut out = Tensor::from_memory(out, x.shape());
    let inputs = [x, gamma, beta].map(Clone::clone);
    let (on, shape) = (on.clone(), *shape);
    out.record(&[x, gamma, beta], move |dy, gradients| {
        let [x, gamma, beta] = &inputs;
        let d = norm::group_norm_backward(
            &shape,
            x.memory(&on),
            &stats,
            affine(&on, gamma, beta),
            silu,
            dy.memory(&on),
            gradients.so_far(x.node()).map(|sum| sum.memory(&on)),
        );
        hand_out(gradients, &inputs, d);
    });
    out
}

pub(super) fn layer_norm(
    on: &Gpu,
    rows: usize,
    eps: f32,
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
) -> Tensor {
    let channels = x.channels();
    let [out, stats] = norm::layer_norm(rows, channels, eps, x.memory(on), affine(on, gamma, beta));
    let mut out = Tensor::from_memory(out, x.shape());
    let inputs = [x, gamma, beta].map(Clone::clone);
    let on = on.clone();
    out.record(&[x, gamma, beta], move |dy, gradients| {
        let [x, gamma, _] = &inputs;
        let d = norm::layer_norm_backward(
            rows,
            channels,
            x.memory(&on),
            gamma.memory(&on),
            &stats,
            dy.memory(&on),
            gradients.so_far(x.node()).map(|sum| sum.memory(&on)),
        );
        hand_out(gradients, &inputs, d);
    });
    out
}

pub(super) fn attention(on: &Gpu, shape: &AttentionShape, inputs: [&Tensor; 3]) -> Tensor {
    let [q, k, v] = inputs.map(|x| x.memory(on));
    let [out, sums] = kernel::forward(shape, q, k, v);
    let mut out = Tensor::from_memory(out, inputs[0].shape());
    let (result, kept) = (out.clone(), inputs.map(Clone::clone));
    let (on, shape) = (on.clone(), *shape);
    out.record(&inputs, move |dy, gradients| {
        let [q, k, v] = kept.each_ref().map(|x| x.memory(&on));
        let from = [result.memory(&on), &sums];
        let d = kernel::backward(&shape, [q, k, v], from, dy.memory(&on));
        for (x, dx) in kept.iter().zip(d) {
            gradients.add(x.node(), || Tensor::from_memory(dx, x.shape()));
        }
    });
    out
}
