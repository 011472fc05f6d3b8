//! Latents to pictures: residual blocks on ever finer levels.

use velatura_tensor::Tensor;

use super::blocks::{MidBlock, resnets};
use super::config::{EPS, VaeConfig};
use crate::Result;
use crate::nn::{Conv2d, GroupNorm, ResnetBlock, Upsample};
use crate::weights::Weights;

#[derive(Clone, Debug)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

#[derive(Clone, Debug)]
struct UpBlock {
    resnets: Vec<ResnetBlock>,
    upsampler: Option<Upsample>,
}

impl Decoder {
    pub fn load(config: &VaeConfig, w: &Weights) -> Result<Self> {
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let coarsest = w.with_map_size(config.map_size(channels.len() - 1));
        Ok(Decoder {
            conv_in: Conv2d::load(&w.at("conv_in").in_f32(), config.latent_channels, last, 3)?,
            mid_block: MidBlock::load(config, &coarsest.at("mid_block"))?,
            up_blocks: (0..channels.len())
                .map(|i| UpBlock::load(config, i, &w.at("up_blocks").at(i)))
                .collect::<Result<_>>()?,
            conv_norm_out: GroupNorm::load(
                &w.at("conv_norm_out"),
                config.norm_num_groups,
                first,
                EPS,
            )?,
            conv_out: Conv2d::load(&w.at("conv_out").in_f32(), first, config.out_channels, 3)?,
        })
    }

    pub fn forward(&self, z: &Tensor) -> Tensor {
        self.conv_out
            .forward_normed(&self.conv_norm_out, self.blocks(z), None)
    }

    /// Everything but the last layer.
    pub fn features(&self, z: &Tensor) -> Tensor {
        self.conv_norm_out.forward_silu(&self.blocks(z))
    }

    pub fn last_layer(&self) -> &Conv2d {
        &self.conv_out
    }

    fn blocks(&self, z: &Tensor) -> Tensor {
        let mut x = self.mid_block.forward(&self.conv_in.forward(z));
        for block in &self.up_blocks {
            x = block.forward(x);
        }
        x
    }
}

impl UpBlock {
    /// The `index`-th block, the coarsest first.
    fn load(config: &VaeConfig, index: usize, w: &Weights) -> Result<Self> {
        let channels = &config.block_out_channels;
        let level = channels.len() - 1 - index;
        let before = channels[(level + 1).min(channels.len() - 1)];
        let w = &w.with_map_size(config.map_size(level));
        Ok(UpBlock {
            // One more than the encoder has.
            resnets: resnets(
                config,
                before,
                channels[level],
                config.layers_per_block + 1,
                w,
            )?,
            upsampler: (level > 0)
                .then(|| Upsample::load(&w.at("upsamplers").at(0), channels[level]))
                .transpose()?,
        })
    }

    fn forward(&self, mut x: Tensor) -> Tensor {
        for resnet in &self.resnets {
            x = resnet.forward(&x, None);
        }
        match &self.upsampler {
            Some(upsampler) => upsampler.forward(&x),
            None => x,
        }
    }
}
