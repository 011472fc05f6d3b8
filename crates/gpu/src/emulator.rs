//! The kernels on the processor: `emulator/emulator.c`, and plain loops for the products.

use std::ffi::{CString, c_char, c_int};
use std::sync::{Mutex, PoisonError};

use crate::driver::Args;
use crate::matmul::Product;
use crate::{Error, Result};

unsafe extern "C" {
    fn velatura_emulate(name: *const c_char, blocks: u32, threads: u32, args: *const Args)
    -> c_int;
}

/// The emulator keeps what it runs in static variables.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Numbers on both sides of an array that are no numbers, so that reading beside it shows in results, and writing
/// there when it is given back.
const MARGIN: usize = 64;
const MARGIN_BYTES: u64 = (MARGIN * size_of::<f32>()) as u64;

pub(crate) struct Emulator;

impl Emulator {
    pub fn name(&self) -> String {
        "an emulated GPU".into()
    }

    pub fn has_matrix_units(&self) -> bool {
        true
    }

    pub fn allocate(&self, len: usize) -> Result<u64> {
        // Nobody may count on zeros.
        let memory = vec![f32::NAN; len + 2 * MARGIN].into_boxed_slice();
        Ok(Box::into_raw(memory).cast::<f32>() as u64 + MARGIN_BYTES)
    }

    pub fn free(&self, address: u64, len: usize) {
        let start = (address - MARGIN_BYTES) as *mut f32;
        let memory = std::ptr::slice_from_raw_parts_mut(start, len + 2 * MARGIN);
        // SAFETY: it is what `allocate` leaked, of this length, and nobody has it any more.
        let memory = unsafe { Box::from_raw(memory) };
        let mut margins = memory[..MARGIN].iter().chain(&memory[MARGIN + len..]);
        let intact = margins.all(|x| x.is_nan()) || std::thread::panicking();
        assert!(
            intact,
            "something was written beside an array of {len} numbers"
        );
    }

    pub fn upload(&self, values: &[f32], address: u64) -> Result<()> {
        // SAFETY: the caller's address is that of as many numbers.
        unsafe { std::slice::from_raw_parts_mut(address as *mut f32, values.len()) }
            .copy_from_slice(values);
        Ok(())
    }

    pub fn download(&self, address: u64, values: &mut [f32]) -> Result<()> {
        // SAFETY: the caller's address is that of as many numbers.
        values.copy_from_slice(unsafe {
            std::slice::from_raw_parts(address as *const f32, values.len())
        });
        Ok(())
    }

    pub fn launch(
        &self,
        kernel: &'static str,
        [blocks, threads, _shared]: [u32; 3],
        args: &Args,
    ) -> Result<()> {
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |why: &str| Error::Failed {
            what: kernel.into(),
            why: why.into(),
        };
        let name = CString::new(kernel).map_err(|_| failed("no such name"))?;
        // SAFETY: the kernels read and write within what the callers in this crate hand them.
        match unsafe { velatura_emulate(name.as_ptr(), blocks, threads, args) } {
            0 => Ok(()),
            _ => Err(failed("there is no such kernel")),
        }
    }

    pub fn multiply(&self, product: &Product, a: u64, b: u64, c: u64) -> Result<()> {
        let &Product {
            sizes: [m, n, k],
            transposed,
            widths,
            batch,
            strides,
            alpha,
            beta,
            ..
        } = product;
        let c = c as *mut f32;
        for i in 0..batch {
            let start =
                |address: u64, stride: usize| (address as *const f32).wrapping_add(i * stride);
            let rows = gathered(start(a, strides[0]), widths[0], [m, k], transposed[0]);
            let columns = gathered(start(b, strides[1]), widths[1], [n, k], !transposed[1]);
            for (at, row) in rows.chunks_exact(k.max(1)).enumerate() {
                for (column, values) in columns.chunks_exact(k.max(1)).enumerate() {
                    let place = i * strides[2] + at * widths[2] + column;
                    // SAFETY: as for `launch`.
                    let to = unsafe { &mut *c.add(place) };
                    *to = alpha * dot(row, values) + if beta == 0.0 { 0.0 } else { beta * *to };
                }
            }
        }
        Ok(())
    }
}

/// `rows` of `k` numbers each, one after the other, of a matrix that has them in its rows or else in its columns.
fn gathered(from: *const f32, width: usize, [rows, k]: [usize; 2], in_columns: bool) -> Vec<f32> {
    let place = |row, j| {
        if in_columns {
            j * width + row
        } else {
            row * width + j
        }
    };
    let all = (0..rows).flat_map(|row| (0..k).map(move |j| (row, j)));
    // SAFETY: as for `launch`.
    all.map(|(row, j)| unsafe { *from.add(place(row, j)) })
        .collect()
}

/// Summed eight at a time.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}
