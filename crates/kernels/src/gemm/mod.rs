//! Matrix products.

use crate::reference;

/// The number format of packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// bfloat16 weights, products accumulated in f32.
    Bf16,
}

/// How a matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Row by row.
    Normal,
    /// Column by column: the transpose is stored row by row.
    Transposed,
}

/// What is added to a product before it is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One number per column: `[n]`.
    pub bias: Option<&'a [f32]>,
    /// One number per output: `[m, n]`.
    pub residual: Option<&'a [f32]>,
}

/// The right-hand matrix of a product, packed once.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    k: usize,
    n: usize,
    precision: Precision,
    columns: Vec<f32>,
}

impl PackedMatrix {
    /// Packs `weight: [n, k]`, as `nn.Linear` stores it.
    pub fn from_rows(weight: &[f32], n: usize, k: usize, precision: Precision) -> Self {
        assert_eq!(weight.len(), n * k);
        let mut columns = vec![0.0; n * k];
        for i in 0..n {
            for j in 0..k {
                columns[j * n + i] = weight[i * k + j];
            }
        }
        Self::from_columns(&columns, k, n, precision)
    }

    /// Packs `b: [k, n]`.
    pub fn from_columns(b: &[f32], k: usize, n: usize, precision: Precision) -> Self {
        assert_eq!(b.len(), n * k);
        let round = |&x: &f32| match precision {
            Precision::F32 => x,
            Precision::Bf16 => half::bf16::from_f32(x).to_f32(),
        };
        PackedMatrix {
            k,
            n,
            precision,
            columns: b.iter().map(round).collect(),
        }
    }

    /// Rows: the length of the sums.
    pub fn k(&self) -> usize {
        self.k
    }
    /// Columns: the outputs.
    pub fn n(&self) -> usize {
        self.n
    }
    /// The number format.
    pub fn precision(&self) -> Precision {
        self.precision
    }
    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        self.columns.len() * 4
    }
}

/// `out[m, n] = a[m, k] · b + bias + residual`.
pub fn matmul_packed(m: usize, a: &[f32], b: &PackedMatrix, out: &mut [f32], epilogue: &Epilogue) {
    matmul(
        m,
        b.n,
        b.k,
        a,
        Layout::Normal,
        &b.columns,
        Layout::Normal,
        out,
        false,
    );
    for (i, y) in out.iter_mut().enumerate() {
        *y += epilogue.bias.map_or(0.0, |x| x[i % b.n]) + epilogue.residual.map_or(0.0, |x| x[i]);
    }
}

/// `out[m, n] = op(a)[m, k] · op(b)[k, n]`, added to `out` when `accumulate`.
#[allow(clippy::too_many_arguments)]
pub fn matmul(
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    a_layout: Layout,
    b: &[f32],
    b_layout: Layout,
    out: &mut [f32],
    accumulate: bool,
) {
    reference::matmul::matmul(m, n, k, a, a_layout, b, b_layout, out, accumulate);
}
