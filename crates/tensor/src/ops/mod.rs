//! The operations, forward and backward side by side.

mod attention;
mod conv;
mod conv_bands;
mod elementwise;
mod layout;
mod linear;
mod norm;
mod resample;

pub use conv_bands::{BandedConv, Before, Residual};
