//! Element by element: arithmetic, activations, reductions to a scalar.

use crate::{Activation, Tensor, device};
use velatura_gpu::{elementwise as gpu, multi};
use velatura_kernels::{activation, elementwise as kernel};

fn same_shape(op: &str, a: &Tensor, b: &Tensor) {
    assert_eq!(a.shape(), b.shape(), "{op} of two shapes");
}

impl Tensor {
    /// self + other, of one shape.
    pub fn add(&self, other: &Tensor) -> Tensor {
        same_shape("add", self, other);
        let mut out = Tensor::computed(
            self.shape(),
            |on| gpu::combine(1.0, self.memory(on), 1.0, other.memory(on)),
            |out| kernel::add(self.as_slice(), other.as_slice(), out),
        );
        let (a, b) = (self.node().clone(), other.node().clone());
        out.record(&[self, other], move |dy, gradients| {
            gradients.add(&a, || dy.clone());
            gradients.add(&b, || dy.clone());
        });
        out
    }

    /// self − other, of one shape.
    pub fn sub(&self, other: &Tensor) -> Tensor {
        same_shape("sub", self, other);
        let mut out = Tensor::computed(
            self.shape(),
            |on| gpu::combine(1.0, self.memory(on), -1.0, other.memory(on)),
            |out| kernel::sub(self.as_slice(), other.as_slice(), out),
        );
        let (a, b) = (self.node().clone(), other.node().clone());
        out.record(&[self, other], move |dy, gradients| {
            gradients.add(&a, || dy.clone());
            gradients.add(&b, || dy.neg());
        });
        out
    }

    /// self · other element by element, of one shape.
    pub fn mul(&self, other: &Tensor) -> Tensor {
        same_shape("mul", self, other);
        let mut out = Tensor::computed(
            self.shape(),
            |on| gpu::multiply(1.0, self.memory(on), other.memory(on)),
            |out| kernel::mul(self.as_slice(), other.as_slice(), out),
        );
        let (a, b) = (self.clone(), other.clone());
        out.record(&[self, other], move |dy, gradients| {
            gradients.add(a.node(), || dy.mul(&b));
            gradients.add(b.node(), || dy.mul(&a));
        });
        out
    }

    /// self · factor.
    pub fn scale(&self, factor: f32) -> Tensor {
        let mut out = Tensor::computed(
            self.shape(),
            |on| gpu::scale(self.memory(on), factor, 0.0),
            |out| kernel::scale(self.as_slice(), factor, out),
        );
        let node = self.node().clone();
        out.record(&[self], move |dy, gradients| {
            gradients.add(&node, || dy.scale(factor))
        });
        out
    }

    pub fn neg(&self) -> Tensor {
        self.scale(-1.0)
    }

    /// self + value.
    pub fn add_scalar(&self, value: f32) -> Tensor {
        let mut out = Tensor::computed(
            self.shape(),
            |on| gpu::scale(self.memory(on), 1.0, value),
            |out| map(self, out, |x| x + value),
        );
        let node = self.node().clone();
        out.record(&[self], move |dy, gradients| {
            gradients.add(&node, || dy.clone())
        });
        out
    }

    /// eˣ.
    pub fn exp(&self) -> Tensor {
        let mut out = Tensor::output(self.shape(), |out| kernel::exp(self.as_slice(), out));
        let (node, y) = (self.node().clone(), out.detach());
        out.record(&[self], move |dy, gradients| {
            gradients.add(&node, || dy.mul(&y))
        });
        out
    }

    /// x².
    pub fn square(&self) -> Tensor {
        let mut out = Tensor::computed(
            self.shape(),
            |on| gpu::multiply(1.0, self.memory(on), self.memory(on)),
            |out| map(self, out, |x| x * x),
        );
        let x = self.clone();
        out.record(&[self], move |dy, gradients| {
            gradients.add(x.node(), || {
                Tensor::computed(
                    x.shape(),
                    |on| gpu::multiply(2.0, x.memory(on), dy.memory(on)),
                    |out| zip(dy, &x, out, |dy, x| 2.0 * x * dy),
                )
            })
        });
        out
    }

    /// |x|; its slope at 0 is taken as 0, as PyTorch does.
    pub fn abs(&self) -> Tensor {
        let mut out = self.map(f32::abs);
        let x = self.clone();
        out.record(&[self], move |dy, gradients| {
            gradients.add(x.node(), || {
                dy.zip(&x, |dy, x| if x == 0.0 { 0.0 } else { dy * x.signum() })
            })
        });
        out
    }

    /// 2c·(√(x² + c²) − c): about x² for |x| below c, about 2c·|x| beyond (the pseudo-Huber loss as diffusion training
    /// scales it: Khrapov et al. 2024, arXiv:2403.16728).
    pub fn pseudo_huber(&self, c: f32) -> Tensor {
        let mut out = self.map(|x| 2.0 * c * ((x * x + c * c).sqrt() - c));
        let x = self.clone();
        out.record(&[self], move |dy, gradients| {
            gradients.add(x.node(), || {
                dy.zip(&x, |dy, x| dy * 2.0 * c * x / (x * x + c * c).sqrt())
            })
        });
        out
    }

    /// x cut to [low, high]; NaN stays NaN. The gradient passes where x lies inside, ends included.
    pub fn clamp(&self, low: f32, high: f32) -> Tensor {
        let mut out = self.map(|x| x.clamp(low, high));
        let x = self.clone();
        out.record(&[self], move |dy, gradients| {
            gradients.add(x.node(), || {
                dy.zip(&x, |dy, x| if (low..=high).contains(&x) { dy } else { 0.0 })
            })
        });
        out
    }

    /// Sample b times `factors[b]`: the first axis is the batch.
    ///
    /// # Panics
    /// When there are not as many factors as samples.
    pub fn scale_samples(&self, factors: &[f32]) -> Tensor {
        assert_eq!(self.dim(0), factors.len(), "one factor for each sample");
        let sample = self.len() / factors.len().max(1);
        let mut out = Tensor::computed(
            self.shape(),
            |on| gpu::scale_samples(self.memory(on), factors),
            |out| {
                let samples = self.as_slice().chunks_exact(sample);
                for ((x, out), &factor) in samples.zip(out.chunks_exact_mut(sample)).zip(factors) {
                    kernel::scale(x, factor, out);
                }
            },
        );
        let (node, factors) = (self.node().clone(), factors.to_vec());
        out.record(&[self], move |dy, gradients| {
            gradients.add(&node, || dy.scale_samples(&factors))
        });
        out
    }

    /// x `[B, …, C]` + e `[B, C]`, the same for every place of a sample: how a residual block
    /// takes its time embedding.
    pub fn add_channels(&self, e: &Tensor) -> Tensor {
        let (batch, channels) = (self.dim(0), self.channels());
        assert_eq!(
            e.shape(),
            [batch, channels],
            "add_channels to {:?}",
            self.shape()
        );
        let spatial = self.len() / (batch * channels).max(1);
        let mut out = Tensor::computed(
            self.shape(),
            |on| gpu::add_channels(self.memory(on), e.memory(on), spatial, channels),
            |out| {
                kernel::add_channels(batch, spatial, channels, self.as_slice(), e.as_slice(), out)
            },
        );
        let (x_node, e_node) = (self.node().clone(), e.node().clone());
        out.record(&[self, e], move |dy, gradients| {
            gradients.add(&x_node, || dy.clone());
            gradients.add(&e_node, || {
                Tensor::computed(
                    &[batch, channels],
                    |on| gpu::add_channels_gradient(dy.memory(on), batch, spatial, channels),
                    |de| {
                        let samples = dy.as_slice().chunks_exact(spatial * channels);
                        for (dy, de) in samples.zip(de.chunks_exact_mut(channels)) {
                            kernel::sum_rows(spatial, channels, dy, de);
                        }
                    },
                )
            });
        });
        out
    }

    /// The sum of all elements, as a scalar of shape `[]`; summed in f64.
    pub fn sum(&self) -> Tensor {
        let mut out = Tensor::from_vec(vec![self.total() as f32], &[]);
        let (node, shape) = (self.node().clone(), self.shape().to_vec());
        out.record(&[self], move |dy, gradients| {
            gradients.add(&node, || Tensor::full(&shape, dy.item()))
        });
        out
    }

    /// The mean of all elements, as a scalar of shape `[]`; summed in f64.
    pub fn mean(&self) -> Tensor {
        let count = self.len() as f32;
        let sum = self.total();
        let mut out = Tensor::from_vec(vec![(sum / f64::from(count)) as f32], &[]);
        let (node, shape) = (self.node().clone(), self.shape().to_vec());
        out.record(&[self], move |dy, gradients| {
            gradients.add(&node, || Tensor::full(&shape, dy.item() / count))
        });
        out
    }

    /// SiLU, GELU (exact) or quick GELU.
    pub fn activation(&self, activation: Activation) -> Tensor {
        let mut out = Tensor::computed(
            self.shape(),
            |on| gpu::activation(activation, self.memory(on)),
            |out| activation::forward(activation, self.as_slice(), out),
        );
        let x = self.clone();
        out.record(&[self], move |dy, gradients| {
            gradients.add(x.node(), || {
                Tensor::computed(
                    x.shape(),
                    |on| gpu::activation_backward(activation, x.memory(on), dy.memory(on)),
                    |dx| activation::backward(activation, x.as_slice(), dy.as_slice(), dx),
                )
            })
        });
        out
    }

    /// x where it is positive, else slope · x; slope 0 is ReLU.
    pub fn leaky_relu(&self, slope: f32) -> Tensor {
        let mut out = Tensor::output(self.shape(), |out| {
            activation::leaky_relu(slope, self.as_slice(), out)
        });
        let x = self.clone();
        out.record(&[self], move |dy, gradients| {
            gradients.add(x.node(), || {
                Tensor::output(x.shape(), |dx| {
                    activation::leaky_relu_backward(slope, x.as_slice(), dy.as_slice(), dx)
                })
            })
        });
        out
    }

    /// x · σ(x).
    pub fn silu(&self) -> Tensor {
        self.activation(Activation::Silu)
    }

    /// value · gelu(gate) of `[…, 2C]` = value | gate (Shazeer 2020, arXiv:2002.05202): `[…, C]`.
    pub fn geglu(&self) -> Tensor {
        assert!(
            self.channels().is_multiple_of(2),
            "geglu of {:?}",
            self.shape()
        );
        let columns = self.channels() / 2;
        let rows = self.len() / (2 * columns).max(1);
        let mut shape = self.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = columns;
        }
        let mut out = Tensor::computed(
            &shape,
            |on| gpu::geglu(self.memory(on), columns),
            |out| activation::geglu(rows, columns, self.as_slice(), out),
        );
        let x = self.clone();
        out.record(&[self], move |dy, gradients| {
            gradients.add(x.node(), || {
                Tensor::computed(
                    x.shape(),
                    |on| gpu::geglu_backward(x.memory(on), dy.memory(on), columns),
                    |dx| activation::geglu_backward(rows, columns, x.as_slice(), dy.as_slice(), dx),
                )
            })
        });
        out
    }

    /// The sum of all elements.
    fn total(&self) -> f64 {
        match device::current() {
            Some(on) => multi::sums(&on, &[self.memory(&on)], false)[0],
            None => kernel::sum(self.as_slice()),
        }
    }

    /// Off the tape: `f` of every element.
    fn map(&self, f: impl Fn(f32) -> f32) -> Tensor {
        Tensor::output(self.shape(), |out| map(self, out, f))
    }

    /// Off the tape: `f` of every pair of elements.
    fn zip(&self, other: &Tensor, f: impl Fn(f32, f32) -> f32) -> Tensor {
        Tensor::output(self.shape(), |out| zip(self, other, out, f))
    }
}

fn map(x: &Tensor, out: &mut [f32], f: impl Fn(f32) -> f32) {
    for (out, &x) in out.iter_mut().zip(x.as_slice()) {
        *out = f(x);
    }
}

fn zip(a: &Tensor, b: &Tensor, out: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    let pairs = a.as_slice().iter().zip(b.as_slice());
    for (out, (&a, &b)) in out.iter_mut().zip(pairs) {
        *out = f(a, b);
    }
}
