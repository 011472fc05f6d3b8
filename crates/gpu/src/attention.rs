//! Attention: [without the matrix of scores in memory](flash_attention) where that can be, else with it, `[heads, B, Sq, Sk]`.

use velatura_kernels::attention::AttentionShape;

use crate::matmul::Product;
use crate::{Gpu, Memory, flash_attention};

/// What one of a head's five products multiplies: matrices of places × places, and of places × a head's numbers.
#[derive(Clone, Copy)]
enum Kind {
    /// `[Sq, D]` · `[Sk, D]`ᵀ → `[Sq, Sk]`
    Scores,
    /// `[Sq, Sk]` · `[Sk, D]` → `[Sq, D]`
    ForQueries,
    /// `[Sq, Sk]`ᵀ · `[Sq, D]` → `[Sk, D]`
    ForKeys,
}

/// One product for every head and sample.
fn product(shape: &AttentionShape, kind: Kind, alpha: f32, a: &Memory, b: &Memory, c: &Memory) {
    let &AttentionShape {
        batch,
        heads,
        queries,
        keys,
        head_dim,
        ..
    } = shape;
    let row = heads * head_dim;
    let (at_queries, at_keys, between) = (
        [row, queries * row, head_dim],
        [row, keys * row, head_dim],
        [keys, queries * keys, batch * queries * keys],
    );
    // Of each matrix: the width of a row, from a sample to the next, from a head to the next.
    let (sizes, transposed, [la, lb, lc]) = match kind {
        Kind::Scores => (
            [queries, keys, head_dim],
            [false, true],
            [at_queries, at_keys, between],
        ),
        Kind::ForQueries => (
            [queries, head_dim, keys],
            [false, false],
            [between, at_keys, at_queries],
        ),
        Kind::ForKeys => (
            [keys, head_dim, queries],
            [true, false],
            [between, at_queries, at_keys],
        ),
    };
    let product = Product {
        widths: [la[0], lb[0], lc[0]],
        batch,
        strides: [la[1], lb[1], lc[1]],
        alpha,
        ..Product::new(sizes, transposed, shape.precision)
    };
    for head in 0..heads {
        let gpu = a.gpu();
        gpu.multiply(
            &product,
            a.at(head * la[2]),
            b.at(head * lb[2]),
            c.at(head * lc[2]),
        );
    }
}

fn scores(gpu: &Gpu, shape: &AttentionShape) -> Memory {
    gpu.allocate(shape.batch * shape.heads * shape.queries * shape.keys)
}

fn scale(shape: &AttentionShape) -> f32 {
    1.0 / (shape.head_dim as f32).sqrt()
}

/// softmax(q·kᵀ / √D)·v for each head, q `[B, Sq, heads·D]`, k and v `[B, Sk, heads·D]`; and what [`backward`] needs, the
/// probabilities or their sums.
pub fn forward(shape: &AttentionShape, q: &Memory, k: &Memory, v: &Memory) -> [Memory; 2] {
    if flash_attention::takes(q.gpu(), shape) {
        return flash_attention::forward(shape, q, k, v);
    }
    let gpu = q.gpu();
    let (p, out) = (scores(gpu, shape), gpu.allocate(q.len()));
    product(shape, Kind::Scores, scale(shape), q, k, &p);
    let rows = shape.batch * shape.heads * shape.queries;
    let causal = if shape.causal { shape.queries } else { 0 };
    gpu.launch(
        "softmax",
        [rows, 32],
        &[p.all()],
        &[shape.keys, causal],
        &[],
    );
    product(shape, Kind::ForQueries, 1.0, &p, v, &out);
    [out, p]
}

/// The gradients of q, k and v, from what [`forward`] gave.
pub fn backward(
    shape: &AttentionShape,
    [q, k, v]: [&Memory; 3],
    [out, p]: [&Memory; 2],
    dy: &Memory,
) -> [Memory; 3] {
    if flash_attention::takes(q.gpu(), shape) {
        return flash_attention::backward(shape, [q, k, v], [out, p], dy);
    }
    let gpu = q.gpu();
    let [dq, dk, dv] = [q, k, v].map(|x| gpu.allocate(x.len()));
    product(shape, Kind::ForKeys, 1.0, p, dy, &dv);
    let d = scores(gpu, shape);
    product(shape, Kind::Scores, 1.0, dy, v, &d);
    let rows = shape.batch * shape.heads * shape.queries;
    gpu.launch(
        "softmax_backward",
        [rows, 32],
        &[p.all(), d.all()],
        &[shape.keys],
        &[],
    );
    product(shape, Kind::ForQueries, scale(shape), &d, k, &dq);
    product(shape, Kind::ForKeys, scale(shape), &d, q, &dk);
    [dq, dk, dv]
}
