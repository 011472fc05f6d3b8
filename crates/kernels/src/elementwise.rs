//! Element-wise arithmetic, sums, and the addition of one vector per sample.

use crate::isa::{self, Kernel, Simd};
use crate::map::{BLOCK, Map, for_each_piece, for_each_task, map, update};
use crate::math;
use crate::pool::parallel_chunks_mut;
use crate::profile;
use crate::shared::SharedMut;

macro_rules! operation {
    ($name:ident($simd:ident, $($x:ident),+) $result:expr) => {
        #[derive(Clone, Copy)]
        struct $name;
        impl Map<{ [$(stringify!($x)),+].len() }> for $name {
            #[inline(always)]
            fn map<S: Simd>(
                self,
                $simd: S,
                [$($x),+]: [S::Vector; [$(stringify!($x)),+].len()],
            ) -> S::Vector {
                $result
            }
        }
    };
}

operation!(Add(simd, a, b) simd.add(a, b));
operation!(Sub(simd, a, b) simd.sub(a, b));
operation!(Mul(simd, a, b) simd.mul(a, b));
operation!(Exp(simd, x) math::exp(simd, x));

/// `out = a + b`
///
/// # Panics
/// When the lengths differ; so do all below.
pub fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
    let _note = profile::note(|| (format!("add {}", a.len()), isa::active().to_string(), 0.0));
    map(Add, [a, b], out);
}

/// `out = a − b`
pub fn sub(a: &[f32], b: &[f32], out: &mut [f32]) {
    map(Sub, [a, b], out);
}

/// `out = a · b`
pub fn mul(a: &[f32], b: &[f32], out: &mut [f32]) {
    map(Mul, [a, b], out);
}

/// `out = eˣ`, within 2 ulp.
pub fn exp(x: &[f32], out: &mut [f32]) {
    map(Exp, [x], out);
}

#[derive(Clone, Copy)]
struct Scale(f32);
impl Map<1> for Scale {
    #[inline(always)]
    fn map<S: Simd>(self, simd: S, [x]: [S::Vector; 1]) -> S::Vector {
        simd.mul(x, simd.splat(self.0))
    }
}

/// `out = s · x`
pub fn scale(x: &[f32], s: f32, out: &mut [f32]) {
    map(Scale(s), [x], out);
}

#[derive(Clone, Copy)]
struct Axpy(f32);
impl Map<2> for Axpy {
    #[inline(always)]
    fn map<S: Simd>(self, simd: S, [y, x]: [S::Vector; 2]) -> S::Vector {
        simd.mul_add(simd.splat(self.0), x, y)
    }
}

/// `y += s · x`
pub fn axpy(s: f32, x: &[f32], y: &mut [f32]) {
    let _note = profile::note(|| (format!("axpy {}", x.len()), isa::active().to_string(), 0.0));
    update(Axpy(s), y, x);
}

/// `out[b, s, c] = x[b, s, c] + e[b, c]` for `x: [batch, spatial, channels]`.
pub fn add_channels(
    batch: usize,
    spatial: usize,
    channels: usize,
    x: &[f32],
    e: &[f32],
    out: &mut [f32],
) {
    let len = batch * spatial * channels;
    assert_eq!((x.len(), e.len(), out.len()), (len, batch * channels, len));
    if len == 0 {
        return;
    }
    let _note = profile::note(|| {
        (
            format!("add {batch}×{channels} to {len}"),
            isa::active().to_string(),
            0.0,
        )
    });
    let (isa, out) = (isa::active(), SharedMut::new(out));
    let block = (BLOCK / channels).clamp(1, spatial);
    let blocks = spatial.div_ceil(block);
    for_each_task(len, batch * blocks, |task| {
        let (b, first) = (task / blocks, task % blocks * block);
        let start = (b * spatial + first) * channels;
        let len = block.min(spatial - first) * channels;
        isa.run(AddChannels {
            x: &x[start..][..len],
            e: &e[b * channels..][..channels],
            // SAFETY: each task has rows of its own.
            out: unsafe { out.slice(start, len) },
        });
    });
}

struct AddChannels<'a> {
    x: &'a [f32],
    e: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for AddChannels<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let channels = self.e.len();
        for (x, out) in self
            .x
            .chunks_exact(channels)
            .zip(self.out.chunks_exact_mut(channels))
        {
            for_each_piece(
                simd,
                channels,
                #[inline(always)]
                |at| at.store(out, simd.add(at.load(x), at.load(self.e))),
            );
        }
    }
}

/// `out[c] = Σ_r x[r, c]` for `x: [rows, cols]`; blocks of rows are summed in f32, the blocks in f64.
pub fn sum_rows(rows: usize, cols: usize, x: &[f32], out: &mut [f32]) {
    let _note = profile::note(|| {
        (
            format!("sum {rows}×{cols} over rows"),
            isa::active().to_string(),
            0.0,
        )
    });
    sum_rows_unnoted(rows, cols, x, out);
}

/// The same as a part of what another kernel notes.
pub(crate) fn sum_rows_unnoted(rows: usize, cols: usize, x: &[f32], out: &mut [f32]) {
    assert_eq!((x.len(), out.len()), (rows * cols, cols));
    if x.is_empty() {
        return out.fill(0.0);
    }
    let isa = isa::active();
    let block = row_block(cols);
    let mut partial = vec![0.0; rows.div_ceil(block) * cols];
    if x.len() <= BLOCK {
        for (x, sums) in x.chunks(block * cols).zip(partial.chunks_mut(cols)) {
            isa.run(SumRows { x, sums });
        }
    } else {
        parallel_chunks_mut(&mut partial, cols, |i, sums| {
            let (start, end) = (i * block * cols, ((i + 1) * block * cols).min(x.len()));
            isa.run(SumRows {
                x: &x[start..end],
                sums,
            });
        });
    }
    combine(&partial, cols, out);
}

/// Rows per task of sums over rows of `cols` numbers: 64 KiB of them, and at least 16 rows, so that
/// the partial results stay few.
pub(crate) fn row_block(cols: usize) -> usize {
    (BLOCK / 2 / cols.max(1)).max(16)
}

/// `out[c] = Σ_i partial[i, c]`, summed in f64 in the order of i.
pub(crate) fn combine(partial: &[f32], cols: usize, out: &mut [f32]) {
    let mut sums = vec![0f64; cols];
    for row in partial.chunks_exact(cols) {
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum += f64::from(x);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = sum as f32;
    }
}

struct SumRows<'a> {
    x: &'a [f32],
    sums: &'a mut [f32],
}

impl Kernel for SumRows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let cols = self.sums.len();
        // Rows of few numbers are added several at a time: one after the other, each would wait for the one before.
        let together = 64 / cols;
        if together < 2 {
            return add_rows(simd, self.x, self.sums);
        }
        let mut sums = [0.0; 64];
        let sums = &mut sums[..together * cols];
        add_rows(simd, self.x, sums);
        add_rows(simd, sums, self.sums);
    }
}

#[inline(always)]
fn add_rows<S: Simd>(simd: S, x: &[f32], sums: &mut [f32]) {
    for row in x.chunks(sums.len()) {
        for_each_piece(
            simd,
            row.len(),
            #[inline(always)]
            |at| at.store(sums, simd.add(at.load(sums), at.load(row))),
        );
    }
}

/// `Σ x` in f64.
pub fn sum(x: &[f32]) -> f64 {
    reduce(x, Reduction::Sum)
}

/// `Σ x²` in f64.
pub fn sum_squares(x: &[f32]) -> f64 {
    reduce(x, Reduction::Squares)
}

/// Whether there is neither a NaN nor an infinity in `x`.
pub fn all_finite(x: &[f32]) -> bool {
    // 0·x is 0 for finite numbers and NaN for the others.
    reduce(x, Reduction::Zeros) == 0.0
}

#[derive(Clone, Copy)]
enum Reduction {
    Sum,
    Squares,
    Zeros,
}

fn reduce(x: &[f32], reduction: Reduction) -> f64 {
    let isa = isa::active();
    if x.len() <= BLOCK {
        return isa.run(Reduce { x, reduction });
    }
    // The blocks' sums are added in order, whoever has computed them.
    let mut partial = vec![0.0; x.len().div_ceil(BLOCK)];
    parallel_chunks_mut(&mut partial, 1, |i, out| {
        let x = &x[i * BLOCK..((i + 1) * BLOCK).min(x.len())];
        out[0] = isa.run(Reduce { x, reduction });
    });
    partial.iter().sum()
}

struct Reduce<'a> {
    x: &'a [f32],
    reduction: Reduction,
}

impl Kernel for Reduce<'_> {
    type Output = f64;
    /// Sixteen running sums, which the compiler keeps in two to eight registers.
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> f64 {
        let mut sums = [0f64; 16];
        let mut chunks = self.x.chunks_exact(16);
        macro_rules! add_up {
            (|$x:ident| $term:expr) => {{
                for chunk in &mut chunks {
                    for i in 0..16 {
                        let $x = f64::from(chunk[i]);
                        sums[i] += $term;
                    }
                }
                for (sum, &$x) in sums.iter_mut().zip(chunks.remainder()) {
                    let $x = f64::from($x);
                    *sum += $term;
                }
            }};
        }
        match self.reduction {
            Reduction::Sum => add_up!(|x| x),
            Reduction::Squares => add_up!(|x| x * x),
            Reduction::Zeros => add_up!(|x| x * 0.0),
        }
        sums.iter().sum()
    }
}
