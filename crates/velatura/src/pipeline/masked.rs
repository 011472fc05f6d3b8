//! What a masked part holds before it is repainted. From pure noise (strength 1) it does not matter; with less, something
//! of it shows through. The names are those of AUTOMATIC1111's web UI.

use std::fmt;
use std::str::FromStr;

use velatura_tensor::Tensor;

use crate::{Error, Result};

/// What the masked part holds before painting begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskedContent {
    /// The colours around it.
    Fill,
    /// What the picture has there.
    #[default]
    Original,
    /// The noise that painting begins with, once more.
    LatentNoise,
    /// Zeros in the latents: a flat colour.
    LatentNothing,
}

impl MaskedContent {
    /// All of them, in the order of the web UI, whose API counts them from 0.
    pub const ALL: [MaskedContent; 4] = [
        MaskedContent::Fill,
        MaskedContent::Original,
        MaskedContent::LatentNoise,
        MaskedContent::LatentNothing,
    ];

    /// The name on the command line and in the API.
    pub fn name(self) -> &'static str {
        match self {
            MaskedContent::Fill => "fill",
            MaskedContent::Original => "original",
            MaskedContent::LatentNoise => "latent-noise",
            MaskedContent::LatentNothing => "latent-nothing",
        }
    }

    /// The name that AUTOMATIC1111's interface shows.
    pub fn label(self) -> String {
        self.name().replace('-', " ")
    }

    /// The latents to begin with: x0 where `mask` is 0, and what it holds where it is 1. All of one shape.
    pub(super) fn latents(self, x0: Tensor, noise: &Tensor, mask: &Tensor) -> Tensor {
        let kept = || x0.mul(&mask.scale(-1.0).add_scalar(1.0));
        match self {
            MaskedContent::Fill | MaskedContent::Original => x0,
            MaskedContent::LatentNoise => kept().add(&noise.mul(mask)),
            MaskedContent::LatentNothing => kept(),
        }
    }
}

impl FromStr for MaskedContent {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|content| {
            [content.name(), &content.label()].contains(&name.to_lowercase().as_str())
        });
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::request("masked_content", format!("one of {names}"), name)
        })
    }
}

impl fmt::Display for MaskedContent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back() {
        for content in MaskedContent::ALL {
            assert_eq!(content.name().parse::<MaskedContent>().unwrap(), content);
            assert_eq!(content.label().parse::<MaskedContent>().unwrap(), content);
        }
        let error = "lava".parse::<MaskedContent>().unwrap_err().to_string();
        assert!(
            error.contains("latent-noise") && error.contains("lava"),
            "{error}"
        );
    }

    #[test]
    fn only_the_masked_part_changes() {
        let row = |values: [f32; 2]| Tensor::from_vec(values.to_vec(), &[1, 1, 2, 1]);
        let latents = |content: MaskedContent| {
            let x = content.latents(row([1.0, 2.0]), &row([7.0, 8.0]), &row([0.0, 1.0]));
            x.as_slice().to_vec()
        };
        assert_eq!(latents(MaskedContent::Original), [1.0, 2.0]);
        assert_eq!(latents(MaskedContent::LatentNoise), [1.0, 8.0]);
        assert_eq!(latents(MaskedContent::LatentNothing), [1.0, 0.0]);
    }
}
