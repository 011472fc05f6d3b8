//! AdamW, the average of the weights and Muon's steps, in place, of many parameters at a time.

use velatura_kernels::optimizer::{AdamW, Coefficients, approach};

use crate::multi::Table;
use crate::{Gpu, Memory};

/// A parameter for [`adamw`]: arrays of one length.
pub struct AdamWArrays<'a> {
    pub weights: &'a mut Memory,
    pub gradient: &'a Memory,
    pub first: &'a mut Memory,
    pub second: &'a mut Memory,
}

/// Step `step` (from 1) of AdamW; the gradients count `scale` times.
pub fn adamw(gpu: &Gpu, options: &AdamW, step: u64, scale: f32, parameters: &mut [AdamWArrays]) {
    let c = Coefficients::new(options, step, scale);
    let fractions = [
        c.grad_scale,
        c.keep,
        c.one_minus_beta1,
        c.beta2,
        c.one_minus_beta2,
        1.0 / c.root_correction2,
        c.eps,
        c.step_size,
    ];
    let rows = parameters
        .iter()
        .map(|p| [&*p.weights, p.gradient, &*p.first, &*p.second]);
    Table::new(gpu, rows).launch("adamw", &[], &[], &fractions);
}

/// average = decay · average + (1 − decay) · weights, of pairs of both.
pub fn ema(gpu: &Gpu, decay: f32, pairs: &mut [(&mut Memory, &Memory)]) {
    let rows = pairs.iter().map(|(average, weights)| [&**average, weights]);
    Table::new(gpu, rows).launch("approach", &[], &[], &[approach(decay)]);
}

/// mean = momentum · mean + share · gradient, of pairs of both that are all of one length, and then where to go, one after the
/// other: momentum · mean + share · gradient, divided by its norm, which counts as `eps` at least.
pub fn nesterov(
    gpu: &Gpu,
    [momentum, share, eps]: [f32; 3],
    pairs: &mut [(&mut Memory, &Memory)],
) -> Memory {
    let len = pairs.first().map_or(0, |(mean, _)| mean.len());
    let same = pairs.iter().all(|(mean, _)| mean.len() == len);
    assert!(same, "means of one length");
    let rows = pairs.iter().map(|(mean, gradient)| [&**mean, gradient]);
    let table = Table::new(gpu, rows);
    let (directions, pieces) = (gpu.allocate(pairs.len() * len), table.room_for_pieces());
    let pointers = [directions.all(), pieces.all()];
    table.launch("nesterov", &pointers, &[], &[momentum, share]);
    let squares = table.add_pieces(&pieces);
    let pointers = [directions.all(), squares.all()];
    gpu.each("normalise", directions.len(), &pointers, &[len], &[eps]);
    directions
}

/// weights = kept · weights − rate · direction; the directions, of one length, are one after the other.
pub fn descend([kept, rate]: [f32; 2], weights: &mut [&mut Memory], directions: &Memory) {
    let len = directions.len() / weights.len().max(1);
    let same = weights.iter().all(|x| x.len() == len);
    assert!(same, "weights of one length, as directions are");
    let rows = weights.iter().map(|x| [&**x]);
    let table = Table::new(directions.gpu(), rows);
    table.launch("descend", &[directions.all()], &[], &[kept, rate]);
}
