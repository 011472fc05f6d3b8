//! Drivers for element-wise kernels: whole vectors, one partial vector, threads for long slices.

use crate::isa::{self, Kernel, Simd};
use crate::pool;
use crate::shared::SharedMut;

/// Elements per task: 32 Ki are 128 KiB per slice, some 10 µs of memory traffic, against about 1 µs
/// to hand a task to another thread. Shorter slices stay on the calling one.
pub(crate) const BLOCK: usize = 32 * 1024;

/// A function of `N` vectors, applied element by element.
pub(crate) trait Map<const N: usize>: Copy + Sync {
    /// The function; implementations are `#[inline(always)]`.
    fn map<S: Simd>(self, simd: S, x: [S::Vector; N]) -> S::Vector;
}

/// `out[i] = op(inputs[0][i], …)`
pub(crate) fn map<const N: usize, M: Map<N>>(op: M, inputs: [&[f32]; N], out: &mut [f32]) {
    for input in inputs {
        assert_eq!(input.len(), out.len(), "slices of unequal lengths");
    }
    let len = out.len();
    // SAFETY: all slices have the length of `out`, which nothing else refers to.
    unsafe { map_raw(op, inputs.map(<[f32]>::as_ptr), SharedMut::new(out), len) }
}

/// `y[i] = op(y[i], input[i])`
pub(crate) fn update<M: Map<2>>(op: M, y: &mut [f32], input: &[f32]) {
    assert_eq!(input.len(), y.len(), "slices of unequal lengths");
    let (len, y) = (y.len(), SharedMut::new(y));
    // SAFETY: both slices have this length; element `i` of `y` is read before it is written.
    unsafe { map_raw(op, [y.address(0).cast_const(), input.as_ptr()], y, len) }
}

#[derive(Clone, Copy)]
struct Pointers<const N: usize>([*const f32; N]);
// SAFETY: tasks read them; what one of them writes, it alone reads.
unsafe impl<const N: usize> Sync for Pointers<N> {}

impl<const N: usize> Pointers<N> {
    /// The same slices from element `start` on.
    #[inline(always)]
    fn from(&self, start: usize) -> Self {
        Pointers(self.0.map(|x| x.wrapping_add(start)))
    }
}

/// # Safety
/// Inputs and output are valid for `len` elements, and an input either does not overlap the output
/// or is the output.
unsafe fn map_raw<const N: usize, M: Map<N>>(
    op: M,
    inputs: [*const f32; N],
    out: SharedMut<f32>,
    len: usize,
) {
    let inputs = Pointers(inputs);
    let isa = isa::active();
    pool::parallel_for(len.div_ceil(BLOCK), |task| {
        let start = task * BLOCK;
        let len = BLOCK.min(len - start);
        isa.run(Run {
            op,
            inputs: inputs.from(start),
            out: out.pointer(start, len),
            len,
        });
    });
}

struct Run<const N: usize, M> {
    op: M,
    inputs: Pointers<N>,
    out: *mut f32,
    len: usize,
}

impl<const N: usize, M: Map<N>> Kernel for Run<N, M> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (Pointers(inputs), out) = (self.inputs, self.out);
        let mut i = 0;
        // SAFETY: all slices have `len` elements by the contract of `map_raw`, and every access
        // below ends at or before it.
        unsafe {
            while i + S::LANES <= self.len {
                let x = inputs.map(|x| simd.load_raw(x.add(i)));
                simd.store_raw(out.add(i), self.op.map(simd, x));
                i += S::LANES;
            }
            if i < self.len {
                let rest = self.len - i;
                let x = inputs.map(|x| simd.load_partial_raw(x.add(i), rest));
                simd.store_partial_raw(out.add(i), self.op.map(simd, x), rest);
            }
        }
    }
}

/// Calls `task(0)`, …, `task(tasks - 1)`: on all threads when there are enough `elements` to pay for
/// them, else one after the other.
pub(crate) fn for_each_task(elements: usize, tasks: usize, task: impl Fn(usize) + Sync) {
    pool::parallel_if(elements > BLOCK, tasks, task);
}

/// One vector's worth of places in slices of equal length, perhaps not all lanes of it.
#[derive(Clone, Copy)]
pub(crate) struct Piece<S> {
    simd: S,
    start: usize,
    count: usize,
}

impl<S: Simd> Piece<S> {
    /// These places of `x`, zeros in the lanes beyond.
    #[inline(always)]
    pub fn load(self, x: &[f32]) -> S::Vector {
        let x = &x[self.start..];
        if self.count == S::LANES {
            self.simd.load(x)
        } else {
            self.simd.load_partial(&x[..self.count])
        }
    }

    /// `x − center` at these places, zeros in the lanes beyond.
    #[inline(always)]
    pub fn deviation(self, x: &[f32], center: f32) -> S::Vector {
        let d = self.simd.sub(self.load(x), self.simd.splat(center));
        if self.count == S::LANES {
            return d;
        }
        // A partial load of the differences' first lanes clears the others.
        let mut lanes = [0.0; 16];
        debug_assert!(S::LANES <= lanes.len());
        self.simd.store(&mut lanes, d);
        self.simd.load_partial(&lanes[..self.count])
    }

    /// Overwrites these places of `out`.
    #[inline(always)]
    pub fn store(self, out: &mut [f32], x: S::Vector) {
        let out = &mut out[self.start..];
        if self.count == S::LANES {
            self.simd.store(out, x);
        } else {
            self.simd.store_partial(&mut out[..self.count], x);
        }
    }
}

/// Calls `f` for whole vectors, then for what is left of `len`. Mark the closure
/// `#[inline(always)]`, as everything that computes with vectors.
#[inline(always)]
pub(crate) fn for_each_piece<S: Simd>(simd: S, len: usize, mut f: impl FnMut(Piece<S>)) {
    let mut start = 0;
    while start + S::LANES <= len {
        f(Piece {
            simd,
            start,
            count: S::LANES,
        });
        start += S::LANES;
    }
    if start < len {
        f(Piece {
            simd,
            start,
            count: len - start,
        });
    }
}
