//! Sums and products off the tape, of matrices that all change: what an optimiser needs.

use velatura_gpu::{Gpu, elementwise, matmul as gpu};
use velatura_kernels::elementwise as kernel;
use velatura_kernels::gemm::{Epilogue, PackedMatrix, Precision, matmul_packed, weight_gradient};

use crate::Tensor;

impl Tensor {
    /// A `[G, M, K]` · B `[G, N, K]` transposed, each of the one with its own of the other: `[G, M, N]`.
    ///
    /// # Panics
    /// When the shapes are others.
    pub fn times_transposed(&self, other: &Tensor, precision: Precision) -> Tensor {
        let ([batch, m, k], [_, n, _]) = (self.matrices(), other.matrices());
        assert_eq!(other.shape(), [batch, n, k], "{:?} · Bᵀ", self.shape());
        let on_gpu = |on: &Gpu| {
            let (a, b) = (self.memory(on), other.memory(on));
            gpu::products(batch, [m, n, k], [false, true], [a, b], precision)
        };
        Tensor::computed(&[batch, m, n], on_gpu, |out| {
            let (a, b) = (self.as_slice(), other.as_slice());
            let factors = a.chunks_exact(m * k).zip(b.chunks_exact(n * k));
            for ((a, b), out) in factors.zip(out.chunks_exact_mut(m * n)) {
                let b = PackedMatrix::from_rows(b, n, k, precision);
                matmul_packed(m, a, &b, out, &Epilogue::default());
            }
        })
    }

    /// A `[G, K, M]` transposed · B `[G, K, N]`, each of the one with its own of the other: `[G, M, N]`.
    ///
    /// # Panics
    /// When the shapes are others.
    pub fn transposed_times(&self, other: &Tensor, precision: Precision) -> Tensor {
        let ([batch, k, m], [_, _, n]) = (self.matrices(), other.matrices());
        assert_eq!(other.shape(), [batch, k, n], "{:?}ᵀ · B", self.shape());
        let on_gpu = |on: &Gpu| {
            let (a, b) = (self.memory(on), other.memory(on));
            gpu::products(batch, [m, n, k], [true, false], [a, b], precision)
        };
        Tensor::computed(&[batch, m, n], on_gpu, |out| {
            let (a, b) = (self.as_slice(), other.as_slice());
            let factors = a.chunks_exact(k * m).zip(b.chunks_exact(k * n));
            for ((a, b), out) in factors.zip(out.chunks_exact_mut(m * n)) {
                weight_gradient((k, m, n), a, b, out, None, precision);
            }
        })
    }

    /// a · self + b · other, of one shape.
    ///
    /// # Panics
    /// When the shapes are others.
    pub fn combined(&self, a: f32, other: &Tensor, b: f32) -> Tensor {
        assert_eq!(self.shape(), other.shape(), "a sum of two shapes");
        Tensor::computed(
            self.shape(),
            |on| elementwise::combine(a, self.memory(on), b, other.memory(on)),
            |out| {
                kernel::scale(self.as_slice(), a, out);
                kernel::axpy(b, other.as_slice(), out);
            },
        )
    }

    fn matrices(&self) -> [usize; 3] {
        match *self.shape() {
            [batch, rows, columns] => [batch, rows, columns],
            _ => panic!("expected matrices, found a tensor of {:?}", self.shape()),
        }
    }
}
