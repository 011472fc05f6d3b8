//! How much of a picture an autoencoder keeps.

use image::RgbImage;
use serde::Serialize;
use velatura::vae::AutoencoderKl;

use super::quality::{psnr, ssim};
use super::{Report, tell};
use crate::error::{Error, Result};
use crate::scorer::reconstruct;

/// Means over pictures.
#[derive(Clone, Debug, Serialize)]
pub struct Reconstruction {
    pub pictures: usize,
    /// dB, the mean of the pictures' own; over those that do not come back exactly.
    pub psnr: f64,
    /// dB of the mean squared error of all pictures, which the darkest and finest weigh down more.
    pub psnr_of_mean: f64,
    /// −1 to 1; none for pictures smaller than its window.
    pub ssim: Option<f64>,
}

/// Encodes and decodes `count` pictures that `picture` gives, and compares them in 8 bits. The latents are the means of
/// their distributions, as img2img takes them in evaluation.
///
/// # Errors
/// A picture cannot be had, or its sides are not multiples of what the autoencoder divides them by; `report` says stop.
pub fn reconstruction(
    vae: &AutoencoderKl,
    count: usize,
    mut picture: impl FnMut(usize) -> Result<RgbImage>,
    report: Report,
) -> Result<Reconstruction> {
    let factor = vae.config().factor() as u32;
    let (mut decibels, mut similar, mut squares) = (Vec::new(), Vec::new(), 0.0);
    for number in 0..count {
        let original = picture(number)?;
        let (width, height) = original.dimensions();
        if !width.is_multiple_of(factor) || !height.is_multiple_of(factor) {
            return Err(Error::data(
                format!("picture {number}"),
                format!("expected sides that are multiples of {factor}, found {width}×{height}"),
            ));
        }
        let again = reconstruct(vae, &original);
        let one = psnr(&original, &again);
        squares += 10f64.powf(-one / 10.0);
        if one.is_finite() {
            decibels.push(one);
        }
        similar.extend(ssim(&original, &again));
        tell(&mut *report, "picture", number + 1, count)?;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    Ok(Reconstruction {
        pictures: count,
        psnr: mean(&decibels),
        psnr_of_mean: -10.0 * (squares / count as f64).log10(),
        ssim: (!similar.is_empty()).then(|| mean(&similar)),
    })
}
