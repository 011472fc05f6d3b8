//! The operations, forward and backward side by side.

mod attention;
mod conv;
mod conv_bands;
mod elementwise;
mod layout;
mod linear;
mod matmul;
mod norm;
mod on_gpu;
mod resample;
mod update;

pub use conv_bands::{BandedConv, Before, Residual};
pub use update::{AdamWStep, adamw, descend, ema, nesterov, sums_of_squares};
