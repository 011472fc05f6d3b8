//! Convolution: each output place's view of the input in a row of its own (im2col), times the weight. Without the views in
//! memory, where the card can: [`conv_product`](crate::conv_product).

use velatura_kernels::conv::ConvShape;
use velatura_kernels::gemm::Precision;

use crate::layout::swap_axes;
use crate::matmul::{Product, begin};
use crate::{Gpu, Memory};

/// Numbers that the views take at most at a time, 1 GiB; a larger batch goes through in pieces.
const MOST: usize = 256 << 20;

/// How a batch goes through: in pieces of so many samples.
struct Views<'a> {
    shape: &'a ConvShape,
    /// Output places of a sample.
    places: usize,
    /// Numbers that a place sees.
    seen: usize,
    /// Samples of a piece.
    samples: usize,
}

impl<'a> Views<'a> {
    fn new(shape: &'a ConvShape) -> Self {
        let places = shape.out_height() * shape.out_width();
        let seen = shape.kernel * shape.kernel * shape.in_channels;
        let samples = (MOST / (places * seen)).clamp(1, shape.batch.max(1));
        Views {
            shape,
            places,
            seen,
            samples,
        }
    }

    /// The pieces: the first sample of each and how many it has.
    fn pieces(&self) -> impl Iterator<Item = (usize, usize)> {
        let (batch, samples) = (self.shape.batch, self.samples);
        (0..batch)
            .step_by(samples)
            .map(move |first| (first, samples.min(batch - first)))
    }

    fn buffer(&self, gpu: &Gpu) -> Memory {
        gpu.allocate(self.samples * self.places * self.seen)
    }

    /// Writes the views of `count` samples from `first` on.
    fn fill(&self, x: &Memory, (first, count): (usize, usize), columns: &Memory) {
        let sample = self.shape.height * self.shape.width * self.shape.in_channels;
        let pointers = [x.at(first * sample), columns.all()];
        let elements = count * self.places * self.shape.in_channels;
        x.gpu()
            .each("im2col", elements, &pointers, &geometry(self.shape), &[]);
    }
}

/// What a convolution's kernels are told of it, after how many elements there are.
pub(crate) fn geometry(shape: &ConvShape) -> [usize; 9] {
    [
        shape.height,
        shape.width,
        shape.in_channels,
        shape.kernel,
        shape.stride,
        shape.padding.top,
        shape.padding.left,
        shape.out_height(),
        shape.out_width(),
    ]
}

/// The weight `[O, I, k, k]` as `[O, k, k, I]`, the order of the views.
fn by_places(weight: &Memory, shape: &ConvShape) -> Memory {
    swap_axes(weight, shape.in_channels, shape.kernel * shape.kernel)
}

/// x `[B, H, W, I]` convolved with W `[O, I, k, k]`, plus bias and residual: `[B, H', W', O]`.
pub fn forward(
    shape: &ConvShape,
    x: &Memory,
    weight: &Memory,
    bias: Option<&Memory>,
    residual: Option<&Memory>,
    precision: Precision,
) -> Memory {
    let (gpu, views, outputs) = (x.gpu(), Views::new(shape), shape.out_channels);
    let weight = by_places(weight, shape);
    let out = gpu.allocate(shape.batch * views.places * outputs);
    let fresh = bias.is_none() && residual.is_none();
    if !fresh {
        begin(gpu, &out, outputs, bias, residual);
    }
    let columns = views.buffer(gpu);
    for piece in views.pieces() {
        views.fill(x, piece, &columns);
        let rows = piece.1 * views.places;
        let mut product = Product::new([rows, outputs, views.seen], [false, true], precision);
        if !fresh {
            product = product.onto();
        }
        let to = out.at(piece.0 * views.places * outputs);
        gpu.multiply(&product, columns.all(), weight.all(), to);
    }
    out
}

/// The gradient of x.
pub fn backward_input(
    shape: &ConvShape,
    dy: &Memory,
    weight: &Memory,
    precision: Precision,
) -> Memory {
    let (gpu, views, outputs) = (dy.gpu(), Views::new(shape), shape.out_channels);
    let weight = by_places(weight, shape);
    let sample = shape.height * shape.width * shape.in_channels;
    let dx = gpu.allocate(shape.batch * sample);
    let columns = views.buffer(gpu);
    for (first, count) in views.pieces() {
        let rows = count * views.places;
        let product = Product::new([rows, views.seen, outputs], [false, false], precision);
        let from = dy.at(first * views.places * outputs);
        gpu.multiply(&product, from, weight.all(), columns.all());
        let pointers = [columns.all(), dx.at(first * sample)];
        gpu.each("col2im", count * sample, &pointers, &geometry(shape), &[]);
    }
    dx
}

/// The gradient of the weight `[O, I, k, k]`.
pub fn backward_weight(shape: &ConvShape, x: &Memory, dy: &Memory, precision: Precision) -> Memory {
    let (gpu, views, outputs) = (dy.gpu(), Views::new(shape), shape.out_channels);
    let dw = gpu.filled(outputs * views.seen, 0.0);
    let columns = views.buffer(gpu);
    for piece in views.pieces() {
        views.fill(x, piece, &columns);
        let rows = piece.1 * views.places;
        let product = Product::new([outputs, views.seen, rows], [true, false], precision).onto();
        let from = dy.at(piece.0 * views.places * outputs);
        gpu.multiply(&product, from, columns.all(), dw.all());
    }
    swap_axes(&dw, shape.kernel * shape.kernel, shape.in_channels)
}
