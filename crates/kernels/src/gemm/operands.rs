//! What a product multiplies: matrices as they lie, patches of pictures, packed panels.

use super::panels::{Panel, Panels};
use super::tile::{self, LeftView, Rescale};
use crate::conv::patches::Patches;
use crate::isa::Simd;

/// The left-hand matrix `[m, k]`.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// `[m, k]` row by row.
    Rows(&'a [f32]),
    /// Stored as `[k, m]`.
    Columns(&'a [f32]),
    /// The patches of a picture, one per row.
    Patches(&'a Patches<'a>),
}

/// The right-hand matrix `[k, n]`.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// Packed ahead in f32: `[k][width]` per panel.
    PackedF32(&'a [f32]),
    /// Packed ahead in bf16 pairs: `[k / 2][width]` per panel.
    PackedBf16(&'a [u32]),
    /// Packed ahead in fours of 8-bit integers, `[k / 4][width]` per panel, with the columns' scales and corrections.
    PackedInt8 {
        quads: &'a [u32],
        rescale: &'a [f32],
    },
    /// `[k, n]` row by row.
    Rows(&'a [f32]),
    /// Stored as `[n, k]`.
    Columns(&'a [f32]),
    /// The patches of a picture, one per row.
    Patches(&'a Patches<'a>),
}

/// A range of rows and a range of columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub row: usize,
    pub rows: usize,
    pub column: usize,
    pub columns: usize,
}

/// Copies `len` numbers.
///
/// # Safety
/// Both pointers are valid for `len` numbers, and the two do not overlap.
#[inline(always)]
pub(crate) unsafe fn copy<S: Simd>(simd: S, from: *const f32, to: *mut f32, len: usize) {
    let mut i = 0;
    // SAFETY: `i + LANES <= len`, then `len - i < LANES` numbers are left.
    unsafe {
        while i + S::LANES <= len {
            simd.store_raw(to.add(i), simd.load_raw(from.add(i)));
            i += S::LANES;
        }
        if i < len {
            simd.store_partial_raw(
                to.add(i),
                simd.load_partial_raw(from.add(i), len - i),
                len - i,
            );
        }
    }
}

impl Left<'_> {
    /// Scratch numbers that [`Left::view`] needs for `rows × depth`.
    pub fn scratch(&self, rows: usize, depth: usize, format: usize) -> usize {
        match self {
            // Whole vectors of bytes may be written past a row's end, and a scale for each row.
            _ if format == tile::INT8 => rows * (depth.div_ceil(16) * 4 + 1),
            _ if format == tile::DOT => rows * depth.div_ceil(2) + depth + 16,
            Left::Rows(_) => 0,
            _ => rows * depth,
        }
    }

    /// The numbers of `window`, copied into `scratch` where they do not lie well. With [`tile::DOT`] as bf16 pairs, a
    /// missing last partner being zero; with [`tile::INT8`] as fours of bytes, and behind all rows what one means in
    /// each.
    #[inline(always)]
    pub fn view<S: Simd>(
        &self,
        simd: S,
        m: usize,
        k: usize,
        window: Window,
        format: usize,
        scratch: &mut [f32],
    ) -> LeftView {
        let Window {
            row,
            rows,
            column,
            columns,
        } = window;
        assert!(row + rows <= m && column + columns <= k);
        assert!(scratch.len() >= self.scratch(rows, columns, format));
        match format {
            tile::DOT => return self.view_pairs(simd, k, window, scratch),
            tile::INT8 => return self.view_bytes(simd, k, window, scratch),
            _ => {}
        }
        let to = scratch.as_mut_ptr();
        if let Left::Rows(a) | Left::Columns(a) = *self {
            debug_assert!(a.len() == m * k);
        }
        match *self {
            Left::Rows(a) => LeftView {
                start: a[row * k + column..].as_ptr(),
                row_stride: k,
                depth_stride: 1,
            },
            // All columns: the window is one contiguous piece already.
            Left::Columns(a) if rows == m => LeftView {
                start: a[column * m..].as_ptr(),
                row_stride: 1,
                depth_stride: m,
            },
            // Elsewhere a step of the sum would touch another page each, so the window is gathered.
            Left::Columns(a) => {
                for i in 0..columns {
                    let from = &a[(column + i) * m + row..][..rows];
                    // SAFETY: `from` has `rows` numbers; the scratch has `rows · columns`.
                    unsafe { copy(simd, from.as_ptr(), to.add(i * rows), rows) }
                }
                LeftView {
                    start: to,
                    row_stride: 1,
                    depth_stride: rows,
                }
            }
            Left::Patches(patches) => {
                // SAFETY: the scratch has `rows · columns` numbers.
                unsafe { patches.copy(simd, window, to, columns) }
                LeftView {
                    start: to,
                    row_stride: columns,
                    depth_stride: 1,
                }
            }
        }
    }

    #[inline(always)]
    fn view_pairs<S: Simd>(
        &self,
        simd: S,
        k: usize,
        window: Window,
        scratch: &mut [f32],
    ) -> LeftView {
        let Window {
            row,
            rows,
            column,
            columns,
        } = window;
        let pairs = columns.div_ceil(2);
        let (packed, line) = scratch.split_at_mut(rows * pairs);
        for i in 0..rows {
            let from = match *self {
                Left::Rows(a) => &a[(row + i) * k + column..][..columns],
                Left::Patches(patches) => {
                    let window = Window {
                        row: row + i,
                        rows: 1,
                        ..window
                    };
                    debug_assert!(line.len() >= columns);
                    // SAFETY: the line has at least `columns` numbers.
                    unsafe { patches.copy(simd, window, line.as_mut_ptr(), columns) }
                    &line[..columns]
                }
                Left::Columns(_) => unreachable!("bf16 products take their left side by rows"),
            };
            let to = packed[i * pairs..][..pairs].as_mut_ptr().cast::<u16>();
            let whole = columns / S::LANES * S::LANES;
            // SAFETY: `to` has room for `2 · pairs >= columns` numbers.
            unsafe {
                for j in (0..whole).step_by(S::LANES) {
                    simd.store_bf16_raw(to.add(j), simd.load(&from[j..]));
                }
                if whole < columns {
                    let mut rest = [0; 16];
                    simd.store_bf16_raw(rest.as_mut_ptr(), simd.load_partial(&from[whole..]));
                    let count = 2 * pairs - whole;
                    debug_assert!(count <= S::LANES && S::LANES <= rest.len());
                    std::ptr::copy_nonoverlapping(rest.as_ptr(), to.add(whole), count);
                }
            }
        }
        LeftView {
            start: packed.as_ptr(),
            row_stride: pairs,
            depth_stride: 1,
        }
    }
}

impl Left<'_> {
    /// Rows as bytes: a row's largest number becomes ±127, and 128 is added.
    #[inline(always)]
    fn view_bytes<S: Simd>(
        &self,
        simd: S,
        k: usize,
        window: Window,
        scratch: &mut [f32],
    ) -> LeftView {
        let Left::Rows(a) = *self else {
            unreachable!("products of 8-bit integers take their left side by rows");
        };
        let Window {
            row,
            rows,
            column,
            columns,
        } = window;
        let quads = columns.div_ceil(16) * 4;
        let (packed, scales) = scratch.split_at_mut(rows * quads);
        for i in 0..rows {
            let from = &a[(row + i) * k + column..][..columns];
            // A number that is none reaches the scale, and with it the results.
            let (mut largest, mut none) = (simd.zero(), simd.zero());
            for at in (0..columns).step_by(S::LANES) {
                let x = simd.load_partial(&from[at..columns.min(at + S::LANES)]);
                largest = simd.max(simd.abs(x), largest);
                none = simd.mul_add(x, simd.zero(), none);
            }
            let largest = simd.reduce_max(largest) + simd.reduce_add(none);
            scales[i] = largest / 127.0;
            let scale = simd.splat(if largest > 0.0 { 127.0 / largest } else { 0.0 });
            let to = packed[i * quads..][..quads].as_mut_ptr().cast::<u8>();
            for at in (0..columns).step_by(S::LANES) {
                let x = simd.load_partial(&from[at..columns.min(at + S::LANES)]);
                // SAFETY: a row has whole vectors.
                unsafe { simd.store_bytes_raw(to.add(at), simd.mul(x, scale)) }
            }
        }
        LeftView {
            start: packed.as_ptr(),
            row_stride: quads,
            depth_stride: 1,
        }
    }
}

impl Right<'_> {
    /// Whether panels are packed ahead.
    pub fn is_packed(&self) -> bool {
        matches!(
            self,
            Right::PackedF32(_) | Right::PackedBf16(_) | Right::PackedInt8 { .. }
        )
    }

    /// What the sums of a panel's integers mean, `rows` pointing to the scales of the left-hand rows.
    #[inline(always)]
    pub fn rescale(&self, panels: &Panels, panel: Panel, rows: *const f32) -> Rescale {
        match self {
            Right::PackedInt8 { rescale, .. } => Rescale {
                rows,
                columns: rescale[panel.start..][..panel.width].as_ptr(),
                corrections: rescale[panels.padded() + panel.start..][..panel.width].as_ptr(),
            },
            _ => Rescale::NONE,
        }
    }

    /// The tile's number format.
    pub fn format(&self, dot: bool) -> usize {
        match (self, dot) {
            (Right::PackedBf16(_), true) => tile::DOT,
            (Right::PackedBf16(_), false) => tile::WIDENED,
            (Right::PackedInt8 { .. }, _) => tile::INT8,
            _ => tile::F32,
        }
    }

    /// Rows `row..row + rows` of a panel as the tile wants them, packed into `scratch`
    /// (`rows · width` numbers) unless they were packed ahead.
    #[inline(always)]
    pub fn panel<S: Simd>(
        &self,
        simd: S,
        panels: &Panels,
        k: usize,
        panel: Panel,
        (row, rows): (usize, usize),
        scratch: &mut [f32],
    ) -> *const f32 {
        let Panel {
            start,
            width,
            columns,
            ..
        } = panel;
        match *self {
            Right::PackedF32(b) => return b[start * k + row * width..][..rows * width].as_ptr(),
            Right::PackedBf16(b) => {
                debug_assert!(row.is_multiple_of(2));
                let b = &b[start * k.div_ceil(2) + row / 2 * width..];
                return b[..rows.div_ceil(2) * width].as_ptr().cast();
            }
            Right::PackedInt8 { quads, .. } => {
                debug_assert!(row.is_multiple_of(4));
                let quads = &quads[start * k.div_ceil(4) + row / 4 * width..];
                return quads[..rows.div_ceil(4) * width].as_ptr().cast();
            }
            _ => {}
        }
        let scratch = &mut scratch[..rows * width];
        if rows == 0 {
            return scratch.as_ptr();
        }
        match *self {
            Right::Rows(b) => {
                for (i, to) in scratch.chunks_exact_mut(width).enumerate() {
                    let from = &b[(row + i) * panels.n + start..][..columns];
                    // SAFETY: `from` has `columns <= width` numbers, and `to` has `width`.
                    unsafe { copy(simd, from.as_ptr(), to.as_mut_ptr(), columns) }
                }
            }
            Right::Columns(b) => {
                for column in 0..columns {
                    let from = &b[(start + column) * k + row..][..rows];
                    for (to, &x) in scratch[column..].iter_mut().step_by(width).zip(from) {
                        *to = x;
                    }
                }
            }
            Right::Patches(patches) => {
                let window = Window {
                    row,
                    rows,
                    column: start,
                    columns,
                };
                // SAFETY: `columns <= width`, and the scratch has `rows · width` numbers.
                unsafe { patches.copy(simd, window, scratch.as_mut_ptr(), width) }
            }
            Right::PackedF32(_) | Right::PackedBf16(_) | Right::PackedInt8 { .. } => {}
        }
        if columns < width {
            scratch
                .chunks_exact_mut(width)
                .for_each(|line| line[columns..].fill(0.0));
        }
        scratch.as_ptr()
    }
}
