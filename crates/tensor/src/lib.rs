//! A small tensor core: f32 arrays in channels-last order, about thirty operations with forward and
//! backward side by side, one tape, and PyTorch's random numbers.
//!
//! The op set is closed: it holds what a latent diffusion model needs and nothing else. Shapes are
//! validated where data enters the program (weights, configs, requests), so an operation that meets
//! a wrong shape has found a bug of ours and panics with the shapes in the message.
//!
//! Reading order: [`Tensor`], [`tape`], [`Parameter`] and [`Weight`], [`device`], then the operations.

mod buffer;
pub mod device;
mod ops;
mod parameter;
pub mod random;
mod storage;
pub mod tape;
mod tensor;
mod weight;

pub use ops::{AdamWStep, BandedConv, Before, Residual};
pub use ops::{adamw, descend, ema, nesterov, sums_of_squares};
pub use parameter::Parameter;
pub use tape::Gradients;
pub use tensor::Tensor;
pub use velatura_gpu::{Error as GpuError, Gpu};
pub use velatura_kernels::activation::Activation;
pub use velatura_kernels::conv::{ConvShape, Padding};
pub use velatura_kernels::gemm::Precision;
pub use velatura_kernels::memory::Memory;
pub use weight::{PackedForm, PackedParts, Weight};
