//! The gradients of group normalisation, through the SiLU behind it.

use super::GroupNormShape;
use crate::elementwise::combine;
use crate::isa::{self, Kernel, Simd};
use crate::map::for_each_piece;
use crate::math;
use crate::shared::SharedMut;

/// The gradients of [`group_norm`](super::group_norm) for `x`, `gamma` and `beta`, from its input and `stats`.
/// That for `x` is added to `onto`, if given.
///
/// # Panics
/// When a length does not fit the shape, or the groups do not divide the channels.
#[allow(clippy::too_many_arguments)]
pub fn group_norm_backward(
    shape: &GroupNormShape,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    stats: &[f32],
    silu: bool,
    dy: &[f32],
    onto: Option<&[f32]>,
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    shape.check();
    let GroupNormShape {
        batch,
        channels,
        groups,
        ..
    } = *shape;
    assert_eq!(
        (x.len(), dy.len(), dx.len()),
        (shape.len(), shape.len(), shape.len())
    );
    assert!(onto.is_none_or(|onto| onto.len() == shape.len()));
    assert_eq!((gamma.len(), beta.len()), (channels, channels));
    assert_eq!((dgamma.len(), dbeta.len()), (channels, channels));
    assert_eq!(stats.len(), batch * groups * 2);
    if x.is_empty() {
        dgamma.fill(0.0);
        dbeta.fill(0.0);
        return;
    }
    let mut both = vec![0.0; batch * 2 * channels];
    for samples in shape.passes() {
        let (shape, numbers, groups) = shape.cut(&samples);
        let onto = onto.map(|onto| &onto[numbers.clone()]);
        let (x, dy, dx) = (&x[numbers.clone()], &dy[numbers.clone()], &mut dx[numbers]);
        let sums = &mut both[samples.start * 2 * channels..samples.end * 2 * channels];
        let stats = &stats[groups];
        backward_pass(&shape, x, (gamma, beta), stats, silu, dy, onto, dx, sums);
    }
    let mut totals = vec![0.0; 2 * channels];
    combine(&both, 2 * channels, &mut totals);
    dgamma.copy_from_slice(&totals[..channels]);
    dbeta.copy_from_slice(&totals[channels..]);
}

/// `dx` of some samples; `both: [batch, 2, channels]` receives what each adds to the gradients of gamma and beta.
#[allow(clippy::too_many_arguments)]
fn backward_pass(
    shape: &GroupNormShape,
    x: &[f32],
    (gamma, beta): (&[f32], &[f32]),
    stats: &[f32],
    silu: bool,
    dy: &[f32],
    onto: Option<&[f32]>,
    dx: &mut [f32],
    both: &mut [f32],
) {
    let GroupNormShape {
        batch,
        spatial,
        channels,
        groups,
    } = *shape;
    let isa = isa::active();
    let (_, blocks) = shape.blocks();
    let size = channels / groups;

    // With d = dy · act'(…) and h = (x − mean)·rstd: leave d in dx, and sum d·h and d over the rows.
    let spread = |b: usize, which: usize| -> Vec<f32> {
        (0..channels)
            .map(|c| stats[(b * groups + c / size) * 2 + which])
            .collect()
    };
    let moments: Vec<_> = (0..batch).map(|b| (spread(b, 0), spread(b, 1))).collect();
    let mut partial = vec![0.0; batch * blocks * 2 * channels];
    let (slots, shared_dx) = (SharedMut::new(&mut partial), SharedMut::new(dx));
    shape.for_each_block(|i, b, start, len| {
        let (mean, rstd) = &moments[b];
        // SAFETY: each task has rows and a slot of its own.
        let (slot, d) = unsafe {
            (
                slots.slice(i * 2 * channels, 2 * channels),
                shared_dx.slice(start, len),
            )
        };
        let (dots, sums) = slot.split_at_mut(channels);
        let (x, dy) = (&x[start..][..len], &dy[start..][..len]);
        isa.run(Gather {
            x,
            dy,
            mean,
            rstd,
            gamma,
            beta,
            silu,
            d,
            dots,
            sums,
        });
    });

    for (partial, sums) in partial
        .chunks_exact(blocks * 2 * channels)
        .zip(both.chunks_exact_mut(2 * channels))
    {
        combine(partial, 2 * channels, sums);
    }

    // dx = rstd · (d·gamma − mean(d·gamma) − h · mean(d·gamma·h)), means over the group.
    let count = (spatial * size) as f64;
    let mut coefficients = vec![0.0; batch * 3 * channels];
    for (b, coefficients) in coefficients.chunks_exact_mut(3 * channels).enumerate() {
        let (dots, sums) = both[b * 2 * channels..][..2 * channels].split_at(channels);
        for g in 0..groups {
            let rstd = stats[(b * groups + g) * 2 + 1];
            let members = g * size..(g + 1) * size;
            let mean = |of: &[f32]| {
                members
                    .clone()
                    .map(|c| f64::from(gamma[c]) * f64::from(of[c]))
                    .sum::<f64>()
                    / count
            };
            let (of_sums, of_dots) = (mean(sums) as f32, mean(dots) as f32);
            for c in members.clone() {
                coefficients[c] = rstd * gamma[c];
                coefficients[channels + c] = -rstd * of_sums;
                coefficients[2 * channels + c] = -rstd * rstd * of_dots;
            }
        }
    }
    shape.for_each_block(|_, b, start, len| {
        isa.run(Finish {
            x: &x[start..][..len],
            mean: &moments[b].0,
            coefficients: &coefficients[b * 3 * channels..][..3 * channels],
            onto: onto.map(|onto| &onto[start..][..len]),
            // SAFETY: each task has rows of its own.
            d: unsafe { shared_dx.slice(start, len) },
        });
    });
}

/// `d = dy · act'(h·gamma + beta)`, `dots = Σ d·h`, `sums = Σ d` over a block of rows.
struct Gather<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    mean: &'a [f32],
    rstd: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    silu: bool,
    d: &'a mut [f32],
    dots: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Kernel for Gather<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Gather {
            x,
            dy,
            mean,
            rstd,
            gamma,
            beta,
            silu,
            d,
            dots,
            sums,
        } = self;
        let channels = mean.len();
        dots.fill(0.0);
        sums.fill(0.0);
        let rows = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
        for ((x, dy), d) in rows.zip(d.chunks_exact_mut(channels)) {
            for_each_piece(
                simd,
                channels,
                #[inline(always)]
                |at| {
                    let h = simd.mul(simd.sub(at.load(x), at.load(mean)), at.load(rstd));
                    let mut gradient = at.load(dy);
                    if silu {
                        let y = simd.mul_add(h, at.load(gamma), at.load(beta));
                        gradient = simd.mul(gradient, math::silu_derivative(simd, y, 1.0));
                    }
                    at.store(d, gradient);
                    at.store(dots, simd.mul_add(gradient, h, at.load(dots)));
                    at.store(sums, simd.add(gradient, at.load(sums)));
                },
            );
        }
    }
}

/// `d = onto + d·coefficients[0] + coefficients[1] + (x − mean)·coefficients[2]`
struct Finish<'a> {
    x: &'a [f32],
    mean: &'a [f32],
    coefficients: &'a [f32],
    onto: Option<&'a [f32]>,
    d: &'a mut [f32],
}

impl Kernel for Finish<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let channels = self.mean.len();
        let (factor, rest) = self.coefficients.split_at(channels);
        let (offset, slope) = rest.split_at(channels);
        let rows = self
            .x
            .chunks_exact(channels)
            .zip(self.d.chunks_exact_mut(channels));
        for (row, (x, d)) in rows.enumerate() {
            let onto = self.onto.map(|onto| &onto[row * channels..][..channels]);
            for_each_piece(
                simd,
                channels,
                #[inline(always)]
                |at| {
                    let deviation = simd.sub(at.load(x), at.load(self.mean));
                    let rest = simd.mul_add(deviation, at.load(slope), at.load(offset));
                    let dx = simd.mul_add(at.load(d), at.load(factor), rest);
                    at.store(d, onto.map_or(dx, |onto| simd.add(at.load(onto), dx)));
                },
            );
        }
    }
}
