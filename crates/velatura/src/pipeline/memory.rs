//! How much memory a picture takes, and what can be given up for less.

use velatura_tensor::Precision;

use super::{Model, Plan};
use crate::checkpoint::Component;
use crate::{Error, Result};

/// What the program itself takes, with its tables and the pieces of files that are being read.
const PROGRAM: u64 = 64 << 20;

/// Tensors of the finest level's size that a step of the UNet has in memory at most: those that wait for the way up,
/// and around the feed-forward network, which has eight times the channels; also what loading leaves behind. Stable
/// Diffusion 1.5 at 512×512 takes 50 to 55.
const UNET_TENSORS: u64 = 56;

/// The same of the autoencoder's decoder. Stable Diffusion 1.5's takes 4.6 at 512×512 and 3.1 at 1024×1024.
const VAE_TENSORS: u64 = 5;

/// A transformed weight of Winograd's algorithm has at most so many times its numbers.
const TRANSFORMED: u64 = 4;

/// What a picture takes where each part of the model is in memory alone, in bytes.
pub(super) struct Needs {
    /// The UNet with its weights as they are, and its intermediates.
    unet: u64,
    /// The autoencoder with its intermediates.
    vae: u64,
    /// Numbers of each of the UNet's weights that can be transformed, the smallest first.
    transformable: Vec<usize>,
    /// Bytes of a transformed number.
    bytes: u64,
    precision: Precision,
}

impl Needs {
    pub fn of(model: &Model, precision: Precision, plan: &Plan) -> Needs {
        let ((unet, unet_config), (vae, vae_config)) = model.large_parts();
        let pixels = (plan.height * plan.width) as u64;
        let places = pixels / (vae_config.factor() * vae_config.factor()) as u64;
        let batch = if plan.is_guided() { 2 } else { 1 };
        let beside = precision.beside_linear();
        let work = 4 * batch * places * unet_config.block_out_channels[0] as u64 * UNET_TENSORS;
        let decode = 4 * pixels * vae_config.block_out_channels[0] as u64 * VAE_TENSORS;
        let mut transformable: Vec<usize> = shapes(unet)
            .filter(|shape| matches!(shape[..], [_, _, 3, 3]))
            .map(|shape| shape.iter().product())
            .collect();
        transformable.sort_unstable();
        Needs {
            unet: PROGRAM + weights(unet, precision, beside) + work,
            vae: PROGRAM + TRANSFORMED * weights(vae, beside, beside) + decode,
            transformable,
            bytes: bytes(beside),
            precision,
        }
    }

    /// The most numbers that a weight may have to be transformed within `budget` bytes. The smallest come first: they
    /// belong to the largest feature maps, where the transform saves most for its memory.
    ///
    /// # Errors
    /// [`Error::Request`] when the budget is too small even so.
    pub fn fit(&self, budget: u64) -> Result<usize> {
        let least = self.unet.max(self.vae);
        if budget < least {
            let mb = |bytes: u64| bytes.div_ceil(1_000_000);
            let hint = match self.precision {
                Precision::Int8 => "a smaller --width and --height take less",
                Precision::Bf16 => "--precision int8, or a smaller --width and --height, take less",
                Precision::F32 => {
                    "--precision bf16 or int8, or a smaller --width and --height, take less"
                }
            };
            let expected = format!(
                "at least {} MB for this picture with {} weights; {hint}",
                mb(least),
                super::precision_name(self.precision)
            );
            return Err(Error::request(
                "memory",
                expected,
                format!("{} MB", mb(budget)),
            ));
        }
        let mut room = budget - self.unet;
        let mut largest = 0;
        for equal in self.transformable.chunk_by(|a, b| a == b) {
            let numbers: usize = equal.iter().sum();
            let more = (TRANSFORMED - 1) * self.bytes * numbers as u64;
            if more > room {
                break;
            }
            room -= more;
            largest = equal[0];
        }
        Ok(largest)
    }
}

fn shapes(component: &Component) -> impl Iterator<Item = Vec<usize>> {
    let tensor = |name| component.tensor(name).map(|view| view.shape.to_vec());
    component.names().filter_map(tensor)
}

/// Bytes of a component's weights: `linear` those of linear layers, `beside` those of convolutions.
fn weights(component: &Component, linear: Precision, beside: Precision) -> u64 {
    let tensor = |shape: Vec<usize>| {
        let numbers: usize = shape.iter().product();
        let each = match shape[..] {
            [_, _] | [_, _, 1, 1] => bytes(linear),
            [_, _, _, _] => bytes(beside),
            _ => 4,
        };
        each * numbers as u64
    };
    shapes(component).map(tensor).sum()
}

fn bytes(precision: Precision) -> u64 {
    match precision {
        Precision::F32 => 4,
        Precision::Bf16 => 2,
        Precision::Int8 => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_transformed_as_far_as_there_is_room() {
        let needs = Needs {
            unet: 1000,
            vae: 900,
            transformable: vec![10, 10, 20, 30],
            bytes: 2,
            precision: Precision::Bf16,
        };
        // A transformed number takes six bytes more, and equal weights come together.
        for (budget, largest) in [
            (1000, 0),
            (1119, 0),
            (1120, 10),
            (1239, 10),
            (1240, 20),
            (1420, 30),
            (u64::MAX, 30),
        ] {
            assert_eq!(needs.fit(budget).unwrap(), largest, "{budget}");
        }
        assert!(needs.fit(999).is_err());
        let large = Needs { vae: 2000, ..needs };
        assert!(large.fit(1999).is_err());
        assert_eq!(large.fit(2000).unwrap(), 30);
    }
}
