//! Every operation's backward function against central finite differences of its forward.
//!
//! The kernels' own gradients are checked in f64 beside them; here the question is whether the tape
//! hands the right tensors to the right kernels. So a directional derivative is compared: with a
//! random direction d, (f(x + h·d) − f(x − h·d)) / 2h against ⟨∇f, d⟩.

use velatura_tensor::{
    Activation, Gpu, Padding, Parameter, Precision, Tensor, Weight, device, tape,
};

/// Numbers in (−1, 1) from a linear congruential generator (Knuth's MMIX constants).
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((state >> 40) as f32) / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn tensor(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(numbers(shape.iter().product(), seed), shape)
}

fn parameter(shape: &[usize], seed: u64) -> Parameter {
    Parameter::new(format!("p{seed}"), tensor(shape, seed))
}

/// Checks the gradients of ⟨f(parameters), r⟩, r random, for each parameter.
///
/// With h = 1e-2 the truncation error is of order h² ≈ 1e-4 relative for functions whose third
/// derivative is of the order of their first, and the rounding error of order
/// 2⁻²⁴·‖f‖·‖r‖ / (h·|derivative|) ≈ 1e-5 … 1e-4 when the derivative is not small; the sum over a
/// random direction is compared with the norm of gradient and direction, 2e-3 of which covers both.
///
/// On a graphics card they are the same within rounding, by kernels of its own or the processor's.
fn check(parameters: &[&Parameter], f: impl Fn() -> Tensor) {
    let shape = tape::no_grad(&f).shape().to_vec();
    let r = tensor(&shape, 99);
    let loss = || f().mul(&r).sum();
    let gradients = loss().backward();
    let on_card = device::on(&Gpu::for_tests(), || loss().backward());
    for (i, &p) in parameters.iter().enumerate() {
        let [here, there] = [&gradients, &on_card].map(|all| all.get(p).unwrap().as_slice());
        let largest = here.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        for (here, there) in here.iter().zip(there) {
            let error = (here - there).abs();
            assert!(
                error <= 1e-5 * largest + 1e-7,
                "parameter {i}: {here} on the processor, {there} on a card, {largest} is the largest"
            );
        }
    }
    for (i, &p) in parameters.iter().enumerate() {
        let gradient = gradients
            .get(p)
            .unwrap_or_else(|| panic!("no gradient for parameter {i}"));
        assert_eq!(gradient.shape(), p.shape());
        let start = p.value().detach();
        let direction = tensor(p.shape(), 1000 + i as u64);
        let h = 1e-2;
        let at = |step: f32| {
            p.set(start.add(&direction.scale(step)));
            tape::no_grad(loss).item() as f64
        };
        let measured = (at(h) - at(-h)) / (2.0 * h as f64);
        p.set(start);
        let dot = |a: &Tensor, b: &Tensor| -> f64 {
            let pairs = a.as_slice().iter().zip(b.as_slice());
            pairs.map(|(a, b)| *a as f64 * *b as f64).sum()
        };
        let given = dot(gradient, &direction);
        let scale = (dot(gradient, gradient) * dot(&direction, &direction)).sqrt();
        assert!(
            (measured - given).abs() <= 2e-3 * scale + 1e-4,
            "parameter {i}: measured {measured}, given {given}, scale {scale}"
        );
    }
}

#[test]
fn arithmetic() {
    let (a, b) = (parameter(&[2, 3, 4], 1), parameter(&[2, 3, 4], 2));
    let both = [&a, &b];
    check(&both, || a.value().add(&b.value()));
    check(&both, || a.value().sub(&b.value()));
    check(&both, || a.value().mul(&b.value()));
    check(&both, || {
        a.value().scale(3.0).add(&b.value().neg().add_scalar(2.0))
    });
    check(&[&a], || a.value().exp());
    check(&[&a], || a.value().square());
    check(&[&a], || a.value().add_scalar(2.0).abs());
    check(&[&a], || a.value().pseudo_huber(0.4));
    check(&[&a], || a.value().scale_samples(&[2.0, -0.5]));
    check(&[&a], || a.value().sum());
    check(&[&a], || a.value().square().mean());
    // A tensor used twice gets both gradients.
    check(&[&a], || a.value().mul(&a.value()));
    let x = || a.value();
    check(&[&a], || {
        let y = x();
        y.mul(&y).add(&y)
    });
}

#[test]
fn clamp_passes_the_gradient_inside_only() {
    let p = Parameter::new("p", Tensor::from_vec(vec![-2.0, 0.5, 2.0], &[3]));
    let gradients = p.value().clamp(-1.0, 1.0).sum().backward();
    assert_eq!(gradients.get(&p).unwrap().as_slice(), [0.0, 1.0, 0.0]);
}

#[test]
fn activations() {
    let a = parameter(&[3, 10], 3);
    for activation in [Activation::Silu, Activation::Gelu, Activation::QuickGelu] {
        check(&[&a], || a.value().scale(2.0).activation(activation));
    }
    check(&[&a], || a.value().geglu());
    // No number here is nearer to the bend than the step of the difference.
    check(&[&a], || a.value().add_scalar(2.0).neg().leaky_relu(0.2));
    check(&[&a], || a.value().add_scalar(2.0).leaky_relu(0.2));
}

#[test]
fn linear_and_embedding() {
    let (x, bias) = (parameter(&[2, 3, 5], 4), parameter(&[7], 6));
    let w = parameter(&[7, 5], 5);
    let weight = Weight::trainable(w.clone());
    check(&[&x, &w, &bias], || x.value().linear(&weight, Some(&bias)));
    check(&[&x, &w], || x.value().linear(&weight, None));
    let table = parameter(&[6, 4], 7);
    check(&[&table], || table.embedding(&[1, 5, 1, 0], &[2, 2]));
}

#[test]
fn what_reaches_one_tensor_adds_up_on_the_way() {
    let (x, bias) = (parameter(&[2, 6, 8], 30), parameter(&[8], 31));
    let (w, v) = (parameter(&[8, 8], 32), parameter(&[8, 8], 33));
    let (gamma, beta) = (parameter(&[8], 34), parameter(&[8], 35));
    let (to_w, to_v) = (Weight::trainable(w.clone()), Weight::trainable(v.clone()));
    let residual = parameter(&[2, 6, 8], 36);
    check(&[&x, &w, &bias, &residual], || {
        (x.value()).linear_onto(&to_w, Some(&bias), &residual.value())
    });
    // A norm whose result goes two ways, and whose input goes past it.
    for group in [false, true] {
        check(&[&x, &w, &v, &bias, &gamma, &beta], || {
            let x = x.value();
            let normed = match group {
                true => x.group_norm_silu(2, 1e-2, &gamma, &beta),
                false => x.layer_norm(1e-2, &gamma, &beta),
            };
            let both = normed.linear(&to_w, None).mul(&normed.linear(&to_v, None));
            both.linear_onto(&to_v, Some(&bias), &x)
        });
    }
}

#[test]
fn convolutions() {
    let x = parameter(&[2, 5, 6, 3], 8);
    let bias = parameter(&[4], 9);
    let around = Padding {
        top: 1,
        bottom: 1,
        left: 1,
        right: 1,
    };
    // The VAE's encoder pads its strided convolutions below and to the right only.
    let behind = Padding {
        top: 0,
        bottom: 1,
        left: 0,
        right: 1,
    };
    for (kernel, stride, padding) in [
        (3, 1, around),
        (3, 2, around),
        (3, 2, behind),
        (1, 1, Padding::default()),
        // A PatchGAN's.
        (4, 2, around),
        (4, 1, around),
    ] {
        let w = parameter(&[4, 3, kernel, kernel], 10);
        let weight = Weight::trainable(w.clone());
        check(&[&x, &w, &bias], || {
            x.value().conv2d(&weight, Some(&bias), stride, padding)
        });
    }
}

#[test]
fn norms() {
    let x = parameter(&[2, 3, 3, 8], 11);
    let (gamma, beta) = (parameter(&[8], 12), parameter(&[8], 13));
    let all = [&x, &gamma, &beta];
    check(&all, || x.value().group_norm(4, 1e-5, &gamma, &beta));
    check(&all, || x.value().group_norm_silu(2, 1e-5, &gamma, &beta));
    check(&all, || x.value().layer_norm(1e-5, &gamma, &beta));
    check(&[&x], || x.value().unit_channels(1e-10));
}

#[test]
fn attention() {
    let (q, k, v) = (
        parameter(&[2, 5, 6], 14),
        parameter(&[2, 7, 6], 15),
        parameter(&[2, 7, 6], 16),
    );
    check(&[&q, &k, &v], || {
        q.value()
            .attention(&k.value(), &v.value(), 2, false, Precision::F32)
    });
    let (k, v) = (parameter(&[2, 5, 6], 17), parameter(&[2, 5, 6], 18));
    check(&[&q, &k, &v], || {
        q.value()
            .attention(&k.value(), &v.value(), 3, true, Precision::F32)
    });
}

#[test]
fn shapes() {
    let (a, b) = (parameter(&[2, 3, 4, 5], 19), parameter(&[2, 3, 4, 2], 20));
    check(&[&a, &b], || {
        Tensor::concat_channels(&[&a.value(), &b.value()])
    });
    check(&[&a], || a.value().narrow_channels(1, 3));
    check(&[&a], || a.value().narrow_batch(1, 1));
    check(&[&a], || {
        Tensor::concat_batch(&[&a.value(), &a.value().scale(2.0)])
    });
    check(&[&a], || a.value().reshape(&[6, 20]));
    check(&[&a], || a.value().nhwc_to_nchw());
    check(&[&a], || a.value().nchw_to_nhwc());
    check(&[&a], || a.value().upsample_nearest2x());
    check(&[&a], || a.value().crop(2, 3));
    // Steps of 1 between neighbours, so that the largest stays the largest.
    let steps: Vec<f32> = (0..2 * 5 * 4 * 3).map(|i| (i * 7 % 24) as f32).collect();
    let b = Parameter::new("b", Tensor::from_vec(steps, &[2, 5, 4, 3]));
    check(&[&b], || b.value().scale(0.5).max_pool2x2());
    let e = parameter(&[2, 5], 21);
    check(&[&a, &e], || a.value().add_channels(&e.value()));
}

#[test]
fn recomputed_blocks_give_the_same_gradients_as_kept_ones() {
    let x = parameter(&[2, 4], 22);
    let w = parameter(&[4, 4], 23);
    let weight = Weight::trainable(w.clone());
    let block = move |x: &Tensor| x.linear(&weight, None).silu().add(x);

    let kept = block(&block(&x.value())).square().sum();
    let (once, twice) = (block.clone(), block.clone());
    let hidden = tape::recompute(&[&x.value()], move |x| once(&x[0]));
    let recomputed = tape::recompute(&[&hidden], move |x| twice(&x[0]))
        .square()
        .sum();
    assert_eq!(kept.item(), recomputed.item());

    let (kept, recomputed) = (kept.backward(), recomputed.backward());
    for p in [&x, &w] {
        assert_eq!(
            kept.get(p).unwrap().as_slice(),
            recomputed.get(p).unwrap().as_slice()
        );
    }
}

#[test]
fn nothing_is_recorded_without_parameters_or_under_no_grad() {
    let p = parameter(&[3], 24);
    let constant = Tensor::full(&[3], 2.0);
    assert!(constant.mul(&constant).sum().backward().get(&p).is_none());
    let loss = tape::no_grad(|| p.value().square().sum());
    assert!(loss.backward().get(&p).is_none());
    let loss = p.value().detach().mul(&p.value()).sum();
    let gradients = loss.backward();
    assert_eq!(gradients.get(&p).unwrap().as_slice(), p.value().as_slice());
}

#[test]
fn held_parameters_let_gradients_pass_and_get_none() {
    let (x, w, bias) = (
        parameter(&[2, 4], 25),
        parameter(&[3, 4], 26),
        parameter(&[3], 27),
    );
    let weight = Weight::trainable(w.clone());
    let input = x.value();
    let loss = || input.linear(&weight, Some(&bias)).square().sum();
    let (held, free) = (tape::frozen(loss).backward(), loss().backward());
    assert_eq!(
        held.get(&x).unwrap().as_slice(),
        free.get(&x).unwrap().as_slice()
    );
    assert!(held.get(&w).is_none() && held.get(&bias).is_none());
    assert!(free.get(&w).is_some() && free.get(&bias).is_some());
}

#[test]
fn a_trainable_weight_is_packed_again_after_a_change() {
    let w = Parameter::new("w", Tensor::from_vec(vec![1.0, 2.0], &[1, 2]));
    let weight = Weight::trainable(w.clone());
    let x = Tensor::from_vec(vec![10.0, 1.0], &[1, 2]);
    assert_eq!(x.linear(&weight, None).item(), 12.0);
    w.update(|w| w[1] = 5.0);
    assert_eq!(x.linear(&weight, None).item(), 15.0);
}
