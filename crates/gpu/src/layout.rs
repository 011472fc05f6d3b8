//! Joining, cutting, reordering, and rows of a table.

use crate::device::PLACES;
use crate::{Gpu, Memory};

/// A rectangle of a matrix: its row length and its first column.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// Numbers in a row of the matrix.
    pub width: usize,
    /// The first one that is meant.
    pub start: usize,
}

/// Copies `rows × columns` numbers from some columns of one matrix to some of another.
pub fn copy_columns(
    [rows, columns]: [usize; 2],
    from: &Memory,
    of: Columns,
    to: &mut Memory,
    into: Columns,
) {
    let numbers = [of.width, of.start, into.width, into.start];
    let pointers = [from.all(), to.all()];
    let sizes = [1, rows, columns, PLACES];
    from.gpu().tiles("copy_columns", sizes, &pointers, &numbers);
}

/// Copies `count` numbers from one place to another.
pub fn copy(count: usize, from: &Memory, start: usize, to: &mut Memory, to_start: usize) {
    assert!(
        start + count <= from.len() && to_start + count <= to.len(),
        "copy"
    );
    let pointers = [from.at(start), to.at(to_start)];
    from.gpu()
        .fours("scale", [1, count], &pointers, &[], &[1.0, 0.0]);
}

/// Each of a batch of matrices `[rows, columns]` transposed.
pub fn swap_axes(x: &Memory, rows: usize, columns: usize) -> Memory {
    let out = x.gpu().allocate(x.len());
    let pointers = [x.all(), out.all()];
    x.gpu()
        .each("swap_axes", x.len(), &pointers, &[rows, columns], &[]);
    out
}

/// Each place of x `[B, h, w, C]` four times.
pub fn upsample_nearest2x(x: &Memory, [h, w, c]: [usize; 3]) -> Memory {
    let out = x.gpu().allocate(4 * x.len());
    x.gpu().fours(
        "upsample",
        [out.len() / c, c],
        &[x.all(), out.all()],
        &[h, w],
        &[],
    );
    out
}

/// Its gradient, `[B, h, w, C]`.
pub fn upsample_nearest2x_backward(dy: &Memory, [h, w, c]: [usize; 3]) -> Memory {
    let dx = dy.gpu().allocate(dy.len() / 4);
    dy.gpu().fours(
        "upsample_backward",
        [dx.len() / c, c],
        &[dy.all(), dx.all()],
        &[h, w],
        &[],
    );
    dx
}

/// Rows `ids` of a table `[V, width]`.
pub fn take_rows(table: &Memory, ids: &[u32], width: usize) -> Memory {
    let gpu = table.gpu();
    let known = ids
        .iter()
        .all(|&id| (id as usize + 1) * width <= table.len());
    assert!(known, "a row that the table has not");
    let sizes = [ids.len(), width];
    let (out, ids) = (gpu.allocate(ids.len() * width), gpu.upload_indices(ids));
    let pointers = [table.all(), ids.all(), out.all()];
    gpu.fours("take_rows", sizes, &pointers, &[], &[]);
    out
}

/// The gradient of the table: row v is the sum of those rows of dy whose id is v.
///
/// The order of the sums depends on `ids` alone, so the result is the same every time.
pub fn take_rows_backward(dy: &Memory, ids: &[u32], [rows, width]: [usize; 2]) -> Memory {
    // Rows that one thread adds up: a caption's padding is most of all ids, and one thread would be long at it.
    const PIECE: usize = 128;
    let mut places: Vec<Vec<u32>> = vec![Vec::new(); rows];
    for (place, &id) in ids.iter().enumerate() {
        places[id as usize].push(place as u32);
    }
    let pieces: Vec<&[u32]> = places.iter().flat_map(|list| list.chunks(PIECE)).collect();
    let sums = gather_sums(dy, &pieces, width);
    let mut next = 0;
    let numbers: Vec<Vec<u32>> = places
        .iter()
        .map(|list| {
            let first = next;
            next += list.len().div_ceil(PIECE) as u32;
            (first..next).collect()
        })
        .collect();
    gather_sums(&sums, &numbers, width)
}

/// Row g of the result is the sum of the rows of x named by `groups[g]`.
fn gather_sums(x: &Memory, groups: &[impl AsRef<[u32]>], width: usize) -> Memory {
    let gpu: &Gpu = x.gpu();
    let mut starts = vec![0];
    let mut order = Vec::new();
    for group in groups {
        order.extend_from_slice(group.as_ref());
        starts.push(order.len() as u32);
    }
    let out = gpu.allocate(groups.len() * width);
    let (starts, order) = (gpu.upload_indices(&starts), gpu.upload_indices(&order));
    let pointers = [x.all(), starts.all(), order.all(), out.all()];
    gpu.each("gather_sums", out.len(), &pointers, &[width], &[]);
    out
}
