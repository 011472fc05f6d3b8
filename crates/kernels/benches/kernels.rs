//! Speed of products and convolutions in GFLOP/s and as a share of what the machine can do at all.
//!
//! `cargo bench -p velatura-kernels [-- FILTER] [--one-thread]`. The peak is a loop of multiply-adds on registers,
//! measured before every line because the clock wanders: compare shares, within one run.
//! On a busy machine, `--one-thread` finds moments when one core is free; short runs are then right.

use std::hint::black_box;
use std::time::Instant;
use velatura_kernels::attention::{self, AttentionShape};
use velatura_kernels::conv::{self, Algorithm, ConvShape, PackedConv, Padding, Tile};
use velatura_kernels::gemm::{self, Epilogue, Layout, PackedMatrix, Precision};
use velatura_kernels::isa;
use velatura_kernels::peak::peak;
use velatura_kernels::pool;

/// The fastest of several runs, which together take a fraction of a second.
fn seconds(mut run: impl FnMut()) -> f64 {
    run();
    let (begin, mut best, mut runs) = (Instant::now(), f64::INFINITY, 0);
    while runs < 3 || (begin.elapsed().as_secs_f64() < 0.3) {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

struct Bench {
    filter: Option<String>,
}

impl Bench {
    /// Whether a line whose name begins like this may be asked for.
    fn wants(&self, name: &str) -> bool {
        let begins = |filter: &String| name.contains(filter) || filter.starts_with(name);
        self.filter.as_ref().is_none_or(begins)
    }

    fn line(&self, name: &str, multiply_adds: usize, run: impl FnMut()) {
        if !self.wants(name) {
            return;
        }
        let peak = peak(Precision::F32, 50).unwrap_or(f64::NAN);
        let seconds = seconds(run);
        let speed = 2.0 * multiply_adds as f64 / seconds / 1e9;
        println!(
            "{name:<64} {:9.3} ms {speed:8.1} GFLOP/s {:5.1} % of f32 peak {peak:.0}",
            seconds * 1e3,
            100.0 * speed / peak
        );
    }

    fn matmul(&self, (m, k, n): (usize, usize, usize)) {
        if !self.wants(&format!("matmul {m}x{k}x{n}")) {
            return;
        }
        let (a, b) = (numbers(m * k), numbers(k * n));
        let mut out = vec![0.0; m * n];
        for precision in [Precision::F32, Precision::Bf16] {
            let packed = PackedMatrix::from_columns(&b, k, n, precision);
            self.line(
                &format!("matmul {m}x{k}x{n} packed {precision:?}"),
                m * k * n,
                || {
                    gemm::matmul_packed(m, &a, &packed, &mut out, &Epilogue::default());
                },
            );
        }
    }

    /// The two products that the gradients of `y[m, n] = x[m, k] · wᵀ` take.
    fn gradients(&self, (m, k, n): (usize, usize, usize)) {
        if !self.wants(&format!("matmul {m}x{k}x{n}")) {
            return;
        }
        let (x, dy, w) = (numbers(m * k), numbers(m * n), numbers(n * k));
        let (mut dx, mut dw) = (vec![0.0; m * k], vec![0.0; n * k]);
        let mut db = vec![0.0; n];
        let normal = Layout::Normal;
        self.line(
            &format!("matmul {m}x{k}x{n} input gradient"),
            m * k * n,
            || {
                gemm::matmul(m, k, n, &dy, normal, &w, normal, &mut dx, false);
            },
        );
        for precision in [Precision::F32, Precision::Bf16] {
            let name = format!("matmul {m}x{k}x{n} weight gradient {precision:?}");
            self.line(&name, m * k * n, || {
                let db = Some(&mut db[..]);
                gemm::weight_gradient((m, n, k), &dy, &x, &mut dw, db, precision);
            });
        }
    }

    fn conv(&self, batch: usize, side: usize, (i, o): (usize, usize), stride: usize, train: bool) {
        let shape = ConvShape {
            batch,
            height: side,
            width: side,
            in_channels: i,
            out_channels: o,
            kernel: 3,
            stride,
            padding: Padding::uniform(1),
        };
        let name = format!("conv {batch}x{side}x{side} {i}->{o} stride {stride}");
        if !self.wants(&name) {
            return;
        }
        let (x, dy, weight) = (
            numbers(shape.input_len()),
            numbers(shape.output_len()),
            numbers(shape.weight_len()),
        );
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), weight.clone());
        let mut db = vec![0.0; o];
        let work = shape.output_len() * i * 9;
        let sizes = (o, i, 3);
        let mut algorithms = vec![Algorithm::Direct];
        if stride == 1 {
            algorithms.extend([Tile::F2, Tile::F4].map(Algorithm::Winograd));
        }
        for precision in [Precision::F32, Precision::Bf16] {
            for &algorithm in &algorithms {
                let how = match (algorithm, algorithm == Algorithm::choose(&shape, precision)) {
                    (algorithm, true) => format!("{precision:?} {algorithm:?} (chosen)"),
                    (algorithm, false) => format!("{precision:?} {algorithm:?}"),
                };
                let packed = PackedConv::new(&weight, sizes, precision, algorithm);
                self.line(&format!("{name} forward {how}"), work, || {
                    conv::forward(&shape, &x, &packed, &mut y, &Epilogue::default());
                });
                if !train {
                    continue;
                }
                let packed = PackedConv::for_input_gradient(&weight, sizes, precision, algorithm);
                self.line(&format!("{name} input gradient {how}"), work, || {
                    conv::backward_input(&shape, &dy, &packed, &mut dx);
                });
                let note = "packing twice, as if 1 add each";
                self.line(&format!("{name} {note} {how}"), 2 * weight.len(), || {
                    let pack = PackedConv::for_input_gradient;
                    black_box(PackedConv::new(&weight, sizes, precision, algorithm));
                    black_box(pack(&weight, sizes, precision, algorithm));
                });
            }
            let chosen = Algorithm::choose_for_weight_gradient(&shape, precision);
            for &algorithm in algorithms.iter().filter(|_| train) {
                let how = if algorithm == chosen { " (chosen)" } else { "" };
                let name = format!("{name} weight gradient {precision:?} {algorithm:?}{how}");
                self.line(&name, work, || {
                    let db = Some(&mut db[..]);
                    conv::backward_weight_by(algorithm, &shape, &x, &dy, &mut dw, db, precision);
                });
            }
        }
    }
}

impl Bench {
    /// Forward as in training, with what the gradient needs, then the gradient: two products and five.
    fn attention(&self, [batch, heads, queries, keys, head_dim]: [usize; 5]) {
        let name = format!("attention {batch}x{heads} heads {queries}x{keys} d {head_dim}");
        if !self.wants(&name) {
            return;
        }
        let width = heads * head_dim;
        let (q, dout) = (
            numbers(batch * queries * width),
            numbers(batch * queries * width),
        );
        let (k, v) = (numbers(batch * keys * width), numbers(batch * keys * width));
        let (mut out, mut dq, mut dk, mut dv) = (q.clone(), q.clone(), k.clone(), v.clone());
        let mut lse = vec![0.0; batch * heads * queries];
        let product = batch * heads * queries * keys * head_dim;
        for precision in [Precision::F32, Precision::Bf16] {
            let shape = AttentionShape {
                batch,
                heads,
                queries,
                keys,
                head_dim,
                causal: false,
                precision,
            };
            self.line(
                &format!("{name} forward {precision:?}"),
                2 * product,
                || {
                    attention::forward(&shape, &q, &k, &v, &mut out, Some(&mut lse));
                },
            );
            self.line(
                &format!("{name} gradients {precision:?}"),
                5 * product,
                || {
                    attention::backward(
                        &shape, &q, &k, &v, &out, &lse, &dout, &mut dq, &mut dk, &mut dv,
                    );
                },
            );
        }
    }
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0)
        .collect()
}

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let bench = Bench { filter };
    if std::env::args().any(|arg| arg == "--one-thread") {
        pool::set_threads(1);
    }
    println!(
        "{}, {} threads, fast bf16 {}",
        isa::active(),
        pool::threads(),
        isa::has_fast_bf16()
    );
    // All in the first-level cache: the micro-kernel alone.
    bench.matmul((48, 128, 64));
    // Training shapes of a small UNet and its autoencoder.
    for shape in [
        (4096, 576, 64),
        (4096, 1152, 128),
        (16384, 64, 64),
        (4096, 192, 768),
        (16384, 96, 96),
        (16384, 96, 768),
        (4096, 192, 1536),
        (131072, 128, 64),
    ] {
        bench.matmul(shape);
        bench.gradients(shape);
    }
    for (batch, side, channels, stride) in [
        (16, 16, (128, 128), 1),
        (8, 64, (64, 64), 1),
        (8, 32, (128, 128), 1),
        (16, 32, (96, 96), 1),
        (16, 32, (96, 96), 2),
        (16, 8, (384, 384), 1),
        (8, 128, (64, 64), 1),
        (8, 64, (128, 128), 1),
        (8, 32, (256, 256), 1),
        (8, 128, (64, 3), 1),
        (4, 128, (3, 32), 1),
        (16, 32, (4, 96), 1),
        (4, 128, (32, 3), 1),
    ] {
        bench.conv(batch, side, channels, stride, true);
    }
    for shape in [
        [16, 8, 1024, 1024, 12],
        [16, 8, 1024, 77, 12],
        [16, 8, 256, 256, 24],
        [16, 8, 64, 64, 48],
        [2, 8, 1024, 1024, 40],
        [8, 1, 256, 256, 256],
    ] {
        bench.attention(shape);
    }
    // Stable Diffusion 1.5 at 512×512 with guidance.
    for shape in [
        (8192, 320, 320),
        (2048, 640, 5120),
        (512, 1280, 1280),
        (128, 1280, 10240),
    ] {
        bench.matmul(shape);
    }
    for (side, channels) in [
        (64, (320, 320)),
        (64, (640, 320)),
        (32, (640, 640)),
        (16, (1280, 1280)),
        (8, (2560, 1280)),
    ] {
        bench.conv(2, side, channels, 1, false);
    }
    // Its autoencoder's decoder.
    for (side, channels) in [(64, (512, 512)), (256, (256, 256)), (512, (128, 128))] {
        bench.conv(1, side, channels, 1, false);
    }
}
