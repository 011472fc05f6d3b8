//! The operations, forward and backward side by side.

mod attention;
mod conv;
mod elementwise;
mod layout;
mod linear;
mod norm;
mod resample;
