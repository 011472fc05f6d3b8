//! Stable Diffusion as a library: text encoder, UNet, VAE, noise schedule, samplers and pipelines.

pub mod error;

pub use error::{Error, Result};
