//! Group and layer normalisation.

use velatura_kernels::norm::GroupNormShape;

use crate::device::{PLACES, THREADS};
use crate::elementwise::sum_rows;
use crate::{Memory, Pointer};

/// Places of a sample that a block sums over.
const SUMMED: usize = 256;

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
    let pieces = spatial.div_ceil(SUMMED);
    let moments = gpu.allocate(batch * pieces * channels * 2);
    let summed = [batch, spatial, channels, SUMMED];
    gpu.tiles("channel_moments", summed, &[x.all(), moments.all()], &[]);

    let stats = gpu.allocate(batch * groups * 2);
    let pointers = [moments.all(), stats.all()];
    let numbers = [spatial, channels, SUMMED, groups];
    gpu.launch(
        "group_norm_stats",
        [batch * groups, 32],
        &pointers,
        &numbers,
        &[eps],
    );

    let out = gpu.allocate(x.len());
    let pointers = [
        x.all(),
        stats.all(),
        affine.gamma.all(),
        affine.beta.all(),
        out.all(),
    ];
    let sizes = [batch, spatial, channels, PLACES];
    gpu.tiles(
        "group_norm_apply",
        sizes,
        &pointers,
        &[groups, usize::from(silu)],
    );
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
    let pieces = spatial.div_ceil(SUMMED);
    let [sum, sum_hat] = [(); 2].map(|()| gpu.allocate(batch * pieces * channels));
    let given = [x.all(), stats.all(), gamma.all(), beta.all(), dy.all()];
    let pointers = [&given[..], &[sum.all(), sum_hat.all()]].concat();
    let summed = [batch, spatial, channels, SUMMED];
    gpu.tiles("group_norm_sums", summed, &pointers, &[groups, silu]);

    let means = gpu.allocate(batch * groups * 2);
    let pointers = [sum.all(), sum_hat.all(), gamma.all(), means.all()];
    let numbers = [spatial, channels, SUMMED, groups];
    gpu.launch(
        "group_norm_means",
        [batch * groups, 32],
        &pointers,
        &numbers,
        &[],
    );

    let dx = gpu.allocate(x.len());
    let pointers = [&given[..], &[means.all(), Pointer::of(before), dx.all()]].concat();
    let sizes = [batch, spatial, channels, PLACES];
    gpu.tiles("group_norm_backward", sizes, &pointers, &[groups, silu]);
    Gradients {
        dx,
        d_gamma: sum_rows(&sum_hat, batch * pieces, channels),
        d_beta: sum_rows(&sum, batch * pieces, channels),
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
    let blocks = [rows.div_ceil(THREADS / 32), THREADS];
    gpu.launch("layer_norm", blocks, &pointers, &[rows, channels], &[eps]);
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
    let blocks = [rows.div_ceil(THREADS / 32), THREADS];
    gpu.launch(
        "layer_norm_backward",
        blocks,
        &pointers,
        &[rows, channels],
        &[],
    );
    Gradients {
        dx,
        d_gamma: sum_rows(&dy_hat, rows, channels),
        d_beta: sum_rows(dy, rows, channels),
    }
}
