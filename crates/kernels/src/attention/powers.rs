//! Scores and their powers in one go: what softmax makes of a block of keys, without the scores in memory.

// Indices over arrays of constant length unroll into registers, and read like the arithmetic.
#![allow(clippy::needless_range_loop)]

use super::strip::Strip;
use crate::isa::{Kernel, Simd};

/// Keys whose scores stand in registers at once, with up to 64 queries.
pub(super) const TILE_KEYS: usize = 6;

/// `2^(k·q − m)` for a block of keys and a strip of queries, rounded to pairs of bf16, and their sums.
pub(super) struct Powers<'a> {
    /// The block's first key; keys are rows of bf16 pairs.
    pub keys: *const f32,
    /// From one key to the next, in pairs.
    pub key_stride: usize,
    /// How many keys.
    pub count: usize,
    /// `[steps, lanes]`: pairs of channels of the queries, in units that make scores powers of two.
    pub queries: &'a [f32],
    /// `[lanes]`: the `m` of each query.
    pub maxima: &'a [f32],
    /// Key `j` is hidden from the first `j + hidden` queries.
    pub hidden: Option<isize>,
    /// `[count / 2, lanes]`, rounded up to whole tiles: pairs of neighbouring keys. What lies past the last key is zero,
    /// or as good as.
    pub powers: &'a mut [f32],
    /// `[lanes]`: the sums.
    pub totals: &'a mut [f32],
}

impl Powers<'_> {
    /// Computes them, for as many vectors of queries as `lanes` are.
    ///
    /// # Safety
    /// `keys` is valid for reading `count` rows of as many pairs as `queries` has.
    #[inline(always)]
    pub unsafe fn compute<S: Simd>(self, simd: S, lanes: usize) {
        match lanes / S::LANES {
            1 => simd.call(Tiles::<1>(self)),
            2 => simd.call(Tiles::<2>(self)),
            3 => simd.call(Tiles::<3>(self)),
            _ => simd.call(Tiles::<4>(self)),
        }
    }
}

/// Added to the scores from `64 − n` on, hides a key from the first `n` queries.
static HIDING: [f32; 128] = {
    let mut hiding = [0.0; 128];
    let mut lane = 0;
    while lane < 64 {
        hiding[lane] = Strip::LOWEST;
        lane += 1;
    }
    hiding
};

struct Tiles<'a, const V: usize>(Powers<'a>);

impl<const V: usize> Kernel for Tiles<'_, V> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Powers {
            keys,
            key_stride,
            count,
            queries,
            maxima,
            hidden,
            powers,
            totals,
        } = self.0;
        let lanes = V * S::LANES;
        let steps = queries.len() / lanes;
        assert!(powers.len() >= count.div_ceil(TILE_KEYS) * TILE_KEYS / 2 * lanes);
        assert!(maxima.len() >= lanes && totals.len() >= lanes && lanes <= 64);
        totals[..lanes].fill(0.0);
        for first in (0..count).step_by(TILE_KEYS) {
            // Past the last key comes the last one again, hidden from all.
            let mut rows = [keys; TILE_KEYS];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = keys.wrapping_add((first + r).min(count - 1) * key_stride);
            }
            let mut sums = [[simd.zero(); V]; TILE_KEYS];
            for v in 0..V {
                let start = simd.sub(simd.zero(), simd.load(&maxima[v * S::LANES..]));
                for r in 0..TILE_KEYS {
                    sums[r][v] = start;
                }
            }
            let mut panel = queries.as_ptr();
            for step in 0..steps {
                let mut columns = [simd.zero(); V];
                for (v, column) in columns.iter_mut().enumerate() {
                    // SAFETY: `queries` has `steps × V` vectors.
                    *column = unsafe { simd.load_raw(panel.add(v * S::LANES)) };
                }
                panel = panel.wrapping_add(lanes);
                for r in 0..TILE_KEYS {
                    // SAFETY: by `compute`'s contract.
                    let key = simd.splat(unsafe { rows[r].add(step).read() });
                    for v in 0..V {
                        sums[r][v] = simd.dot_bf16(sums[r][v], key, columns[v]);
                    }
                }
            }
            if first + TILE_KEYS > count || hidden.is_some() {
                for r in 0..TILE_KEYS {
                    let key = first + r;
                    let from = match hidden {
                        _ if key >= count => lanes,
                        Some(hidden) => (key as isize + hidden).clamp(0, lanes as isize) as usize,
                        None => 0,
                    };
                    for v in 0..V {
                        let hiding = simd.load(&HIDING[64 - from + v * S::LANES..]);
                        sums[r][v] = simd.add(sums[r][v], hiding);
                    }
                }
            }
            let to = powers[first / 2 * lanes..].as_mut_ptr();
            // Spelt out: a loop of so much code would not be unrolled, and the sums would not stay in registers, not
            // even while they are summed.
            macro_rules! vector {
                ($v:literal: $($r:literal)*) => {
                    if $v < V {
                        let at = $v * S::LANES;
                        let mut total = simd.load(&totals[at..]);
                        $(
                            let low = simd.exp2(sums[$r][$v % V]);
                            let high = simd.exp2(sums[$r + 1][$v % V]);
                            total = simd.add(total, simd.add(low, high));
                            // SAFETY: the length was checked above.
                            unsafe {
                                let to = to.add($r / 2 * lanes + at);
                                simd.store_raw(to, simd.pairs_bf16(low, high));
                            }
                        )*
                        simd.store(&mut totals[at..], total);
                    }
                };
            }
            vector!(0: 0 2 4);
            vector!(1: 0 2 4);
            vector!(2: 0 2 4);
            vector!(3: 0 2 4);
        }
    }
}
