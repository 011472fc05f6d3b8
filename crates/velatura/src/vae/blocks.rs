//! What encoder and decoder share.

use velatura_tensor::Tensor;

use super::config::{EPS, VaeConfig};
use crate::Result;
use crate::nn::{Attention, AttentionSizes, GroupNorm, ResnetBlock, ResnetSizes};
use crate::weights::Weights;

fn sizes(config: &VaeConfig, inputs: usize, outputs: usize) -> ResnetSizes {
    ResnetSizes {
        inputs,
        outputs,
        time: None,
        groups: config.norm_num_groups,
        eps: EPS,
    }
}

/// A level's residual blocks, the first of which changes the number of channels.
pub(super) fn resnets(
    config: &VaeConfig,
    before: usize,
    here: usize,
    count: usize,
    w: &Weights,
) -> Result<Vec<ResnetBlock>> {
    (0..count)
        .map(|i| {
            let inputs = if i == 0 { before } else { here };
            ResnetBlock::load(&w.at("resnets").at(i), sizes(config, inputs, here))
        })
        .collect()
}

/// The coarsest level: residual block, attention over all places with a single head, residual block.
#[derive(Clone, Debug)]
pub(super) struct MidBlock {
    first: ResnetBlock,
    attention: Option<SelfAttention>,
    last: ResnetBlock,
}

#[derive(Clone, Debug)]
struct SelfAttention {
    group_norm: GroupNorm,
    attention: Attention,
}

impl MidBlock {
    pub fn load(config: &VaeConfig, w: &Weights) -> Result<Self> {
        let channels = config.block_out_channels[config.block_out_channels.len() - 1];
        let resnet =
            |i: usize| ResnetBlock::load(&w.at("resnets").at(i), sizes(config, channels, channels));
        let attention =
            || SelfAttention::load(channels, config.norm_num_groups, &w.at("attentions").at(0));
        Ok(MidBlock {
            first: resnet(0)?,
            attention: config.mid_block_add_attention.then(attention).transpose()?,
            last: resnet(1)?,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.first.forward(x, None);
        if let Some(attention) = &self.attention {
            x = attention.forward(&x);
        }
        self.last.forward(&x, None)
    }
}

impl SelfAttention {
    fn load(channels: usize, groups: usize, w: &Weights) -> Result<Self> {
        let sizes = AttentionSizes {
            channels,
            context: channels,
            heads: 1,
            bias: true,
        };
        Ok(SelfAttention {
            group_norm: GroupNorm::load(&w.at("group_norm"), groups, channels, EPS)?,
            attention: Attention::load(w, sizes)?,
        })
    }

    /// x `[B, H, W, C]`
    fn forward(&self, x: &Tensor) -> Tensor {
        let places = x.dim(1) * x.dim(2);
        let sequence = [x.dim(0), places, x.channels()];
        let h = self.group_norm.forward(x).reshape(&sequence);
        self.attention
            .forward(&h, &x.reshape(&sequence))
            .reshape(x.shape())
    }
}
