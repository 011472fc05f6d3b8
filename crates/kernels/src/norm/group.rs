//! Group normalisation (Wu & He, "Group Normalization", 2018), with SiLU fused behind it.

mod backward;

pub use backward::group_norm_backward;

use crate::elementwise::row_block;
use crate::isa::{self, Kernel, Simd};
use crate::map::{for_each_piece, for_each_task};
use crate::math;
use crate::profile;
use crate::scratch;
use crate::shared::SharedMut;
use std::ops::Range;

/// Numbers that are worked on at a time, where samples are not larger: 8 MiB each of two slices, in a third-level cache.
const PASS: usize = 2 << 20;

/// Sizes of a group norm over `[batch, spatial, channels]`; a group is `channels / groups`
/// neighbouring channels at all places of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupNormShape {
    /// Samples.
    pub batch: usize,
    /// Places: height · width.
    pub spatial: usize,
    /// Channels, a multiple of `groups`.
    pub channels: usize,
    /// Groups of channels.
    pub groups: usize,
}

impl GroupNormShape {
    fn len(&self) -> usize {
        self.batch * self.spatial * self.channels
    }

    fn check(&self) {
        let fits = self.groups > 0 && self.channels.is_multiple_of(self.groups);
        assert!(
            fits,
            "{} channels are not divisible into {} groups",
            self.channels, self.groups
        );
    }

    fn note(&self, what: &str) -> Option<profile::Note> {
        let GroupNormShape {
            batch,
            spatial,
            channels,
            ..
        } = *self;
        profile::note(|| {
            let name = format!("{what} {batch}×{spatial}×{channels}");
            (name, isa::active().to_string(), 0.0)
        })
    }

    /// Samples that are worked on at a time, so that what is read twice is still in a cache.
    fn passes(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let batch = self.batch;
        let samples = (PASS / (self.spatial * self.channels).max(1)).clamp(1, batch.max(1));
        (0..batch)
            .step_by(samples)
            .map(move |first| first..batch.min(first + samples))
    }

    /// The shape of some samples, and where they stand in `x` and in `stats`.
    fn cut(&self, samples: &Range<usize>) -> (GroupNormShape, Range<usize>, Range<usize>) {
        let (sample, stats) = (self.spatial * self.channels, 2 * self.groups);
        let shape = GroupNormShape {
            batch: samples.len(),
            ..*self
        };
        let numbers = samples.start * sample..samples.end * sample;
        (shape, numbers, samples.start * stats..samples.end * stats)
    }

    /// Rows per task and tasks per sample.
    fn blocks(&self) -> (usize, usize) {
        let block = row_block(self.channels);
        (block, self.spatial.div_ceil(block))
    }

    /// Calls `task(index, sample, start, len)` for all blocks of rows of all samples.
    fn for_each_block(&self, task: impl Fn(usize, usize, usize, usize) + Sync) {
        let (block, blocks) = self.blocks();
        for_each_task(self.len(), self.batch * blocks, |i| {
            let (b, first) = (i / blocks, i % blocks * block);
            let rows = block.min(self.spatial - first);
            task(
                i,
                b,
                (b * self.spatial + first) * self.channels,
                rows * self.channels,
            );
        });
    }
}

/// `out = act((x − mean) · rstd · gamma + beta)`, where act is SiLU or nothing, and the moments are
/// those of each group of each sample: rstd = 1/√(variance + eps). `x, out: [batch, spatial,
/// channels]`, `gamma, beta: [channels]`, `stats: [batch, groups, 2]` receives mean and rstd.
///
/// # Panics
/// When a length does not fit the shape, or the groups do not divide the channels.
#[allow(clippy::too_many_arguments)]
pub fn group_norm(
    shape: &GroupNormShape,
    eps: f32,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    silu: bool,
    out: &mut [f32],
    stats: &mut [f32],
) {
    assert_eq!((x.len(), out.len()), (shape.len(), shape.len()));
    assert_eq!(stats.len(), shape.batch * shape.groups * 2);
    for samples in shape.passes() {
        let (shape, numbers, groups) = shape.cut(&samples);
        let (x, out, stats) = (&x[numbers.clone()], &mut out[numbers], &mut stats[groups]);
        group_norm_stats(&shape, eps, x, stats);
        group_norm_apply(&shape, stats, x, gamma, beta, silu, out);
    }
}

/// The first half of [`group_norm`]: fills `stats: [batch, groups, 2]` with the mean and
/// 1/√(variance + eps) of each group.
///
/// # Panics
/// As there.
pub fn group_norm_stats(shape: &GroupNormShape, eps: f32, x: &[f32], stats: &mut [f32]) {
    shape.check();
    assert_eq!(x.len(), shape.len());
    assert_eq!(stats.len(), shape.batch * shape.groups * 2);
    if x.is_empty() {
        return;
    }
    let _note = shape.note("group norm moments");
    moments(shape, eps, x, stats);
}

/// The second half of [`group_norm`], for any of a sample's places: `shape` is theirs, `stats` are those of
/// all its places.
///
/// # Panics
/// As there.
pub fn group_norm_apply(
    shape: &GroupNormShape,
    stats: &[f32],
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    silu: bool,
    out: &mut [f32],
) {
    shape.check();
    let GroupNormShape {
        batch,
        channels,
        groups,
        ..
    } = *shape;
    assert_eq!((x.len(), out.len()), (shape.len(), shape.len()));
    assert_eq!((gamma.len(), beta.len()), (channels, channels));
    assert_eq!(stats.len(), batch * groups * 2);
    let _note = shape.note("group norm");

    // Per sample: each channel's mean and rstd·gamma.
    let mut affine = vec![0.0; batch * 2 * channels];
    for (stats, affine) in stats
        .chunks_exact(2 * groups)
        .zip(affine.chunks_exact_mut(2 * channels))
    {
        let (mean, factor) = affine.split_at_mut(channels);
        for c in 0..channels {
            let g = c / (channels / groups);
            mean[c] = stats[2 * g];
            factor[c] = stats[2 * g + 1] * gamma[c];
        }
    }
    let (isa, out) = (isa::active(), SharedMut::new(out));
    shape.for_each_block(|_, b, start, len| {
        let (mean, factor) = affine[b * 2 * channels..][..2 * channels].split_at(channels);
        isa.run(Apply {
            x: &x[start..][..len],
            mean,
            factor,
            beta,
            silu,
            // SAFETY: each task has rows of its own.
            out: unsafe { out.slice(start, len) },
        });
    });
}

/// Fills `stats` with each group's mean and 1/√(variance + eps).
fn moments(shape: &GroupNormShape, eps: f32, x: &[f32], stats: &mut [f32]) {
    let GroupNormShape {
        batch,
        spatial,
        channels,
        groups,
    } = *shape;
    let isa = isa::active();
    let (block, blocks) = shape.blocks();
    let mut partial = vec![0f64; batch * blocks * groups * 2];
    let shared = SharedMut::new(&mut partial);
    shape.for_each_block(|i, _, start, len| {
        scratch::with(3 * channels, |columns| {
            isa.run(Moments {
                x: &x[start..][..len],
                columns,
                // SAFETY: each task has a slot of its own.
                groups: unsafe { shared.slice(i * groups * 2, groups * 2) },
            });
        });
    });
    let size = (channels / groups) as f64;
    for b in 0..batch {
        for g in 0..groups {
            let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
            for i in 0..blocks {
                let n = block.min(spatial - i * block) as f64 * size;
                let at = ((b * blocks + i) * groups + g) * 2;
                let difference = partial[at] - mean;
                squares += partial[at + 1] + difference * difference * count * n / (count + n);
                mean += difference * n / (count + n);
                count += n;
            }
            let at = (b * groups + g) * 2;
            stats[at] = mean as f32;
            stats[at + 1] = (1.0 / (squares / count + f64::from(eps)).sqrt()) as f32;
        }
    }
}

/// Each group's mean and sum of squared deviations over a block of rows. Plain loops over columns,
/// which vectorise without help.
struct Moments<'a> {
    x: &'a [f32],
    columns: &'a mut [f32],
    groups: &'a mut [f64],
}

impl Kernel for Moments<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let channels = self.columns.len() / 3;
        let rows = self.x.len() / channels;
        let (mean, sums) = self.columns.split_at_mut(channels);
        let (sum, squares) = sums.split_at_mut(channels);
        mean.fill(0.0);
        for row in self.x.chunks_exact(channels) {
            for (mean, &x) in mean.iter_mut().zip(row) {
                *mean += x;
            }
        }
        for mean in mean.iter_mut() {
            *mean *= 1.0 / rows as f32;
        }
        sum.fill(0.0);
        squares.fill(0.0);
        // The block is still in the cache; deviations from its own mean are small.
        for row in self.x.chunks_exact(channels) {
            let sums = sum.iter_mut().zip(squares.iter_mut());
            for ((&x, &mean), (sum, squares)) in row.iter().zip(mean.iter()).zip(sums) {
                let d = x - mean;
                *sum += d;
                *squares += d * d;
            }
        }
        let (rows, size) = (rows as f64, channels / (self.groups.len() / 2));
        for (g, out) in self.groups.chunks_exact_mut(2).enumerate() {
            let members = g * size..(g + 1) * size;
            // What rounding left of a column's mean.
            let exact = |c: usize| f64::from(mean[c]) + f64::from(sum[c]) / rows;
            let center = members.clone().map(exact).sum::<f64>() / size as f64;
            let mut total = 0.0;
            for c in members {
                let (s, d) = (f64::from(sum[c]), exact(c) - center);
                total += f64::from(squares[c]) - s * s / rows + rows * d * d;
            }
            (out[0], out[1]) = (center, total);
        }
    }
}

/// `out = act((x − mean) · factor + beta)` for rows of channels.
struct Apply<'a> {
    x: &'a [f32],
    mean: &'a [f32],
    factor: &'a [f32],
    beta: &'a [f32],
    silu: bool,
    out: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Apply {
            x,
            mean,
            factor,
            beta,
            silu,
            out,
        } = self;
        let channels = mean.len();
        for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
            for_each_piece(
                simd,
                channels,
                #[inline(always)]
                |at| {
                    let d = simd.sub(at.load(x), at.load(mean));
                    let y = simd.mul_add(d, at.load(factor), at.load(beta));
                    at.store(out, if silu { math::silu(simd, y) } else { y });
                },
            );
        }
    }
}
