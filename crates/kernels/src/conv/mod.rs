//! Two-dimensional convolution, channels last.

use crate::gemm::{Epilogue, Precision};
use crate::reference;

/// Rows and columns of zeros around the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns on the left.
    pub left: usize,
    /// Columns on the right.
    pub right: usize,
}

impl Padding {
    /// The same on all four sides.
    pub const fn uniform(pixels: usize) -> Self {
        Padding {
            top: pixels,
            bottom: pixels,
            left: pixels,
            right: pixels,
        }
    }
}

/// The sizes of a convolution `x: [batch, height, width, in_channels]` →
/// `[batch, out_height, out_width, out_channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Pictures.
    pub batch: usize,
    /// Input rows.
    pub height: usize,
    /// Input columns.
    pub width: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Kernel rows, and kernel columns.
    pub kernel: usize,
    /// Step between outputs, in input pixels.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: Padding,
}

impl ConvShape {
    /// Output rows.
    pub fn out_height(&self) -> usize {
        let padded = self.height + self.padding.top + self.padding.bottom;
        assert!(
            padded >= self.kernel,
            "the kernel is larger than the padded picture"
        );
        (padded - self.kernel) / self.stride + 1
    }

    /// Output columns.
    pub fn out_width(&self) -> usize {
        let padded = self.width + self.padding.left + self.padding.right;
        assert!(
            padded >= self.kernel,
            "the kernel is larger than the padded picture"
        );
        (padded - self.kernel) / self.stride + 1
    }
}

/// A convolution's weight, packed once.
#[derive(Clone, Debug)]
pub struct PackedConv {
    weight: Vec<f32>,
    precision: Precision,
}

impl PackedConv {
    /// Packs `weight: [O, I, kh, kw]` for [`forward`].
    pub fn new(
        weight: &[f32],
        out_channels: usize,
        in_channels: usize,
        kernel: usize,
        precision: Precision,
    ) -> Self {
        assert_eq!(weight.len(), out_channels * in_channels * kernel * kernel);
        PackedConv {
            weight: weight.to_vec(),
            precision,
        }
    }

    /// Packs `weight: [O, I, kh, kw]` for [`backward_input`].
    pub fn for_input_gradient(
        weight: &[f32],
        out_channels: usize,
        in_channels: usize,
        kernel: usize,
        precision: Precision,
    ) -> Self {
        Self::new(weight, out_channels, in_channels, kernel, precision)
    }

    /// The number format.
    pub fn precision(&self) -> Precision {
        self.precision
    }
    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        self.weight.len() * 4
    }
}

/// `out: [B, OH, OW, O] = conv(x) + bias + residual`.
pub fn forward(
    shape: &ConvShape,
    x: &[f32],
    weight: &PackedConv,
    out: &mut [f32],
    epilogue: &Epilogue,
) {
    reference::conv::forward(
        shape,
        x,
        &weight.weight,
        epilogue.bias,
        epilogue.residual,
        out,
    );
}

/// The gradient of [`forward`]'s input.
pub fn backward_input(shape: &ConvShape, dy: &[f32], weight: &PackedConv, dx: &mut [f32]) {
    reference::conv::backward_input(shape, dy, &weight.weight, dx);
}

/// The gradient `dw: [O, I, kh, kw]` of [`forward`]'s weight.
pub fn backward_weight(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    reference::conv::backward_weight(shape, x, dy, dw);
}
