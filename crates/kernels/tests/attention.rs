//! Attention against the plain loops in f64, with gradients against central differences.

mod common;

use common::*;
use velatura_kernels::attention::{self, AttentionShape};
use velatura_kernels::gemm::Precision;
use velatura_kernels::isa::Isa;
use velatura_kernels::{isa, pool, reference};

fn shape(sizes: [usize; 5], causal: bool) -> AttentionShape {
    let [batch, heads, queries, keys, head_dim] = sizes;
    AttentionShape {
        batch,
        heads,
        queries,
        keys,
        head_dim,
        causal,
        precision: Precision::F32,
    }
}

/// The head sizes of the models and odd ones; lengths around the vectors, strips and blocks of keys.
fn shapes() -> Vec<AttentionShape> {
    let mut shapes: Vec<_> = [
        [1, 1, 1, 1, 1],
        [2, 1, 3, 2, 5],
        [1, 2, 15, 17, 8],
        [2, 3, 64, 77, 40],
        [1, 2, 65, 97, 24],
        [1, 1, 129, 96, 80],
        [2, 2, 70, 49, 160],
        [1, 1, 33, 200, 300],
        [3, 2, 100, 32, 32],
        [1, 4, 256, 256, 64],
    ]
    .map(|sizes| shape(sizes, false))
    .to_vec();
    for sizes in [
        [1, 1, 1, 1, 4],
        [2, 2, 77, 77, 24],
        [1, 2, 150, 150, 64],
        [1, 1, 64, 97, 8],
    ] {
        shapes.push(shape(sizes, true));
    }
    shapes
}

struct Case {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

impl Case {
    /// Scores of deviation about `spread`.
    fn new(s: &AttentionShape, spread: f32) -> Self {
        let (queries, keys) = (s.batch * s.queries, s.batch * s.keys);
        let width = s.heads * s.head_dim;
        let scaled = |len, seed| -> Vec<f32> {
            let factor = (3.0 * spread).sqrt();
            random(len, seed).iter().map(|x| x * factor).collect()
        };
        Case {
            q: scaled(queries * width, 1),
            k: scaled(keys * width, 2),
            v: random(keys * width, 3),
            dout: random(queries * width, 4),
        }
    }
}

struct Exact {
    out: Vec<f64>,
    lse: Vec<f64>,
    dq: Vec<f64>,
    dk: Vec<f64>,
    dv: Vec<f64>,
}

fn exact(s: &AttentionShape, case: &Case) -> Exact {
    let [q, k, v, dout] = [&case.q, &case.k, &case.v, &case.dout].map(|x| widen(x));
    let mut e = Exact {
        out: vec![0.0; q.len()],
        lse: vec![0.0; s.batch * s.heads * s.queries],
        dq: vec![0.0; q.len()],
        dk: vec![0.0; k.len()],
        dv: vec![0.0; v.len()],
    };
    reference::attention::forward(s, &q, &k, &v, &mut e.out, Some(&mut e.lse));
    reference::attention::backward(
        s, &q, &k, &v, &e.out, &e.lse, &dout, &mut e.dq, &mut e.dk, &mut e.dv,
    );
    e
}

/// `unit`: the rounding of numbers near 1, which is all that is left where a result vanishes (gradients of
/// scores, where there is one key).
fn check_close(what: &str, got: &[f32], want: &[f64], relative: f64, unit: f64) {
    let square = |x: f64| x * x;
    let difference: f64 = got
        .iter()
        .zip(want)
        .map(|(&g, &w)| square(f64::from(g) - w))
        .sum();
    let norm: f64 = want.iter().map(|&w| square(w)).sum();
    let error = difference.sqrt();
    let slack = relative * norm.sqrt() + unit * (want.len() as f64).sqrt();
    assert!(
        error <= slack,
        "{what}: off by {error:e}, norm {:e}",
        norm.sqrt()
    );
}

/// How far rounding may take the results, relative to their norm: a score is a sum of head_dim products, and
/// its absolute error is a probability's relative one.
fn tolerance(s: &AttentionShape) -> f64 {
    let d = s.head_dim as f64;
    match s.precision {
        Precision::F32 => UNIT * (20.0 + 4.0 * d),
        // Two factors rounded to eight bits; the roundings of a sum's many terms average out.
        Precision::Bf16 | Precision::Int8 => 3.0 / 512.0,
    }
}

#[test]
fn matches_the_plain_loops() {
    for s in shapes() {
        let case = Case::new(&s, 1.5);
        let want = exact(&s, &case);
        for (isa, precision) in isas()
            .into_iter()
            .flat_map(|isa| [Precision::F32, Precision::Bf16].map(|precision| (isa, precision)))
        {
            let s = AttentionShape { precision, ..s };
            let relative = tolerance(&s);
            let unit = match precision {
                Precision::F32 => 10.0 * UNIT,
                Precision::Bf16 | Precision::Int8 => 1.0 / 512.0,
            };
            isa::with(isa, || {
                let what = |name: &str| format!("{isa}, {s:?}: {name}");
                let [q, k, v, dout] =
                    [&case.q, &case.k, &case.v, &case.dout].map(|x| Misaligned::new(x, 1));
                let (q, k, v, dout) = (q.get(), k.get(), v.get(), dout.get());
                let mut out = Misaligned::new(&vec![f32::NAN; q.len()], 3);
                let mut lse = vec![f32::NAN; want.lse.len()];
                attention::forward(&s, q, k, v, out.get_mut(), None);
                check_close(&what("out"), out.get(), &want.out, relative, unit);
                let before = out.get().to_vec();
                attention::forward(&s, q, k, v, out.get_mut(), Some(&mut lse));
                assert_eq!(out.get(), before);
                check_close(&what("lse"), &lse, &want.lse, relative, unit);
                let [mut dq, mut dk, mut dv] =
                    [q.len(), k.len(), v.len()].map(|len| Misaligned::new(&vec![f32::NAN; len], 5));
                attention::backward(
                    &s,
                    q,
                    k,
                    v,
                    out.get(),
                    &lse,
                    dout,
                    dq.get_mut(),
                    dk.get_mut(),
                    dv.get_mut(),
                );
                check_close(&what("dq"), dq.get(), &want.dq, 4.0 * relative, unit);
                check_close(&what("dk"), dk.get(), &want.dk, 4.0 * relative, unit);
                check_close(&what("dv"), dv.get(), &want.dv, 4.0 * relative, unit);
            });
        }
    }
}

#[test]
fn bf16_dot_products_match_the_plain_loops() {
    if !Isa::Avx512.is_available() {
        return;
    }
    let mut shapes = shapes();
    // Odd head sizes, more than one panel of channels, and several blocks of keys of which the last is odd.
    shapes.push(shape([2, 2, 70, 601, 7], false));
    shapes.push(shape([1, 1, 65, 211, 513], false));
    shapes.push(shape([1, 1, 17, 97, 65], true));
    // More keys than a causal query sees, and lanes for every number of vectors.
    shapes.push(shape([1, 2, 40, 300, 12], true));
    for queries in [5, 20, 37, 50] {
        shapes.push(shape([1, 1, queries, 33, 12], false));
    }
    for s in shapes {
        let case = Case::new(&s, 1.5);
        let s = AttentionShape {
            precision: Precision::Bf16,
            ..s
        };
        let want = exact(&s, &case);
        let mut out = Misaligned::new(&vec![f32::NAN; case.q.len()], 3);
        let mut lse = vec![f32::NAN; want.lse.len()];
        let [q, k, v, dout] =
            [&case.q, &case.k, &case.v, &case.dout].map(|x| Misaligned::new(x, 1));
        let [mut dq, mut dk, mut dv] = [&case.q, &case.k, &case.v].map(|x| vec![f32::NAN; x.len()]);
        let run = || {
            let (q, k, v) = (q.get(), k.get(), v.get());
            attention::forward(&s, q, k, v, out.get_mut(), Some(&mut lse));
            let (out, dout) = (out.get(), dout.get());
            attention::backward(&s, q, k, v, out, &lse, dout, &mut dq, &mut dk, &mut dv);
        };
        if isa::with(Isa::Avx512, || isa::with_bf16_dot(true, run)).is_none() {
            return;
        }
        let (what, relative, unit) = (format!("{s:?}"), tolerance(&s), 1.0 / 512.0);
        check_close(&what, out.get(), &want.out, relative, unit);
        check_close(&what, &lse, &want.lse, relative, unit);
        for (name, got, want) in [
            ("dq", &dq, &want.dq),
            ("dk", &dk, &want.dk),
            ("dv", &dv, &want.dv),
        ] {
            check_close(&format!("{what}: {name}"), got, want, 4.0 * relative, unit);
        }
    }
}

/// Scores, exact in bf16, that grow from block to block of keys: so far that powers relative to the first ones are large,
/// or overflow.
#[test]
fn keys_far_above_the_first_ones_are_seen() {
    for (height, causal) in [(10.0, false), (50.0, false), (1000.0, false), (50.0, true)] {
        let s = AttentionShape {
            precision: Precision::Bf16,
            ..shape([1, 2, 450, 450, 16], causal)
        };
        let mut case = Case::new(&s, 1.0);
        for (q, row) in case.q.chunks_exact_mut(16).enumerate() {
            row.fill([1.0, 0.5, -1.0][q % 3]);
        }
        for (k, row) in case.k.chunks_exact_mut(16).enumerate() {
            row.fill(match k / 2 / 200 {
                0 => (k % 3) as f32,
                block => height * block as f32,
            });
        }
        let want = exact(&s, &case);
        for isa in isas() {
            isa::with(isa, || {
                let mut out = vec![f32::NAN; case.q.len()];
                let mut lse = vec![f32::NAN; want.lse.len()];
                attention::forward(&s, &case.q, &case.k, &case.v, &mut out, Some(&mut lse));
                let what = format!("{isa}, {height}, causal {causal}");
                check_close(&what, &out, &want.out, tolerance(&s), 1.0 / 512.0);
                check_close(&what, &lse, &want.lse, tolerance(&s), 1.0 / 512.0);
            });
        }
    }
}

/// Central differences of `loss` at `x`, each place in turn.
fn numeric(x: &[f64], mut loss: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    // The error is of the order of STEP² and of f64's epsilon / STEP: 1e-10.
    const STEP: f64 = 1e-5;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let middle = x[i];
            x[i] = middle + STEP;
            let above = loss(&x);
            x[i] = middle - STEP;
            let below = loss(&x);
            x[i] = middle;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

#[test]
fn gradients_are_those_of_the_forward_pass() {
    for s in [shape([1, 2, 5, 7, 6], false), shape([2, 1, 6, 6, 5], true)] {
        let case = Case::new(&s, 1.0);
        let (mut out, mut lse) = (
            vec![0.0; case.q.len()],
            vec![0.0; s.batch * s.heads * s.queries],
        );
        attention::forward(&s, &case.q, &case.k, &case.v, &mut out, Some(&mut lse));
        let [mut dq, mut dk, mut dv] = [&case.q, &case.k, &case.v].map(|x| vec![f32::NAN; x.len()]);
        attention::backward(
            &s, &case.q, &case.k, &case.v, &out, &lse, &case.dout, &mut dq, &mut dk, &mut dv,
        );
        let [q, k, v, dout] = [&case.q, &case.k, &case.v, &case.dout].map(|x| widen(x));
        let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
            let mut out = vec![0.0; q.len()];
            reference::attention::forward(&s, q, k, v, &mut out, None);
            out.iter().zip(&dout).map(|(out, dout)| out * dout).sum()
        };
        check_close(
            "dq",
            &dq,
            &numeric(&q, |q| loss(q, &k, &v)),
            100.0 * UNIT,
            10.0 * UNIT,
        );
        check_close(
            "dk",
            &dk,
            &numeric(&k, |k| loss(&q, k, &v)),
            100.0 * UNIT,
            10.0 * UNIT,
        );
        check_close(
            "dv",
            &dv,
            &numeric(&v, |v| loss(&q, &k, v)),
            100.0 * UNIT,
            10.0 * UNIT,
        );
    }
}

/// Scores of ±10 000: each softmax is a choice of one key, and the sums neither overflow nor vanish.
#[test]
fn extreme_scores_choose_one_key() {
    let s = shape([1, 1, 70, 150, 4], false);
    let mut q = vec![0.0; 70 * 4];
    let mut k = vec![0.0; 150 * 4];
    // The score of query i and key j is 150·(j − 75), for odd queries −150·(j − 75).
    for i in 0..70 {
        q[i * 4] = if i % 2 == 0 { 300.0 } else { -300.0 };
    }
    for j in 0..150 {
        k[j * 4] = j as f32 - 75.0;
    }
    let v = random(150 * 4, 1);
    for isa in isas() {
        isa::with(isa, || {
            let (mut out, mut lse) = (vec![f32::NAN; 70 * 4], vec![f32::NAN; 70]);
            attention::forward(&s, &q, &k, &v, &mut out, Some(&mut lse));
            for (i, out) in out.chunks(4).enumerate() {
                let key = if i % 2 == 0 { 149 } else { 0 };
                for (out, v) in out.iter().zip(&v[key * 4..]) {
                    assert!((out - v).abs() <= 1e-6, "{isa}: query {i}");
                }
                let score = 150.0 * (if i % 2 == 0 { 74.0 } else { 75.0 });
                assert!(
                    (lse[i] - score).abs() <= 8.0 * score * f32::EPSILON,
                    "{isa}: {} {score}",
                    lse[i]
                );
            }
            let dout = random(70 * 4, 2);
            let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
            attention::backward(&s, &q, &k, &v, &out, &lse, &dout, &mut dq, &mut dk, &mut dv);
            assert!(
                [dq, dk, dv].iter().flatten().all(|x| x.is_finite()),
                "{isa}"
            );
        });
    }
}

#[test]
fn a_nan_reaches_the_result() {
    let s = shape([1, 1, 20, 120, 8], false);
    let case = Case::new(&s, 1.0);
    for isa in isas() {
        isa::with(isa, || {
            let mut k = case.k.clone();
            k[100 * 8 + 3] = f32::NAN;
            let mut out = vec![0.0; case.q.len()];
            attention::forward(&s, &case.q, &k, &case.v, &mut out, None);
            assert!(out.iter().all(|x| x.is_nan()), "{isa}");
        });
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let s = shape([2, 3, 300, 130, 40], false);
    let case = Case::new(&s, 1.0);
    let before = pool::threads();
    let results: Vec<_> = [1, 2, 5]
        .into_iter()
        .map(|threads| {
            pool::set_threads(threads);
            let (mut out, mut lse) = (vec![0.0; case.q.len()], vec![0.0; 6 * 300]);
            attention::forward(&s, &case.q, &case.k, &case.v, &mut out, Some(&mut lse));
            let [mut dq, mut dk, mut dv] =
                [&case.q, &case.k, &case.v].map(|x| vec![f32::NAN; x.len()]);
            attention::backward(
                &s, &case.q, &case.k, &case.v, &out, &lse, &case.dout, &mut dq, &mut dk, &mut dv,
            );
            (out, lse, dq, dk, dv)
        })
        .collect();
    pool::set_threads(before);
    assert!(results.windows(2).all(|r| r[0] == r[1]));
}
