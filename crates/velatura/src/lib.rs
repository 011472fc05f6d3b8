//! Stable Diffusion as a library: text encoder, UNet, VAE, noise schedule, samplers and pipelines.

pub mod checkpoint;
pub mod error;
pub mod weights;

pub use error::{Error, Result};
