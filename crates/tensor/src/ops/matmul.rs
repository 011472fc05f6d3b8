//! Sums and products off the tape, of matrices that all change: what an optimiser needs.

use velatura_gpu::{Gpu, elementwise, matmul as gpu};
use velatura_kernels::elementwise as kernel;
use velatura_kernels::gemm::{Epilogue, PackedMatrix, Precision, matmul_packed, weight_gradient};

use crate::Tensor;

impl Tensor {
    /// A `[M, K]` · B `[N, K]` transposed: `[M, N]`.
    ///
    /// # Panics
    /// When the shapes are others.
    pub fn times_transposed(&self, other: &Tensor, precision: Precision) -> Tensor {
        let ([m, k], [n, other_k]) = (self.matrix_shape(), other.matrix_shape());
        assert_eq!(k, other_k, "{:?} · {:?}ᵀ", self.shape(), other.shape());
        let on_gpu = |on: &Gpu| {
            let (a, b) = (self.memory(on), other.memory(on));
            gpu::linear([m, k, n], a, b, None, None, precision)
        };
        Tensor::computed(&[m, n], on_gpu, |out| {
            let packed = PackedMatrix::from_rows(other.as_slice(), n, k, precision);
            matmul_packed(m, self.as_slice(), &packed, out, &Epilogue::default());
        })
    }

    /// A `[K, M]` transposed · B `[K, N]`: `[M, N]`.
    ///
    /// # Panics
    /// When the shapes are others.
    pub fn transposed_times(&self, other: &Tensor, precision: Precision) -> Tensor {
        let ([k, m], [other_k, n]) = (self.matrix_shape(), other.matrix_shape());
        assert_eq!(k, other_k, "{:?}ᵀ · {:?}", self.shape(), other.shape());
        let on_gpu = |on: &Gpu| {
            let (a, b) = (self.memory(on), other.memory(on));
            gpu::linear_weight_gradient([k, n, m], a, b, precision)
        };
        Tensor::computed(&[m, n], on_gpu, |out| {
            weight_gradient((k, m, n), self.as_slice(), other.as_slice(), out, precision);
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

    fn matrix_shape(&self) -> [usize; 2] {
        match *self.shape() {
            [rows, columns] => [rows, columns],
            _ => panic!("expected a matrix, found a tensor of {:?}", self.shape()),
        }
    }
}
