//! Pictures to moments: residual blocks on ever coarser levels.

use velatura_tensor::Tensor;

use super::blocks::{MidBlock, resnets};
use super::config::{EPS, VaeConfig};
use crate::Result;
use crate::nn::{Conv2d, Downsample, GroupNorm, ResnetBlock};
use crate::weights::Weights;

#[derive(Clone, Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

#[derive(Clone, Debug)]
struct DownBlock {
    resnets: Vec<ResnetBlock>,
    downsampler: Option<Downsample>,
}

impl Encoder {
    pub fn load(config: &VaeConfig, w: &Weights) -> Result<Self> {
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let coarsest = w.with_map_size(config.map_size(channels.len() - 1));
        Ok(Encoder {
            conv_in: Conv2d::load(&w.at("conv_in").in_f32(), config.in_channels, first, 3)?,
            down_blocks: (0..channels.len())
                .map(|i| DownBlock::load(config, i, &w.at("down_blocks").at(i)))
                .collect::<Result<_>>()?,
            mid_block: MidBlock::load(config, &coarsest.at("mid_block"))?,
            conv_norm_out: GroupNorm::load(
                &w.at("conv_norm_out"),
                config.norm_num_groups,
                last,
                EPS,
            )?,
            conv_out: Conv2d::load(
                &w.at("conv_out").in_f32(),
                last,
                2 * config.latent_channels,
                3,
            )?,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.conv_in.forward(x);
        for block in &self.down_blocks {
            x = block.forward(x);
        }
        x = self.mid_block.forward(&x);
        self.conv_out.forward_normed(&self.conv_norm_out, x, None)
    }
}

impl DownBlock {
    fn load(config: &VaeConfig, level: usize, w: &Weights) -> Result<Self> {
        let channels = &config.block_out_channels;
        let (before, here) = (channels[level.saturating_sub(1)], channels[level]);
        let w = &w.with_map_size(config.map_size(level));
        Ok(DownBlock {
            resnets: resnets(config, before, here, config.layers_per_block, w)?,
            downsampler: (level + 1 < channels.len())
                .then(|| Downsample::load(&w.at("downsamplers").at(0), here, 0))
                .transpose()?,
        })
    }

    fn forward(&self, mut x: Tensor) -> Tensor {
        for resnet in &self.resnets {
            x = resnet.forward(&x, None);
        }
        match &self.downsampler {
            Some(downsampler) => downsampler.forward(&x),
            None => x,
        }
    }
}
