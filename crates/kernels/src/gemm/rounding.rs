//! What a weight loses as 8-bit integers.

use crate::pool;

/// Rows that a task takes.
const ROWS: usize = 64;

/// ‖W − W₈‖ / ‖W‖ of `weight: [n, k]`, where a row of W₈ is whole multiples of the 127th of its largest number, as
/// [`Precision::Int8`](super::Precision::Int8) packs it. Numbers spread normally lose 0.007 to 0.009; a row with one
/// that is far larger than the others loses more.
///
/// # Panics
/// When `weight` has no whole rows.
pub fn int8_error(weight: &[f32], k: usize) -> f64 {
    assert!(k > 0 && weight.len().is_multiple_of(k), "rows of {k}");
    let rows = weight.len() / k;
    let tasks = rows.div_ceil(ROWS);
    let mut sums = vec![(0.0, 0.0); tasks];
    pool::parallel_chunks_mut(&mut sums, 1, |task, sums| {
        let rows = weight[task * ROWS * k..].chunks_exact(k).take(ROWS);
        sums[0] = rows
            .map(error_of_row)
            .fold((0.0, 0.0), |(e, w), (error, squares)| {
                (e + f64::from(error), w + f64::from(squares))
            });
    });
    let (error, squares) = sums.iter().fold((0.0, 0.0), |(e, w), (error, squares)| {
        (e + error, w + squares)
    });
    if squares > 0.0 {
        (error / squares).sqrt()
    } else {
        0.0
    }
}

/// The squares of what rounding takes from a row, and of the row, added up.
fn error_of_row(row: &[f32]) -> (f32, f32) {
    // Added and taken away again, it rounds to an integer.
    const INTEGERS: f32 = 12_582_912.0; // 1.5·2²³
    let largest = row.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    if largest == 0.0 {
        return (0.0, 0.0);
    }
    let (scale, step) = (127.0 / largest, largest / 127.0);
    row.iter().fold((0.0, 0.0), |(error, squares), &x| {
        let rounded = ((x * scale + INTEGERS) - INTEGERS) * step;
        (error + (x - rounded) * (x - rounded), squares + x * x)
    })
}
