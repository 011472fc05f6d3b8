//! What a person asks for. Whatever is `None` was left open; [`Request::plan`](super::Request::plan) fills it in.

use crate::diffusion::{Sampler, Spacing};

/// A picture to paint from text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// What the picture shows. Empty: anything the model likes.
    pub prompt: String,
    /// What it shall not show.
    pub negative: Option<String>,
    /// Steps from noise to picture.
    pub steps: Option<usize>,
    /// The scale of classifier-free guidance; 1 and less is none.
    pub guidance: Option<f32>,
    /// The seed of the noise.
    pub seed: Option<u64>,
    /// How the steps are taken.
    pub sampler: Option<Sampler>,
    /// How the noise levels are spaced.
    pub schedule: Option<Spacing>,
    /// DDIM's η: 0 adds no noise on the way, 1 as much as DDPM.
    pub eta: Option<f32>,
    /// Width in pixels.
    pub width: Option<usize>,
    /// Height in pixels.
    pub height: Option<usize>,
}
