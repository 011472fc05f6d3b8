//! What the machine can do at all: a loop of the micro-kernels' multiply-adds that never leaves the registers.

use std::hint::black_box;
use std::time::Instant;

use crate::gemm::Precision;
use crate::isa::{self, Kernel, Simd};
use crate::pool;

/// Enough to hide the latency of two multiply-adds per cycle, few enough for 16 registers.
const SUMS: usize = 12;

/// Some hundred microseconds.
const ROUNDS: usize = 50_000;

/// Billions of operations per second of all threads together, a multiply-add counting two, with the instruction set
/// that is [active](isa::active), in the fastest of `runs` runs. The clock wanders: measure it near what it is
/// compared with. `None` for bf16 on a matrix unit, which has registers of its own, and where the
/// numbers have no multiply-add of their own.
pub fn peak(precision: Precision, runs: usize) -> Option<f64> {
    let isa = isa::active();
    let operations = match precision {
        Precision::F32 => 2,
        Precision::Bf16 if isa.has_bf16_dot() && !isa.has_tiles() => 4,
        Precision::Int8 if isa.has_dot_products() => 8,
        _ => return None,
    };
    let threads = pool::threads();
    let run = || {
        pool::parallel_for(threads, |_| {
            black_box(match precision {
                Precision::F32 => isa.run(Registers(precision)),
                _ => isa.run_bf16(Registers(precision)),
            });
        });
    };
    let mut fastest = f64::INFINITY;
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        run();
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    let count = ROUNDS * SUMS * isa.run(Lanes) * threads * operations;
    Some(count as f64 / fastest / 1e9)
}

struct Lanes;

impl Kernel for Lanes {
    type Output = usize;
    fn run<S: Simd>(self, _: S) -> usize {
        S::LANES
    }
}

/// As many sums as hide the latency.
struct Registers(Precision);

impl Kernel for Registers {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut sums = [simd.zero(); SUMS];
        let (a, b) = (simd.splat(black_box(1e-8)), simd.splat(black_box(1e-9)));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = match self.0 {
                    Precision::F32 => simd.mul_add(a, b, *sum),
                    Precision::Bf16 => simd.dot_bf16(*sum, a, b),
                    Precision::Int8 => simd.dot_i8(*sum, a, b),
                };
            }
        }
        sums.map(|sum| simd.reduce_add(sum)).iter().sum()
    }
}
