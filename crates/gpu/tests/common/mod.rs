//! Numbers from a seed, the way to the emulated card and back, and how close results must be.
#![allow(dead_code)]

use velatura_gpu::Memory;
use velatura_kernels::conv::{ConvShape, Padding};

/// Numbers in −1..1 from `seed` (a 64-bit multiplicative generator's upper bits).
pub fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state = state
            .wrapping_mul(0xd129_0129_f1c6_2d45)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Numbers that bf16 has, in −scale..scale.
pub fn coarse(len: usize, seed: u64, scale: f32) -> Vec<f32> {
    let cut = |x: f32| f32::from_bits((x * scale).to_bits() & 0xffff_0000);
    random(len, seed).into_iter().map(cut).collect()
}

/// `len` zeros, for the processor to write into.
pub fn zeros(len: usize) -> Vec<f32> {
    vec![0.0; len]
}

/// What is on the card.
pub fn numbers(x: &Memory) -> Vec<f32> {
    let mut values = vec![0.0; x.len()];
    x.download(&mut values);
    values
}

/// How far a number may be off, as a share of the largest in its array.
///
/// Both sides round to f32 (6e-8), but sum in another order. Roundings of n terms, of either sign, add up to some √n of
/// them, 2e-6 for the sums of about 1000 here, and a gradient goes through two or three such sums. A term too few or
/// too many is off by 1e-3 and more.
const TOLERANCE: f32 = 1e-5;

/// Every number within [`TOLERANCE`] of what the processor has.
#[track_caller]
pub fn assert_close(what: &str, got: &Memory, want: &[f32]) {
    let got = numbers(got);
    assert_eq!(got.len(), want.len(), "{what}: numbers");
    let largest = want.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    let distance = |i: &usize| match (got[*i] - want[*i]).abs() {
        nan if nan.is_nan() => f32::INFINITY,
        distance => distance,
    };
    let worst = (0..got.len()).max_by(|a, b| distance(a).total_cmp(&distance(b)));
    if let Some(i) = worst {
        assert!(
            distance(&i) <= TOLERANCE * largest,
            "{what}: [{i}] of {} is {}, should be {}; the largest is {largest}",
            got.len(),
            got[i],
            want[i]
        );
    }
}

/// Every number the same, as copies are.
#[track_caller]
pub fn assert_same(what: &str, got: &Memory, want: &[f32]) {
    let got = numbers(got);
    assert_eq!(got.len(), want.len(), "{what}: numbers");
    if let Some(i) = (0..got.len()).find(|&i| got[i].to_bits() != want[i].to_bits()) {
        panic!("{what}: [{i}] is {}, should be {}", got[i], want[i]);
    }
}

/// Batch, height and width; channels in and out; kernel and stride; padding at the top, bottom, left and right.
pub fn shape(
    (batch, height, width): (usize, usize, usize),
    (in_channels, out_channels): (usize, usize),
    (kernel, stride): (usize, usize),
    [top, bottom, left, right]: [usize; 4],
) -> ConvShape {
    let padding = Padding {
        top,
        bottom,
        left,
        right,
    };
    ConvShape {
        batch,
        height,
        width,
        in_channels,
        out_channels,
        kernel,
        stride,
        padding,
    }
}
