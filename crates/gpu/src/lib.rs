//! The graphics card's side of the kernels: arrays of f32 in its memory, and the operations of `velatura-kernels` on
//! them.
//!
//! The kernels are CUDA C, compiled for the card at hand when it is opened; matrix products are cuBLAS'. Neither is needed
//! to build or to run the program elsewhere: the libraries are looked for when [`Gpu::cuda`] is asked for. With the feature
//! `emulator`, the same source is compiled for the processor too, so that tests need no card.
//!
//! Reading order: [`Gpu`] and [`Memory`], then the operations, each beside its kernel in `kernels/`.

pub mod attention;
mod compiler;
pub mod conv;
pub mod conv_product;
mod cuda;
mod device;
mod driver;
pub mod elementwise;
#[cfg(feature = "emulator")]
mod emulator;
mod error;
pub mod flash_attention;
pub mod layout;
pub mod matmul;
pub mod multi;
pub mod norm;
pub mod optimizer;

pub use device::{Gpu, Memory, Pointer};
pub use error::{Error, Result};
