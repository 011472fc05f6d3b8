//! Group and layer normalisation.

use velatura_kernels::norm::GroupNormShape;

use crate::device::THREADS;
use crate::elementwise::sum_rows;
use crate::{Memory, Pointer};

/// A norm's gamma and beta, `[C]` each.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    /// What the normalised is multiplied by.
    pub gamma: &'a Memory,
    /// What is added then.
    pub beta: &'a Memory,
}

/// The gradients of a norm.
pub struct Gradients {
    /// Of its input.
    pub dx: Memory,
    /// Of gamma.
    pub d_gamma: Memory,
    /// Of beta.
    pub d_beta: Memory,
}

/// Group norm of x `[B, places, C]`, through SiLU if asked; and its statistics for the way back.
pub fn group_norm(
    shape: &GroupNormShape,
    eps: f32,
    x: &Memory,
    affine: Affine,
    silu: bool,
) -> [Memory; 2] {
    let &GroupNormShape {
        batch,
        spatial,
        channels,
        groups,
    } = shape;
    let gpu = x.gpu();
    let (stats, out) = (gpu.allocate(batch * groups * 2), gpu.allocate(x.len()));
    let numbers = [spatial, channels, groups];
    let pointers = [x.all(), stats.all()];
    gpu.launch(
        "group_norm_stats",
        [batch * groups, THREADS],
        &pointers,
        &numbers,
        &[eps],
    );
    let pointers = [
        x.all(),
        stats.all(),
        affine.gamma.all(),
        affine.beta.all(),
        out.all(),
    ];
    let numbers = [spatial * channels, channels, groups, usize::from(silu)];
    gpu.each("group_norm_apply", x.len(), &pointers, &numbers, &[]);
    [out, stats]
}

/// The gradients of [`group_norm`]; that of x is added to what is there `before`.
pub fn group_norm_backward(
    shape: &GroupNormShape,
    x: &Memory,
    stats: &Memory,
    affine: Affine,
    silu: bool,
    dy: &Memory,
    before: Option<&Memory>,
) -> Gradients {
    let &GroupNormShape {
        batch,
        spatial,
        channels,
        groups,
    } = shape;
    let gpu = x.gpu();
    let Affine { gamma, beta } = affine;
    let silu = usize::from(silu);
    let [sum, sum_hat] = [(); 2].map(|()| gpu.allocate(batch * channels));
    let given = [x.all(), stats.all(), gamma.all(), beta.all(), dy.all()];
    let pointers = [&given[..], &[sum.all(), sum_hat.all()]].concat();
    let blocks = batch * channels.div_ceil(32);
    let numbers = [spatial, channels, groups, silu];
    gpu.launch(
        "group_norm_sums",
        [blocks, THREADS],
        &pointers,
        &numbers,
        &[],
    );

    let means = gpu.allocate(batch * groups * 2);
    let pointers = [sum.all(), sum_hat.all(), gamma.all(), means.all()];
    gpu.each(
        "group_norm_means",
        batch * groups,
        &pointers,
        &[channels, groups, spatial],
        &[],
    );

    let dx = gpu.allocate(x.len());
    let pointers = [&given[..], &[means.all(), Pointer::of(before), dx.all()]].concat();
    let numbers = [spatial * channels, channels, groups, silu];
    gpu.each("group_norm_backward", x.len(), &pointers, &numbers, &[]);
    Gradients {
        dx,
        d_gamma: sum_rows(&sum_hat, batch, channels),
        d_beta: sum_rows(&sum, batch, channels),
    }
}

/// Layer norm of x `[rows, C]`, and its statistics for the way back.
pub fn layer_norm(
    rows: usize,
    channels: usize,
    eps: f32,
    x: &Memory,
    affine: Affine,
) -> [Memory; 2] {
    let gpu = x.gpu();
    let (out, stats) = (gpu.allocate(x.len()), gpu.allocate(rows * 2));
    let pointers = [
        x.all(),
        affine.gamma.all(),
        affine.beta.all(),
        out.all(),
        stats.all(),
    ];
    gpu.launch("layer_norm", [rows, 32], &pointers, &[channels], &[eps]);
    [out, stats]
}

/// The gradients of [`layer_norm`]; that of x is added to what is there `before`.
pub fn layer_norm_backward(
    rows: usize,
    channels: usize,
    x: &Memory,
    gamma: &Memory,
    stats: &Memory,
    dy: &Memory,
    before: Option<&Memory>,
) -> Gradients {
    let gpu = x.gpu();
    let [dx, dy_hat] = [(); 2].map(|()| gpu.allocate(x.len()));
    let pointers = [
        x.all(),
        gamma.all(),
        stats.all(),
        dy.all(),
        Pointer::of(before),
        dx.all(),
        dy_hat.all(),
    ];
    gpu.launch(
        "layer_norm_backward",
        [rows, 32],
        &pointers,
        &[channels],
        &[],
    );
    Gradients {
        dx,
        d_gamma: sum_rows(&dy_hat, rows, channels),
        d_beta: sum_rows(dy, rows, channels),
    }
}
