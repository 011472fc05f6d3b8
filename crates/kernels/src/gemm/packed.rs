//! Right-hand matrices that are packed once and multiplied often.

use super::Precision;
use super::operands::Right;
use super::panels::{PackRow, PackSource, Panels, pack_bf16, pack_f32, pack_int8};
use crate::isa::{self, Isa, Kernel, Simd, amx};
use crate::memory::Memory;
use crate::scratch::Buffer;

/// The right-hand matrix `[k, n]` of a product, packed once into the layout that the micro-kernel
/// reads.
///
/// It belongs to the instruction set that was [active](isa::active) when it was packed, and products
/// with it run on that one.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    k: usize,
    precision: Precision,
    isa: Isa,
    panels: Panels,
    buffer: Buffer,
    /// Whether half of each panel's columns are gates of the others.
    gated: bool,
    /// Of 8-bit weights: a scale for each column, then 128 times its sum, as the bits of 32-bit integers.
    rescale: Vec<f32>,
}

/// The panels of `n` columns for `isa`.
pub(crate) fn panels(isa: Isa, n: usize, precision: Precision) -> Panels {
    struct Cut(usize);
    impl Kernel for Cut {
        type Output = Panels;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> Panels {
            Panels::new(self.0, S::LANES, S::TILE_VECTORS)
        }
    }
    match precision {
        Precision::Bf16 if isa.has_tiles() => Panels::new(n, amx::TILE, amx::BLOCK / amx::TILE),
        _ => isa.run(Cut(n)),
    }
}

/// Values that stand beside as many gates in one panel, where `n` of them come in whole panels.
fn gate_width(n: usize, precision: Precision) -> Option<usize> {
    let isa = isa::active();
    if precision == Precision::Bf16 && isa.has_tiles() {
        return None;
    }
    let panels = panels(isa, 2 * n, precision);
    let first = panels.get(0);
    let alike = first.width * panels.count == panels.padded() && panels.padded() == 2 * n;
    (alike && first.vectors.is_multiple_of(2)).then_some(first.width / 2)
}

/// Rows of `k` numbers, the first half of all and the second half in turns of `half`.
fn interleave(rows: &[f32], k: usize, half: usize) -> Vec<f32> {
    let (values, gates) = rows.split_at(rows.len() / 2);
    let turns = values.chunks(half * k).zip(gates.chunks(half * k));
    turns.flat_map(|(v, g)| [v, g]).flatten().copied().collect()
}

/// Numbers past the end of packed bf16 weights: whole steps of the matrix unit may read so far.
const PAST_END: usize = amx::DEPTH / 2 * amx::BLOCK;

/// Numbers of 32 bits that `k` rows take.
fn packed_len(k: usize, panels: &Panels, precision: Precision) -> usize {
    match precision {
        Precision::F32 => k * panels.padded(),
        Precision::Bf16 => k.div_ceil(2) * panels.padded() + PAST_END,
        Precision::Int8 => k.div_ceil(4) * panels.padded(),
    }
}

/// Numbers beside them.
fn rescale_len(panels: &Panels, precision: Precision) -> usize {
    match precision {
        Precision::Int8 => 2 * panels.padded(),
        Precision::F32 | Precision::Bf16 => 0,
    }
}

impl PackedMatrix {
    /// Packs `weight: [n, k]`, as `nn.Linear` stores it.
    ///
    /// # Panics
    /// When `weight` has another length.
    pub fn from_rows(weight: &[f32], n: usize, k: usize, precision: Precision) -> Self {
        assert_eq!(weight.len(), n * k, "a weight of shape [{n}, {k}]");
        let visit = |i| PackRow { row: i, offset: i };
        Self::pack(
            n,
            precision,
            &PackSource {
                source: weight,
                stride: k,
                k,
                visit,
            },
        )
    }

    /// Packs `weight: [2n, k]`, whose first half gives values and whose second half gives their gates, so that
    /// [`matmul_geglu`](super::matmul_geglu) finds both in one panel. `None` where they cannot be paired so: when n is
    /// no multiple of half a panel, or on the matrix unit.
    ///
    /// # Panics
    /// When `weight` has another length.
    pub fn gated(weight: &[f32], n: usize, k: usize, precision: Precision) -> Option<Self> {
        let half = gate_width(n, precision)?;
        assert_eq!(weight.len(), 2 * n * k, "a weight of shape [2·{n}, {k}]");
        let rows = interleave(weight, k, half);
        Some(PackedMatrix {
            gated: true,
            ..Self::from_rows(&rows, 2 * n, k, precision)
        })
    }

    /// A bias `[2n]` in the order of [`PackedMatrix::gated`].
    ///
    /// # Panics
    /// When this matrix is not of that kind, or the bias of another length.
    pub fn gated_bias(&self, bias: &[f32]) -> Vec<f32> {
        assert_eq!(bias.len(), self.n(), "a bias of shape [{}]", self.n());
        let half = gate_width(self.n() / 2, self.precision);
        interleave(bias, 1, half.expect("a matrix of values and gates"))
    }

    /// Whether it was packed by [`PackedMatrix::gated`].
    pub fn is_gated(&self) -> bool {
        self.gated
    }

    /// Packs `b: [k, n]`.
    ///
    /// # Panics
    /// When `b` has another length.
    pub fn from_columns(b: &[f32], k: usize, n: usize, precision: Precision) -> Self {
        assert_eq!(b.len(), n * k, "a matrix of shape [{k}, {n}]");
        let visit = |i| PackRow {
            row: i,
            offset: i * n,
        };
        Self::pack(
            n,
            precision,
            &PackSource {
                source: b,
                stride: 1,
                k,
                visit,
            },
        )
    }

    pub(crate) fn pack<F: Fn(usize) -> PackRow + Sync>(
        n: usize,
        precision: Precision,
        from: &PackSource<F>,
    ) -> Self {
        let isa = isa::active();
        let (k, panels) = (from.k, panels(isa, n, precision));
        let len = packed_len(k, &panels, precision);
        let mut rescale = vec![0.0; rescale_len(&panels, precision)];
        let buffer = match precision {
            Precision::F32 => {
                let mut buffer = Buffer::unspecified(len);
                pack_f32(&panels, from, &mut buffer);
                buffer
            }
            Precision::Bf16 => {
                let mut buffer = Buffer::unspecified(len);
                let past_end = 2 * (len - PAST_END);
                let (packed, past_end) = buffer.as_u16_mut().split_at_mut(past_end);
                pack_bf16(&panels, from, packed);
                past_end.fill(0);
                buffer
            }
            Precision::Int8 => {
                let mut buffer = Buffer::zeroed(len);
                pack_int8(&panels, from, buffer.as_u8_mut(), &mut rescale);
                buffer
            }
        };
        PackedMatrix {
            k,
            precision,
            isa,
            panels,
            buffer,
            gated: false,
            rescale,
        }
    }

    /// What [`PackedMatrix::from_parts`] makes it from again: the numbers, and of 8-bit ones the scales.
    pub fn parts(&self) -> (&[f32], &[f32]) {
        (&self.buffer, &self.rescale)
    }

    /// The matrix `[k, n]` (`gated`: of as many values as gates) from the parts of one that was packed for the same
    /// instruction set. `None` where they have not the lengths that such a matrix has.
    pub fn from_parts(
        (k, n): (usize, usize),
        precision: Precision,
        gated: bool,
        numbers: Memory,
        rescale: Vec<f32>,
    ) -> Option<Self> {
        let isa = isa::active();
        let panels = panels(isa, n, precision);
        let fits = numbers.len() == packed_len(k, &panels, precision)
            && rescale.len() == rescale_len(&panels, precision)
            && (!gated || gate_width(n / 2, precision).is_some());
        fits.then(|| PackedMatrix {
            k,
            precision,
            isa,
            panels,
            buffer: numbers.into(),
            gated,
            rescale,
        })
    }

    /// Rows: the length of the sums.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns: the outputs.
    pub fn n(&self) -> usize {
        self.panels.n
    }

    /// The number format.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        (self.buffer.len() + self.rescale.len()) * 4
    }

    /// How products with it are computed, in words.
    pub(crate) fn algorithm(&self) -> String {
        self.precision.algorithm(self.isa)
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    pub(crate) fn panels(&self) -> Panels {
        self.panels
    }

    pub(crate) fn right(&self) -> Right<'_> {
        match self.precision {
            Precision::F32 => Right::PackedF32(&self.buffer),
            Precision::Bf16 => Right::PackedBf16(self.buffer.as_u32()),
            Precision::Int8 => Right::PackedInt8 {
                quads: self.buffer.as_u32(),
                rescale: &self.rescale,
            },
        }
    }
}
