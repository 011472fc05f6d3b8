//! The gradients of a convolution.

use super::packed::Form;
use super::patches::{Patches, Run};
use super::{Algorithm, ConvShape, PackedConv};
use crate::elementwise::sum_rows_unnoted;
use crate::gemm::driver::{OutRows, Product, Segment};
use crate::gemm::operands::{Left, Right};
use crate::gemm::weight_gradient::{Inputs, WeightGradient};
use crate::gemm::{self, Epilogue, PackedMatrix, Precision};
use crate::tiles::{self, Places};
use crate::{isa, pool, scratch, winograd};

/// The gradient `dx: [B, H, W, I]` of [`forward`](super::forward)'s input from the gradient
/// `dy: [B, OH, OW, O]` of its output: `dx[b, y, x, i] = Σ weight[o, i, dy, dx] · dy[b, (y + top −
/// dy) / stride, (x + left − dx) / stride, o]` where the divisions leave no rest.
///
/// The pixels of one rest (`stride²` of them) meet the same taps, so that each kind is a convolution
/// of stride 1 over `dy` with those taps, and no product with zero is computed.
///
/// # Panics
/// When a slice's length does not fit the shape, or the weight was not packed
/// [for the input gradient](PackedConv::for_input_gradient).
pub fn backward_input(shape: &ConvShape, dy: &[f32], weight: &PackedConv, dx: &mut [f32]) {
    weight.check(shape, true);
    assert_eq!(
        dy.len(),
        shape.output_len(),
        "an output gradient for {shape:?}"
    );
    assert_eq!(
        dx.len(),
        shape.input_len(),
        "an input gradient for {shape:?}"
    );
    let matrix = match &weight.form {
        Form::Direct(matrix) => matrix,
        Form::Winograd(packed) => {
            let epilogue = Epilogue::default();
            return winograd::forward(&shape.turned_geometry(), dy, packed, dx, &epilogue);
        }
    };
    if shape.is_pointwise() {
        let m = shape.batch * shape.height * shape.width;
        return gemm::matmul_packed(m, dy, matrix, dx, &Epilogue::default());
    }
    for phase_row in 0..shape.stride.min(shape.height) {
        for phase_column in 0..shape.stride.min(shape.width) {
            input_phase(shape, dy, matrix, dx, (phase_row, phase_column));
        }
    }
}

/// The taps of one axis that meet the pixels `phase, phase + stride, …`, from the last to the first
/// (the order in which they were packed), each with the place in `dy` that it reads for the first
/// pixel.
fn phase_taps(shape: &ConvShape, before: usize, phase: usize) -> Vec<(usize, isize)> {
    let meets = |tap: &usize| {
        (phase + before + shape.kernel * shape.stride - tap).is_multiple_of(shape.stride)
    };
    let place = |tap: usize| (phase + before) as isize - tap as isize;
    (0..shape.kernel)
        .rev()
        .filter(meets)
        .map(|tap| {
            (
                shape.kernel - 1 - tap,
                place(tap).div_euclid(shape.stride as isize),
            )
        })
        .collect()
}

/// The pixels `phase + (i, j) · stride` of `dx`.
fn input_phase(
    shape: &ConvShape,
    dy: &[f32],
    matrix: &PackedMatrix,
    dx: &mut [f32],
    phase: (usize, usize),
) {
    let (stride, channels) = (shape.stride, shape.out_channels);
    let rows = phase_taps(shape, shape.padding.top, phase.0);
    let columns = phase_taps(shape, shape.padding.left, phase.1);
    let (mut runs, mut segments) = (Vec::new(), Vec::new());
    // With stride 1 all taps of a kernel row are neighbours in `dy`, and all of the packed weight is
    // one piece. Otherwise each tap is a run of its own.
    let taps = if stride == 1 { shape.kernel } else { 1 };
    for &(tap_row, row) in &rows {
        for &(tap_column, column) in columns.iter().step_by(taps) {
            segments.push(Segment {
                left: runs.len() * taps * channels,
                right: (tap_row * shape.kernel + tap_column) * channels,
                len: taps * channels,
            });
            runs.push(Run { row, column });
        }
    }
    let left_k = runs.len() * taps * channels;
    if stride == 1 || runs.is_empty() {
        segments = vec![Segment {
            left: 0,
            right: 0,
            len: left_k,
        }];
    }
    let grid_height = (shape.height - phase.0).div_ceil(stride);
    let grid_width = (shape.width - phase.1).div_ceil(stride);
    let patches = Patches {
        x: dy,
        height: shape.out_height(),
        width: shape.out_width(),
        channels,
        grid_height,
        grid_width,
        stride: 1,
        runs,
        taps,
    };
    let place = |pixel: usize| {
        let (line, column) = (pixel / grid_width, pixel % grid_width);
        let (batch, row) = (line / grid_height, line % grid_height);
        (batch * shape.height + row * stride + phase.0) * shape.width + column * stride + phase.1
    };
    let product = Product {
        m: shape.batch * grid_height * grid_width,
        left_k,
        right_k: matrix.k(),
        left: Left::Patches(&patches),
        right: matrix.right(),
        panels: matrix.panels(),
        segments: &segments,
        rows: if stride == 1 {
            OutRows::Contiguous
        } else {
            OutRows::Mapped(&place)
        },
        epilogue: Epilogue::default(),
        accumulate: false,
        gated: false,
    };
    product.run(matrix.isa(), dx);
}

/// The gradient `dw: [O, I, kh, kw]` of [`forward`](super::forward)'s weight: `dw[o, i, dy, dx] =
/// Σ dy[b, y, x, o] · x[b, y·stride + dy − top, x·stride + dx − left, i]`, and `db: [O]` of its bias, the sums of `dy`.
///
/// With [`Precision::Bf16`] the factors of the products are rounded to bf16 where the CPU has a matrix unit or a dot product.
///
/// # Panics
/// When a slice's length does not fit the shape.
pub fn backward_weight(
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    db: Option<&mut [f32]>,
    precision: Precision,
) {
    let algorithm = Algorithm::choose_for_weight_gradient(shape, precision);
    backward_weight_by(algorithm, shape, x, dy, dw, db, precision);
}

/// [`backward_weight`] by another algorithm than the one it would take.
///
/// # Panics
/// When a slice's length does not fit the shape, or the algorithm is none for it.
pub fn backward_weight_by(
    algorithm: Algorithm,
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    mut db: Option<&mut [f32]>,
    precision: Precision,
) {
    assert_eq!(x.len(), shape.input_len(), "an input for {shape:?}");
    assert_eq!(
        dy.len(),
        shape.output_len(),
        "an output gradient for {shape:?}"
    );
    assert_eq!(
        dw.len(),
        shape.weight_len(),
        "a weight gradient for {shape:?}"
    );
    let (outputs, channels) = (shape.out_channels, shape.in_channels);
    let pixels = shape.batch * shape.out_height() * shape.out_width();
    if let Algorithm::Winograd(tile) = algorithm {
        assert_eq!((shape.kernel, shape.stride), (3, 1), "for 3×3 of stride 1");
        return winograd::weight_gradient(&shape.geometry(), tile, precision, x, dy, dw, db);
    }
    if shape.is_pointwise() {
        return gemm::weight_gradient((pixels, outputs, channels), dy, x, dw, db, precision);
    }
    let taps = shape.kernel * shape.kernel;
    let columns = taps * channels;
    let patches = shape.patches(x);
    let isa = isa::active();
    let dotted = precision == Precision::Bf16 && isa.has_bf16_dot();
    if let (Some(db), false) = (&mut db, dotted) {
        sum_rows_unnoted(pixels, outputs, dy, db);
    }
    if precision == Precision::Bf16 && isa.has_tiles() {
        let places = Places::patches(&patches, shape.batch);
        return tiles::weight_gradient(&places, outputs, dy, dw);
    }
    let mut by_tap = scratch::lease(outputs * columns);
    if dotted {
        let work = WeightGradient {
            rows: pixels,
            outputs,
            columns,
            dy,
            x: Inputs::Patches(&patches),
        };
        work.run(isa, &mut by_tap, db);
    } else if shape.stride == 1 && outputs < channels {
        return few_outputs(isa, shape, x, dy, dw);
    } else {
        let panels = gemm::packed::panels(isa, columns, Precision::F32);
        let (left, right) = (Left::Columns(dy), Right::Patches(&patches));
        gemm::multiply(
            isa,
            outputs,
            pixels,
            left,
            right,
            panels,
            &mut by_tap,
            false,
        );
    }
    // [O, kh, kw, I] → [O, I, kh, kw]
    if columns == 0 {
        return;
    }
    let by_tap = &*by_tap;
    pool::parallel_chunks_mut(dw, columns, |o, dw| {
        let from = &by_tap[o * columns..][..columns];
        for (i, dw) in dw.chunks_exact_mut(taps).enumerate() {
            for (tap, to) in dw.iter_mut().enumerate() {
                *to = from[tap * channels + i];
            }
        }
    });
}

/// The same in f32 with the factors' parts exchanged, a sum over the pixels of the input: of the two it is the picture with
/// fewer channels whose patches are gathered.
fn few_outputs(isa: isa::Isa, shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (outputs, channels, kernel) = (shape.out_channels, shape.in_channels, shape.kernel);
    let before = |padding: usize| padding as isize - (kernel as isize - 1);
    let (row, column) = (before(shape.padding.top), before(shape.padding.left));
    // From the last tap to the first, as for the input's gradient.
    let patches = Patches {
        x: dy,
        height: shape.out_height(),
        width: shape.out_width(),
        channels: outputs,
        grid_height: shape.height,
        grid_width: shape.width,
        stride: 1,
        runs: (row..=row + kernel as isize - 1)
            .map(|row| Run { row, column })
            .collect(),
        taps: kernel,
    };
    let taps = kernel * kernel;
    let columns = taps * outputs;
    let pixels = shape.batch * shape.height * shape.width;
    let mut turned = scratch::lease(channels * columns);
    let panels = gemm::packed::panels(isa, columns, Precision::F32);
    let (left, right) = (Left::Columns(x), Right::Patches(&patches));
    gemm::multiply(
        isa,
        channels,
        pixels,
        left,
        right,
        panels,
        &mut turned,
        false,
    );
    // [I, kh, kw, O], turned round → [O, I, kh, kw]
    for (i, from) in turned.chunks_exact(columns.max(1)).enumerate() {
        for tap in 0..taps {
            for o in 0..outputs {
                dw[(o * channels + i) * taps + tap] = from[(taps - 1 - tap) * outputs + o];
            }
        }
    }
}
