//! The sizes of a convolution.

use super::patches::{Patches, Run};
use crate::winograd::Geometry;

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
    ///
    /// # Panics
    /// When the kernel is larger than the padded picture, or the stride is 0.
    pub fn out_height(&self) -> usize {
        let padded = self.height + self.padding.top + self.padding.bottom;
        assert!(
            padded >= self.kernel,
            "the kernel is larger than the padded picture"
        );
        (padded - self.kernel) / self.stride + 1
    }

    /// Output columns.
    ///
    /// # Panics
    /// When the kernel is larger than the padded picture, or the stride is 0.
    pub fn out_width(&self) -> usize {
        let padded = self.width + self.padding.left + self.padding.right;
        assert!(
            padded >= self.kernel,
            "the kernel is larger than the padded picture"
        );
        (padded - self.kernel) / self.stride + 1
    }

    /// Numbers in the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.height * self.width * self.in_channels
    }

    /// Numbers in the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.out_channels
    }

    /// Numbers in the weight.
    pub fn weight_len(&self) -> usize {
        self.out_channels * self.in_channels * self.kernel * self.kernel
    }

    /// Whether the convolution is a matrix product of the picture as it lies.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == Padding::default()
    }

    /// What Winograd's algorithm needs to know.
    pub(super) fn geometry(&self) -> Geometry {
        Geometry {
            batch: self.batch,
            height: self.height,
            width: self.width,
            inputs: self.in_channels,
            out_height: self.out_height(),
            out_width: self.out_width(),
            outputs: self.out_channels,
            top: self.padding.top as isize,
            left: self.padding.left as isize,
        }
    }

    /// The convolution that makes the input's gradient from the output's.
    pub(super) fn turned_geometry(&self) -> Geometry {
        let last = self.kernel as isize - 1;
        Geometry {
            batch: self.batch,
            height: self.out_height(),
            width: self.out_width(),
            inputs: self.out_channels,
            out_height: self.height,
            out_width: self.width,
            outputs: self.in_channels,
            top: last - self.padding.top as isize,
            left: last - self.padding.left as isize,
        }
    }

    /// The patches of the input under the kernel: one row per output pixel, columns through kernel
    /// rows, kernel columns and channels.
    pub(super) fn patches<'a>(&self, x: &'a [f32]) -> Patches<'a> {
        let run = |tap_row: usize| Run {
            row: tap_row as isize - self.padding.top as isize,
            column: -(self.padding.left as isize),
        };
        Patches {
            x,
            height: self.height,
            width: self.width,
            channels: self.in_channels,
            grid_height: self.out_height(),
            grid_width: self.out_width(),
            stride: self.stride,
            runs: (0..self.kernel).map(run).collect(),
            taps: self.kernel,
        }
    }
}
