//! What a person asks for. Whatever is `None` was left open; [`Request::plan`](super::Request::plan) fills it in.

use super::masked::MaskedContent;
use crate::diffusion::{Sampler, Spacing};
use crate::image::{Image, Mask};

/// A picture to paint from text, or from text and another picture.
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
    /// The picture to begin with: image to image.
    pub init: Option<Image>,
    /// Where to repaint `init`; none is everywhere. Of the size of `init`.
    pub mask: Option<Mask>,
    /// How far to go back to noise before painting: 1 is all the way, near 0 leaves `init` almost as it is.
    pub strength: Option<f64>,
    /// What the masked part holds before painting begins.
    pub masked_content: Option<MaskedContent>,
    /// Pixels over which the edge of the mask is softened, inside it; 0 to 64.
    pub mask_blur: Option<f32>,
    /// Repaints only the field around what is masked, and this many pixels more on each side, in the width and height asked
    /// for, and scales it back into the picture, which keeps its size. None repaints within the whole picture.
    pub padding_mask_crop: Option<usize>,
}
