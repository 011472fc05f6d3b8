//! Stable Diffusion as a library: text encoder, UNet, VAE, noise schedule, samplers and pipelines.

pub mod checkpoint;
pub mod clip;
pub mod diffusion;
pub mod error;
mod fields;
pub mod files;
pub mod image;
pub mod metadata;
pub mod nn;
pub mod pipeline;
pub mod tokenizer;
pub mod unet;
pub mod vae;
pub mod weights;

pub use error::{Error, Result};
pub use fields::fields_read_by;
