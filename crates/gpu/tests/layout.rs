//! Copies in another order, rows of tables, and memory itself.

mod common;

use common::*;
use velatura_gpu::layout::{self, Columns};
use velatura_gpu::{Error, Gpu};
use velatura_kernels::resample;

#[test]
fn numbers_come_back_from_the_card_as_they_went() {
    let gpu = Gpu::for_tests();
    let x = random(300, 1);
    assert_same("upload", &gpu.upload(&x), &x);
    assert_same("duplicate", &gpu.upload(&x).duplicate(), &x);
    assert_same("nothing", &gpu.upload(&[]).duplicate(), &[]);
    assert_same("filled", &gpu.filled(257, -1.5), &[-1.5; 257]);
}

#[test]
fn memory_that_was_dropped_is_used_again_and_nothing_else() {
    let gpu = Gpu::for_tests();
    let (kept, dropped) = (gpu.filled(100, 1.0), gpu.filled(100, 2.0));
    drop(dropped);
    let fresh = [gpu.filled(100, 3.0), gpu.filled(100, 4.0)];
    gpu.release_idle();
    assert_same("kept", &kept, &[1.0; 100]);
    assert_same("first", &fresh[0], &[3.0; 100]);
    assert_same("second", &fresh[1], &[4.0; 100]);
}

#[test]
fn what_a_card_cannot_do_is_an_error_where_it_is_caught() {
    let result = Gpu::catch(|| std::panic::panic_any(Error::NoGpu("none".into())));
    assert!(matches!(result, Err(Error::NoGpu(_))));
    assert!(matches!(Gpu::catch(|| 3), Ok(3)));
}

#[test]
fn matrices_are_joined_and_cut_by_columns() {
    joined_and_cut(5, 33);
    // All multiples of four, and columns for more than one tile; then starts that are none.
    joined_and_cut(20, 72);
    joined_and_cut(18, 70);
}

fn joined_and_cut(left: usize, right: usize) {
    let gpu = Gpu::for_tests();
    let rows = 83;
    let width = left + right;
    let (a, b) = (random(rows * left, 1), random(rows * right, 2));
    let whole = |width, start| Columns { width, start };

    let mut joined = gpu.allocate(rows * width);
    let from = gpu.upload(&a);
    layout::copy_columns(
        [rows, left],
        &from,
        whole(left, 0),
        &mut joined,
        whole(width, 0),
    );
    let from = gpu.upload(&b);
    layout::copy_columns(
        [rows, right],
        &from,
        whole(right, 0),
        &mut joined,
        whole(width, left),
    );
    let rows_of_both = a.chunks(left).zip(b.chunks(right));
    let want: Vec<f32> = rows_of_both.flat_map(|(a, b)| [a, b].concat()).collect();
    assert_same("joined", &joined, &want);

    // The gradient of a cut: the rest stays as it was.
    let mut cut = gpu.filled(rows * 9, 0.0);
    layout::copy_columns([rows, 7], &joined, whole(width, 4), &mut cut, whole(9, 1));
    let row = |row: &[f32]| [&[0.0], &row[4..11], &[0.0]].concat();
    let want: Vec<f32> = want.chunks(width).flat_map(row).collect();
    assert_same("cut", &cut, &want);
}

#[test]
fn a_piece_is_copied_to_its_place_and_nowhere_else() {
    let gpu = Gpu::for_tests();
    let x = random(400, 1);
    for (start, to_start) in [(100, 3), (99, 3), (100, 4)] {
        let mut to = gpu.filled(310, 7.0);
        layout::copy(300, &gpu.upload(&x), start, &mut to, to_start);
        let mut want = [7.0; 310];
        want[to_start..][..300].copy_from_slice(&x[start..][..300]);
        assert_same("a piece", &to, &want);
    }
}

#[test]
fn swapped_axes_are_those_of_a_plain_loop() {
    let gpu = Gpu::for_tests();
    for (batch, rows, columns) in [(1, 1, 1), (1, 33, 5), (3, 7, 19), (2, 1, 40)] {
        let x = random(batch * rows * columns, 1);
        let mut want = zeros(x.len());
        for (x, want) in x
            .chunks(rows * columns)
            .zip(want.chunks_mut(rows * columns))
        {
            for (i, &x) in x.iter().enumerate() {
                want[i % columns * rows + i / columns] = x;
            }
        }
        let on_card = gpu.upload(&x);
        let swapped = layout::swap_axes(&on_card, rows, columns);
        assert_same("swapped", &swapped, &want);
        assert_same(
            "swapped back",
            &layout::swap_axes(&swapped, columns, rows),
            &x,
        );
    }
}

#[test]
fn enlarging_twice_and_its_gradient_are_those_of_the_processor() {
    let gpu = Gpu::for_tests();
    for (batch, h, w, c) in [(1, 1, 1, 1), (2, 3, 5, 33), (3, 4, 1, 2), (2, 3, 5, 36)] {
        let (x, dy) = (
            random(batch * h * w * c, 1),
            random(4 * batch * h * w * c, 2),
        );
        let mut want = zeros(dy.len());
        resample::upsample_nearest2x(batch, h, w, c, &x, &mut want);
        let got = layout::upsample_nearest2x(&gpu.upload(&x), [h, w, c]);
        assert_same("enlarged", &got, &want);
        let mut want = zeros(x.len());
        resample::upsample_nearest2x_backward(batch, h, w, c, &dy, &mut want);
        let got = layout::upsample_nearest2x_backward(&gpu.upload(&dy), [h, w, c]);
        assert_close("its gradient", &got, &want);
    }
}

#[test]
fn rows_are_taken_by_their_numbers() {
    let gpu = Gpu::for_tests();
    for width in [33, 36] {
        let table = random(11 * width, 1);
        let ids = [10, 0, 3, 3, 7, 10];
        let of = |&id: &u32| &table[id as usize * width..][..width];
        let want: Vec<f32> = ids.iter().flat_map(of).copied().collect();
        let got = layout::take_rows(&gpu.upload(&table), &ids, width);
        assert_same("rows", &got, &want);
    }
}

#[test]
#[should_panic(expected = "a row that the table has not")]
fn a_row_beyond_the_table_is_refused() {
    layout::take_rows(&Gpu::for_tests().filled(12, 0.0), &[3, 4], 3);
}

#[test]
fn a_tables_gradient_sums_the_rows_of_equal_numbers() {
    let gpu = Gpu::for_tests();
    let (rows, width) = (6, 35);
    // Row 4 is that of a caption's padding: 300 places, in three pieces. Rows 1 and 5 are of no place, row 0 of exactly
    // one piece.
    let mut ids = vec![4; 300];
    ids.extend([0; 128]);
    ids.extend([2, 3, 2]);
    let count = ids.len();
    // In no order, as 7 and the count have no common factor.
    let ids: Vec<u32> = (0..count).map(|i| ids[i * 7 % count]).collect();
    let dy = random(count * width, 1);
    let mut want = zeros(rows * width);
    for (dy, &id) in dy.chunks(width).zip(&ids) {
        for (sum, x) in want[id as usize * width..].iter_mut().zip(dy) {
            *sum += x;
        }
    }
    let on_card = gpu.upload(&dy);
    let got = layout::take_rows_backward(&on_card, &ids, [rows, width]);
    assert_close("the table's gradient", &got, &want);
    let got = layout::take_rows_backward(&gpu.upload(&[]), &[], [rows, width]);
    assert_same("that of no rows", &got, &zeros(rows * width));
}
