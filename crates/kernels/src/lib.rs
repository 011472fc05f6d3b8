//! Numerical kernels: slices of `f32` in, slices of `f32` out.
//!
//! This crate is the only home of SIMD and of nearly all `unsafe` in Velatura. Activations are
//! channels-last (`[B, H, W, C]`, or `[rows, channels]`); weights of products and convolutions are
//! packed once into the layout that the micro-kernel reads. Every kernel runs on all threads of
//! [`pool`], picks its instruction set through [`isa`], and has a plain-loop twin of the same name
//! in [`reference`](mod@reference), which is its oracle in the tests and its documentation.
//!
//! Results depend neither on timing nor on the number of threads: work is split over outputs, never
//! over a sum.
//!
//! Functions check the lengths of their slices with `assert!`: a wrong length is a programmer's error.

pub mod isa;
pub mod memory;
pub mod peak;
pub mod pool;
pub mod profile;
pub mod scratch;

mod map;
mod math;
mod shared;
mod tiles;
mod winograd;

pub mod conv;
pub mod gemm;

pub mod activation;
pub mod attention;
pub mod elementwise;
pub mod norm;
pub mod optimizer;
pub mod resample;

pub mod reference;
