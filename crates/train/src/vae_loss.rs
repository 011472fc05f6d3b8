//! The autoencoder's loss: reconstruction, divergence, and what judges the reconstruction beside the pixels.

use velatura::vae::AutoencoderKl;
use velatura_kernels::elementwise::sum_squares;
use velatura_tensor::tape::frozen;
use velatura_tensor::{Parameter, Tensor};

use crate::config::{Loss, Reconstruction};
use crate::discriminator::Discriminator;
use crate::lpips::Lpips;
use crate::objective::Losses;

/// The terms of the loss of Rombach et al. 2022 (arXiv:2112.10752, appendix G).
pub struct VaeLoss {
    /// Reconstruction and divergence.
    pub settings: Loss,
    /// The perceptual term, and how much it counts.
    pub lpips: Option<(Lpips, f32)>,
    /// The adversary, and how much it counts.
    pub discriminator: Option<(Discriminator, f32)>,
}

impl VaeLoss {
    /// The mean loss of `pixels: [B, H, W, 3]` in [-1, 1], with `noise: [B, H/f, W/f, Z]` for the latents; `adversarial`
    /// says whether the discriminator takes part already.
    ///
    /// Where it does, the slope is that of both players, each for parameters of its own: the autoencoder's loss is
    /// error + KL + w·(−mean D(x̂)), the discriminator's the hinge loss on the pictures and on the same
    /// reconstructions. w is taming-transformers' adaptive weight (Esser et al. 2021, arXiv:2012.09841, eq. 7): the
    /// ratio of both terms' gradient norms at the decoder's last layer, at most 10⁴, times the config's weight. The KL
    /// weight counts as in that paper, where both terms are sums over a picture: so the mean is taken by dividing the
    /// divergence by the number of values in a picture, too.
    pub fn of(
        &self,
        vae: &AutoencoderKl,
        pixels: &Tensor,
        noise: &Tensor,
        adversarial: bool,
    ) -> Losses {
        let latents = vae.encode(pixels);
        let features = vae.decoder_features(&latents.sample(noise));
        let again = vae.last_layer().forward(&features);
        let kl = latents.kl();
        let values = (pixels.len() / pixels.dim(0)) as f32;
        let divergence = kl.scale(self.settings.kl_weight / values);
        let mut parts = Vec::new();
        let Some((discriminator, weight)) = &self.discriminator else {
            let error = self.error(&again, pixels, &mut parts);
            parts.push(("kl", kl.item()));
            return Losses::new(error.add(&divergence), parts);
        };
        if !adversarial {
            let error = self.error(&again, pixels, &mut parts);
            parts.push(("kl", kl.item()));
            parts.extend(["generator", "disc_weight", "discriminator"].map(|name| (name, 0.0)));
            return Losses::new(error.add(&divergence), parts);
        }

        // The tape ends at the reconstruction, so that each term's slope there is known by itself.
        let judged = Parameter::new("reconstruction", again.detach());
        let slope = |term: &Tensor| match term.backward().take(&judged) {
            Some(slope) => slope,
            None => Tensor::zeros(judged.shape()),
        };
        let error = self.error(&judged.value(), pixels, &mut parts);
        parts.push(("kl", kl.item()));
        let d_error = slope(&error);
        let fake = judged.value();
        let generator = frozen(|| discriminator.forward(&fake)).mean().neg();
        let d_generator = slope(&generator);
        let norm = |d: &Tensor| last_layer_norm(vae, &features, d);
        let adaptive = (norm(&d_error) / (norm(&d_generator) + 1e-4)).min(1e4) as f32 * weight;

        // The scalar whose slope at the reconstruction is the sum of both.
        let d_again = d_error.add(&d_generator.scale(adaptive));
        let hinge = discriminator.loss(pixels, &again.detach());
        let slope = again.mul(&d_again).sum().add(&divergence).add(&hinge);
        let loss = error.item() + divergence.item() + adaptive * generator.item();
        parts.extend([
            ("generator", generator.item()),
            ("disc_weight", adaptive),
            ("discriminator", hinge.item()),
        ]);
        Losses { loss, slope, parts }
    }

    /// The reconstruction error, and the perceptual distance where it counts.
    fn error(
        &self,
        again: &Tensor,
        pixels: &Tensor,
        parts: &mut Vec<(&'static str, f32)>,
    ) -> Tensor {
        let difference = again.sub(pixels);
        let error = match self.settings.reconstruction {
            Reconstruction::L1 => difference.abs().mean(),
            Reconstruction::L2 => difference.square().mean(),
        };
        parts.push(("reconstruction", error.item()));
        let Some((lpips, weight)) = &self.lpips else {
            return error;
        };
        let distance = lpips.distance(again, pixels);
        parts.push(("lpips", distance.item()));
        error.add(&distance.scale(*weight))
    }
}

/// The norm of the gradient for the last layer's kernel when the gradient for the picture is `d`.
fn last_layer_norm(vae: &AutoencoderKl, features: &Tensor, d: &Tensor) -> f64 {
    let layer = vae.last_layer();
    let gradients = layer.forward(&features.detach()).mul(d).sum().backward();
    let kernel = layer
        .weight()
        .parameter()
        .and_then(|kernel| gradients.get(kernel));
    kernel.map_or(0.0, |slope| sum_squares(slope.as_slice()).sqrt())
}
