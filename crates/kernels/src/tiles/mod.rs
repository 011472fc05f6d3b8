//! Products of bf16 numbers on the matrix unit ([`crate::isa::amx`]).
//!
//! A tile of left-hand numbers is sixteen rows at any distance from each other, so that the patches
//! of a convolution need not be gathered: a band of the picture is written once as bf16, channels
//! last, with the zeros around it, and its pixels are the rows of a matrix. One pixel to the right
//! is one row on, one pixel down is a line on; each tap of the kernel multiplies the same matrix,
//! shifted. Places whose row wraps round the edge of the picture are computed and dropped. A linear
//! layer is the case of one tap and pictures one pixel wide.

mod band;
mod forward;
mod weight_gradient;

pub(crate) use band::Places;
pub(crate) use forward::run;
pub(crate) use weight_gradient::weight_gradient;
