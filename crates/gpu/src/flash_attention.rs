//! Attention on the matrix units, in bf16 with f32 sums, without the matrix of scores in memory
//! (Dao 2023, "FlashAttention-2", arXiv:2307.08691).

use std::f32::consts::LOG2_E;

use velatura_kernels::attention::AttentionShape;
use velatura_kernels::gemm::Precision;

use crate::{Gpu, Memory};

/// Threads of a block, and the queries or keys that it has.
const THREADS: usize = 128;
const ROWS: usize = 64;

/// Whether the kernels here take attention of this shape: a head's numbers have to fit into a tile.
pub fn takes(gpu: &Gpu, shape: &AttentionShape) -> bool {
    shape.precision != Precision::F32
        && gpu.has_matrix_units()
        && shape.head_dim <= 64
        && shape.head_dim.is_multiple_of(4)
}

fn numbers(shape: &AttentionShape) -> [usize; 5] {
    [
        shape.queries,
        shape.keys,
        shape.heads,
        shape.head_dim,
        usize::from(shape.causal),
    ]
}

/// What products are multiplied by to be powers of two, and to be scores.
fn scales(shape: &AttentionShape) -> [f32; 2] {
    let scale = 1.0 / (shape.head_dim as f32).sqrt();
    [scale * LOG2_E, scale]
}

/// Blocks where each takes some of the `rows` of a head.
fn blocks(shape: &AttentionShape, rows: usize) -> [usize; 2] {
    [shape.batch * shape.heads * rows.div_ceil(ROWS), THREADS]
}

/// As [`attention::forward`](crate::attention::forward): the result, and for each query the logarithm of its scores' sum.
pub fn forward(shape: &AttentionShape, q: &Memory, k: &Memory, v: &Memory) -> [Memory; 2] {
    let gpu = q.gpu();
    let out = gpu.allocate(q.len());
    let sums = gpu.allocate(shape.batch * shape.heads * shape.queries);
    let pointers = [q, k, v, &out, &sums].map(Memory::all);
    gpu.launch(
        "flash_attention",
        blocks(shape, shape.queries),
        &pointers,
        &numbers(shape),
        &scales(shape),
    );
    [out, sums]
}

/// The gradients of q, k and v.
pub fn backward(
    shape: &AttentionShape,
    [q, k, v]: [&Memory; 3],
    [out, sums]: [&Memory; 2],
    dy: &Memory,
) -> [Memory; 3] {
    let gpu = q.gpu();
    let [dq, dk, dv] = [q, k, v].map(|x| gpu.allocate(x.len()));
    let common = gpu.allocate(sums.len());
    let sizes = [shape.queries, shape.heads, shape.head_dim];
    let pointers = [dy, out, &common].map(Memory::all);
    gpu.each(
        "flash_attention_common",
        common.len(),
        &pointers,
        &sizes,
        &[],
    );
    let given = [q, k, v, dy, sums, &common].map(Memory::all);
    let (numbers, scales) = (numbers(shape), scales(shape));
    let pointers = [&given[..], &[dq.all()]].concat();
    let size = blocks(shape, shape.queries);
    gpu.launch(
        "flash_attention_queries",
        size,
        &pointers,
        &numbers,
        &scales,
    );
    let pointers = [&given[..], &[dk.all(), dv.all()]].concat();
    let size = blocks(shape, shape.keys);
    gpu.launch("flash_attention_keys", size, &pointers, &numbers, &scales);
    [dq, dk, dv]
}
