//! What runs the kernels: CUDA, or the emulator.

use crate::Result;
use crate::cuda::Cuda;
#[cfg(feature = "emulator")]
use crate::emulator::Emulator;
use crate::matmul::Product;

/// The arguments of every kernel; `kernels/cuda.h` has the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Args {
    pub pointers: [u64; 8],
    pub numbers: [i32; 12],
    pub fractions: [f32; 8],
}

pub(crate) enum Driver {
    Cuda(Cuda),
    #[cfg(feature = "emulator")]
    Emulator(Emulator),
}

/// Calls a method of whichever driver it is.
macro_rules! of {
    ($driver:expr, $inner:ident => $call:expr) => {
        match $driver {
            Driver::Cuda($inner) => $call,
            #[cfg(feature = "emulator")]
            Driver::Emulator($inner) => $call,
        }
    };
}

impl Driver {
    pub fn name(&self) -> String {
        of!(self, driver => driver.name())
    }

    pub fn has_matrix_units(&self) -> bool {
        of!(self, driver => driver.has_matrix_units())
    }

    /// Room for `len` numbers, whose values are unspecified.
    pub fn allocate(&self, len: usize) -> Result<u64> {
        of!(self, driver => driver.allocate(len))
    }

    /// Gives back what [`Driver::allocate`] gave.
    pub fn free(&self, address: u64, len: usize) {
        of!(self, driver => driver.free(address, len))
    }

    /// Copies to the card. `address` is that of as many numbers.
    pub fn upload(&self, values: &[f32], address: u64) -> Result<()> {
        of!(self, driver => driver.upload(values, address))
    }

    /// Copies from the card, when all that was launched before is done.
    pub fn download(&self, address: u64, values: &mut [f32]) -> Result<()> {
        of!(self, driver => driver.download(address, values))
    }

    /// Of `size` = blocks, threads of each, bytes of shared memory beside the kernel's arrays.
    pub fn launch(&self, kernel: &'static str, size: [u32; 3], args: &Args) -> Result<()> {
        of!(self, driver => driver.launch(kernel, size, args))
    }

    pub fn multiply(&self, product: &Product, a: u64, b: u64, c: u64) -> Result<()> {
        of!(self, driver => driver.multiply(product, a, b, c))
    }
}
