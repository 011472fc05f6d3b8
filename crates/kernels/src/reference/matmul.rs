//! Matrix products.

use super::Real;
use crate::gemm::Layout;

/// `out[m, n] = op(a)[m, k] · op(b)[k, n]`, added to `out` when `accumulate`.
///
/// A transposed `a` is stored as `[k, m]`, a transposed `b` as `[n, k]`.
#[allow(clippy::too_many_arguments)]
pub fn matmul<R: Real>(
    m: usize,
    n: usize,
    k: usize,
    a: &[R],
    a_layout: Layout,
    b: &[R],
    b_layout: Layout,
    out: &mut [R],
    accumulate: bool,
) {
    assert_eq!((a.len(), b.len(), out.len()), (m * k, k * n, m * n));
    for i in 0..m {
        for j in 0..n {
            let mut sum = R::ZERO;
            for l in 0..k {
                let x = match a_layout {
                    Layout::Normal => a[i * k + l],
                    Layout::Transposed => a[l * m + i],
                };
                let y = match b_layout {
                    Layout::Normal => b[l * n + j],
                    Layout::Transposed => b[j * k + l],
                };
                sum += x * y;
            }
            let to = &mut out[i * n + j];
            *to = if accumulate { *to + sum } else { sum };
        }
    }
}
