//! The residual block of UNet and VAE, and the two that change the resolution.

use velatura_tensor::{Padding, Residual, Tensor};

use super::{Condition, Conv2d, GroupNorm, Linear};
use crate::Result;
use crate::weights::Weights;

/// The sizes of a [`ResnetBlock`].
#[derive(Clone, Copy, Debug)]
pub struct ResnetSizes {
    pub inputs: usize,
    pub outputs: usize,
    /// Width of the time embedding; the VAE has none.
    pub time: Option<usize>,
    pub groups: usize,
    pub eps: f32,
}

/// norm, SiLU, convolution, plus time; norm, SiLU, convolution; plus the input.
#[derive(Clone, Debug)]
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    /// 1×1, where the number of channels changes.
    conv_shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    pub fn load(w: &Weights, sizes: ResnetSizes) -> Result<Self> {
        let ResnetSizes {
            inputs,
            outputs,
            time,
            groups,
            eps,
        } = sizes;
        Ok(ResnetBlock {
            norm1: GroupNorm::load(&w.at("norm1"), groups, inputs, eps)?,
            conv1: Conv2d::load(&w.at("conv1"), inputs, outputs, 3)?,
            time_emb_proj: time
                .map(|time| Linear::load(&w.at("time_emb_proj"), time, outputs))
                .transpose()?,
            norm2: GroupNorm::load(&w.at("norm2"), groups, outputs, eps)?,
            conv2: Conv2d::load(&w.at("conv2"), outputs, outputs, 3)?,
            conv_shortcut: (inputs != outputs)
                .then(|| Conv2d::load(&w.at("conv_shortcut"), inputs, outputs, 1))
                .transpose()?,
        })
    }

    /// x `[B, H, W, I]`, `time` `[B, T]`, with its SiLU already applied: `[B, H, W, O]`.
    pub fn forward(&self, x: &Tensor, time: Option<&Condition>) -> Tensor {
        let mut h = self.conv1.forward_normed(&self.norm1, x.clone(), None);
        if let (Some(proj), Some(time)) = (&self.time_emb_proj, time) {
            h = h.add_channels(&time.project(proj));
        }
        let shortcut = match &self.conv_shortcut {
            Some(conv) => conv.residual(x),
            None => Residual {
                x: x.clone(),
                projection: None,
            },
        };
        self.conv2.forward_normed(&self.norm2, h, Some(shortcut))
    }
}

/// Halves height and width with a convolution of stride 2.
#[derive(Clone, Debug)]
pub struct Downsample {
    conv: Conv2d,
}

impl Downsample {
    /// `padding` 1: on all sides. `padding` 0: one row below and one column on the right, as the VAE has it.
    pub fn load(w: &Weights, channels: usize, padding: usize) -> Result<Self> {
        let padding = match padding {
            0 => Padding {
                bottom: 1,
                right: 1,
                ..Padding::uniform(0)
            },
            pixels => Padding::uniform(pixels),
        };
        Ok(Downsample {
            conv: Conv2d::strided(&w.at("conv"), channels, channels, 3, 2, padding)?,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.conv.forward(x)
    }
}

/// Doubles height and width by repeating, then convolves.
#[derive(Clone, Debug)]
pub struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    pub fn load(w: &Weights, channels: usize) -> Result<Self> {
        Ok(Upsample {
            conv: Conv2d::load(&w.at("conv"), channels, channels, 3)?,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.conv.forward_upsampled(x.clone())
    }

    /// To `height` × `width`, each twice the input's or one less: where an odd size was halved, rounding up,
    /// on the way down.
    pub fn forward_to(&self, x: &Tensor, height: usize, width: usize) -> Tensor {
        self.conv
            .forward(&x.upsample_nearest2x().crop(height, width))
    }
}
