//! 3×3 convolutions of stride 1 with a quarter of the multiplications, or less than half of them.
//!
//! Winograd's minimal filtering (Lavin & Gray 2016, arXiv:1509.09308): a tile of `M × M` outputs depends
//! on `N × N` inputs, `N = M + 2`. With three small matrices of constants,
//!
//! ```text
//! y = Aᵀ · [ (G g Gᵀ) ⊙ (Bᵀ d B) ] · A        d: [N, N] inputs, g: [3, 3] weight, y: [M, M] outputs
//! ```
//!
//! where ⊙ multiplies number by number, and over many channels and tiles becomes `N²` matrix products
//! `[tiles, inputs] · [inputs, outputs]`, one for each place ξ of a tile. `G g Gᵀ` is computed once, when
//! the weight is packed. `F(4×4)` multiplies 36 numbers for 16 outputs where the plain sum takes 144;
//! `F(2×2)` takes 16 for 4 instead of 36, needs less memory and loses fewer bits.
//!
//! The adjoint of the same formula gives the weight's gradient: `dg = Gᵀ [ (Bᵀ d B) ⊙ (A dy Aᵀ) ] G`.

mod feedback;
mod forward;
mod gradient_tiles;
mod packed;
mod transform;
mod weight_gradient;

pub(crate) use forward::forward;
pub(crate) use packed::{PackedWinograd, Source};
pub(crate) use weight_gradient::weight_gradient;

/// How many outputs a tile has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tile {
    /// `F(2×2, 3×3)`: 2.25 times fewer multiplications, 1.8 times the memory of the weight.
    F2,
    /// `F(4×4, 3×3)`: 4 times fewer, 4 times the memory.
    F4,
}

impl Tile {
    /// Places of the transformed tile: `N²`.
    pub(crate) fn places(self) -> usize {
        match self {
            Tile::F2 => 16,
            Tile::F4 => 36,
        }
    }
}

/// Numbers by which one place's matrix is moved from where the one before ends: an odd number of cache
/// lines, so that the `N²` streams that a tile is written to do not meet in the same sets of a cache.
const SKEW: usize = 5 * 16;

/// A convolution of stride 1 whose output has a size of its own: what lies outside the picture is zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub batch: usize,
    /// Input rows, columns, channels.
    pub height: usize,
    pub width: usize,
    pub inputs: usize,
    /// Output rows, columns, channels.
    pub out_height: usize,
    pub out_width: usize,
    pub outputs: usize,
    /// Rows and columns of zeros above and on the left of the input (negative: so many are cut off).
    pub top: isize,
    pub left: isize,
}

impl Geometry {
    /// Tiles of `m × m` outputs over all pictures.
    fn tiles(&self, m: usize) -> usize {
        self.batch * self.out_height.div_ceil(m) * self.out_width.div_ceil(m)
    }

    /// Picture, first output row and first output column of a tile.
    fn place(&self, m: usize, tile: usize) -> (usize, usize, usize) {
        let (down, across) = (self.out_height.div_ceil(m), self.out_width.div_ceil(m));
        let (line, column) = (tile / across, tile % across);
        (line / down, line % down * m, column * m)
    }

    /// Where the `N × N` inputs of a tile of `M × M` outputs stand in `x`; at `zeros` outside the picture, and past the
    /// last tile.
    #[inline(always)]
    fn sources<const M: usize, const N: usize>(
        &self,
        tile: usize,
        x: &[f32],
        zeros: &[f32],
    ) -> [[*const f32; N]; N] {
        debug_assert!(zeros.len() >= self.inputs);
        let (picture, row, column) = self.place(M, tile);
        let mut sources = [[zeros.as_ptr(); N]; N];
        if picture >= self.batch {
            return sources;
        }
        for (i, line) in sources.iter_mut().enumerate() {
            let y = (row + i).wrapping_add_signed(-self.top);
            for (j, source) in line.iter_mut().enumerate() {
                let column = (column + j).wrapping_add_signed(-self.left);
                if y < self.height && column < self.width {
                    let pixel = (picture * self.height + y) * self.width + column;
                    *source = x[pixel * self.inputs..][..self.inputs].as_ptr();
                }
            }
        }
        sources
    }

    /// The same of the gradients of a tile's outputs.
    #[inline(always)]
    fn gradient_sources<const M: usize>(
        &self,
        tile: usize,
        dy: &[f32],
        zeros: &[f32],
    ) -> [[*const f32; M]; M] {
        debug_assert!(zeros.len() >= self.outputs);
        let (picture, row, column) = self.place(M, tile);
        let mut sources = [[zeros.as_ptr(); M]; M];
        if picture >= self.batch {
            return sources;
        }
        let (rows, columns) = (self.out_height - row, self.out_width - column);
        for (i, line) in sources.iter_mut().enumerate().take(rows) {
            let line_start = (picture * self.out_height + row + i) * self.out_width + column;
            for (j, source) in line.iter_mut().enumerate().take(columns) {
                *source = dy[(line_start + j) * self.outputs..][..self.outputs].as_ptr();
            }
        }
        sources
    }
}
