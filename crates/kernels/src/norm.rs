//! Group and layer normalisation, and rows of length 1, forward and backward, over channels-last activations.
//!
//! Moments stay exact to f32 however large the mean is: blocks of rows are summed around their own
//! mean, and joined in f64 (Chan, Golub & LeVeque, "Algorithms for Computing the Sample Variance",
//! 1983) in the order of the rows, so that the result does not depend on the threads.

mod group;
mod layer;
mod unit;

pub use group::{
    GroupNormShape, group_norm, group_norm_apply, group_norm_backward, group_norm_stats,
};
pub use layer::{layer_norm, layer_norm_backward};
pub use unit::{unit_rows, unit_rows_backward};
