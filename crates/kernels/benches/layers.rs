//! Speed of attention (GFLOP/s) and of the kernels that move memory (ns per number), on one thread.
//!
//! `cargo bench -p velatura-kernels --bench layers [-- FILTER]`. The fastest run counts, and shapes are cut so that
//! a run takes a few milliseconds, less than a scheduler's slice: a busy machine then disturbs little. The register
//! peak is measured beside them, because the clock wanders.

use std::hint::black_box;
use std::time::Instant;
use velatura_kernels::activation::{self, Activation};
use velatura_kernels::attention::{self, AttentionShape};
use velatura_kernels::gemm::Precision;
use velatura_kernels::isa::{self, Kernel, Simd};
use velatura_kernels::norm::{self, GroupNormShape};
use velatura_kernels::{elementwise, pool};

/// The fastest of several runs, which together take half a second.
fn seconds(mut run: impl FnMut()) -> f64 {
    run();
    let (begin, mut best, mut runs) = (Instant::now(), f64::INFINITY, 0);
    while runs < 3 || begin.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

/// Multiply-adds on registers: twelve sums hide their latency.
struct RegisterLoop;

const ROUNDS: usize = 200_000;

impl Kernel for RegisterLoop {
    type Output = (f32, usize);
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (f32, usize) {
        let mut sums = [simd.zero(); 12];
        let (a, b) = (simd.splat(black_box(1e-8)), simd.splat(black_box(1e-9)));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.mul_add(a, b, *sum);
            }
        }
        let total = sums.iter().map(|&sum| simd.reduce_add(sum)).sum();
        (total, 2 * ROUNDS * sums.len() * S::LANES)
    }
}

fn peak() -> f64 {
    let mut work = 0;
    let time = seconds(|| work = black_box(isa::active().run(RegisterLoop)).1);
    work as f64 / time / 1e9
}

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i + seed) * 7919 % 1009) as f32 / 504.0 - 1.0)
        .collect()
}

struct Bench(Option<String>);

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|filter| name.contains(filter))
    }

    fn products(&self, name: &str, flops: f64, run: impl FnMut()) {
        if self.wants(name) {
            let peak = peak();
            let time = seconds(run);
            let (ms, speed) = (time * 1e3, flops / time / 1e9);
            let share = 100.0 * speed / peak;
            println!("{name:<48} {ms:9.3} ms {speed:7.1} GFLOP/s {share:5.1} % of {peak:.0}");
        }
    }

    fn memory(&self, name: &str, len: usize, run: impl FnMut()) {
        if self.wants(name) {
            let time = seconds(run);
            println!(
                "{name:<48} {:9.3} ms {:7.3} ns per number",
                time * 1e3,
                time * 1e9 / len as f64
            );
        }
    }

    fn attention(&self, sizes: [usize; 5], train: bool) {
        for precision in [Precision::F32, Precision::Bf16] {
            self.attention_in(precision, sizes, train);
        }
    }

    fn attention_in(
        &self,
        precision: Precision,
        [batch, heads, queries, keys, head_dim]: [usize; 5],
        train: bool,
    ) {
        let shape = AttentionShape {
            batch,
            heads,
            queries,
            keys,
            head_dim,
            causal: false,
            precision,
        };
        let width = heads * head_dim;
        let (q, dout) = (
            numbers(batch * queries * width, 1),
            numbers(batch * queries * width, 2),
        );
        let (k, v) = (
            numbers(batch * keys * width, 3),
            numbers(batch * keys * width, 4),
        );
        let (mut out, mut lse) = (q.clone(), vec![0.0; batch * heads * queries]);
        let work = (batch * heads * queries * keys * head_dim) as f64;
        let name =
            format!("attention {batch}x{heads} heads {queries}x{keys} d {head_dim} {precision:?}");
        self.products(&format!("{name} forward"), 4.0 * work, || {
            attention::forward(&shape, &q, &k, &v, &mut out, Some(&mut lse));
        });
        if train {
            let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
            self.products(&format!("{name} backward"), 10.0 * work, || {
                attention::backward(
                    &shape, &q, &k, &v, &out, &lse, &dout, &mut dq, &mut dk, &mut dv,
                );
            });
        }
    }

    fn group_norm(&self, batch: usize, spatial: usize, channels: usize) {
        let shape = GroupNormShape {
            batch,
            spatial,
            channels,
            groups: 32,
        };
        let len = batch * spatial * channels;
        let (x, dy, gamma, beta) = (
            numbers(len, 1),
            numbers(len, 2),
            numbers(channels, 3),
            numbers(channels, 4),
        );
        let (mut out, mut stats) = (vec![0.0; len], vec![0.0; batch * 64]);
        let name = format!("group norm + SiLU {batch}x{spatial}x{channels}");
        self.memory(&format!("{name} forward"), len, || {
            norm::group_norm(&shape, 1e-5, &x, &gamma, &beta, true, &mut out, &mut stats);
        });
        let (mut dgamma, mut dbeta) = (gamma.clone(), beta.clone());
        self.memory(&format!("{name} backward"), len, || {
            norm::group_norm_backward(
                &shape,
                &x,
                &gamma,
                &beta,
                &stats,
                true,
                &dy,
                None,
                &mut out,
                &mut dgamma,
                &mut dbeta,
            );
        });
    }

    fn elements(&self, len: usize) {
        let (x, dy) = (numbers(len, 1), numbers(len, 2));
        let mut out = vec![0.0; len];
        for act in [Activation::Silu, Activation::Gelu] {
            self.memory(&format!("{act:?} forward, {len}"), len, || {
                activation::forward(act, &x, &mut out);
            });
            self.memory(&format!("{act:?} backward, {len}"), len, || {
                activation::backward(act, &x, &dy, &mut out);
            });
        }
        self.memory(&format!("add, {len}"), len, || {
            elementwise::add(&x, &dy, &mut out)
        });
        self.memory(&format!("sum of squares, {len}"), len, || {
            black_box(elementwise::sum_squares(&x));
        });
    }
}

fn main() {
    pool::set_threads(1);
    println!("{}, one thread", isa::active());
    let bench = Bench(std::env::args().skip(1).find(|arg| !arg.starts_with("--")));
    // Heads of Stable Diffusion 1.5 at 512×512, and of its autoencoder.
    for sizes in [
        [1, 1, 1024, 4096, 40],
        [1, 2, 1024, 1024, 80],
        [1, 8, 256, 256, 160],
        [1, 2, 4096, 77, 40],
        [1, 1, 128, 4096, 512],
    ] {
        bench.attention(sizes, false);
    }
    // Training shapes.
    for sizes in [
        [2, 4, 256, 256, 32],
        [2, 4, 256, 256, 64],
        [4, 4, 256, 77, 48],
        [4, 4, 256, 32, 64],
    ] {
        bench.attention(sizes, true);
    }
    bench.group_norm(1, 4096, 320);
    bench.group_norm(4, 1024, 96);
    bench.elements(1 << 20);
}
