//! Two-dimensional convolution (the cross-correlation that the field calls so), channels last.

use super::Real;
use crate::conv::ConvShape;

/// Calls `f(pixel of x, pixel of y, kernel tap)` for every product of the convolution; pixels count
/// through batch, rows and columns, taps through the kernel's rows and columns.
fn for_each_tap(shape: &ConvShape, mut f: impl FnMut(usize, usize, usize)) {
    let (out_height, out_width) = (shape.out_height(), shape.out_width());
    for batch in 0..shape.batch {
        for out_row in 0..out_height {
            for out_column in 0..out_width {
                for tap_row in 0..shape.kernel {
                    for tap_column in 0..shape.kernel {
                        let row =
                            (out_row * shape.stride + tap_row).wrapping_sub(shape.padding.top);
                        let column = (out_column * shape.stride + tap_column)
                            .wrapping_sub(shape.padding.left);
                        // Rows above the picture wrap round to huge numbers.
                        if row < shape.height && column < shape.width {
                            f(
                                (batch * shape.height + row) * shape.width + column,
                                (batch * out_height + out_row) * out_width + out_column,
                                tap_row * shape.kernel + tap_column,
                            );
                        }
                    }
                }
            }
        }
    }
}

/// `out[b, y, x, o] = Σ weight[o, i, dy, dx] · x[b, y·stride + dy − top, x·stride + dx − left, i]`,
/// pixels outside the picture being zero; plus `bias[o]` and `residual` (shaped like `out`).
pub fn forward<R: Real>(
    shape: &ConvShape,
    x: &[R],
    weight: &[R],
    bias: Option<&[R]>,
    residual: Option<&[R]>,
    out: &mut [R],
) {
    let (i_len, o_len, taps) = (
        shape.in_channels,
        shape.out_channels,
        shape.kernel * shape.kernel,
    );
    assert_eq!(weight.len(), o_len * i_len * taps);
    out.fill(R::ZERO);
    for_each_tap(shape, |px, py, tap| {
        for o in 0..o_len {
            for i in 0..i_len {
                out[py * o_len + o] += weight[(o * i_len + i) * taps + tap] * x[px * i_len + i];
            }
        }
    });
    for (index, y) in out.iter_mut().enumerate() {
        *y += bias.map_or(R::ZERO, |b| b[index % o_len]);
        *y += residual.map_or(R::ZERO, |r| r[index]);
    }
}

/// The gradient `dx` of [`forward`]'s input from the gradient `dy` of its output.
pub fn backward_input<R: Real>(shape: &ConvShape, dy: &[R], weight: &[R], dx: &mut [R]) {
    let (i_len, o_len, taps) = (
        shape.in_channels,
        shape.out_channels,
        shape.kernel * shape.kernel,
    );
    dx.fill(R::ZERO);
    for_each_tap(shape, |px, py, tap| {
        for o in 0..o_len {
            for i in 0..i_len {
                dx[px * i_len + i] += weight[(o * i_len + i) * taps + tap] * dy[py * o_len + o];
            }
        }
    });
}

/// The gradient `dw` (`[O, I, kh, kw]`) of [`forward`]'s weight.
pub fn backward_weight<R: Real>(shape: &ConvShape, x: &[R], dy: &[R], dw: &mut [R]) {
    let (i_len, o_len, taps) = (
        shape.in_channels,
        shape.out_channels,
        shape.kernel * shape.kernel,
    );
    dw.fill(R::ZERO);
    for_each_tap(shape, |px, py, tap| {
        for o in 0..o_len {
            for i in 0..i_len {
                dw[(o * i_len + i) * taps + tap] += dy[py * o_len + o] * x[px * i_len + i];
            }
        }
    });
}
