//! The levels of the UNet: down, middle and up, each with or without transformers behind its residual blocks.

use velatura_tensor::{Tensor, tape};

use super::config::UnetConfig;
use super::transformer::Transformer;
use crate::Result;
use crate::nn::{Condition, Downsample, ResnetBlock, ResnetSizes, Upsample};
use crate::weights::Weights;

/// What every block is told besides its input.
#[derive(Clone)]
pub(crate) struct Conditions {
    /// SiLU of the time embedding, `[B, T]`: every residual block starts with it, so it is taken once.
    pub time: Condition,
    /// `[B, S, D]`
    pub context: Condition,
    pub recompute: bool,
}

/// A residual block, and a transformer where the level has them.
#[derive(Clone, Debug)]
struct Layer {
    resnet: ResnetBlock,
    attention: Option<Transformer>,
}

impl Layer {
    /// The `i`-th layer of a block on `level`, counted from the finest.
    fn load(
        config: &UnetConfig,
        level: usize,
        attention: bool,
        i: usize,
        inputs: usize,
        w: &Weights,
    ) -> Result<Self> {
        let sizes = resnet_sizes(config, inputs, config.block_out_channels[level]);
        Ok(Layer {
            resnet: ResnetBlock::load(&w.at("resnets").at(i), sizes)?,
            attention: attention
                .then(|| Transformer::load(config, level, &w.at("attentions").at(i)))
                .transpose()?,
        })
    }

    fn forward(&self, x: &Tensor, conditions: &Conditions) -> Tensor {
        let x = run_resnet(&self.resnet, x, conditions);
        match &self.attention {
            Some(transformer) => run_transformer(transformer, &x, conditions),
            None => x,
        }
    }
}

fn resnet_sizes(config: &UnetConfig, inputs: usize, outputs: usize) -> ResnetSizes {
    let time = Some(config.time_embedding_dim);
    ResnetSizes {
        inputs,
        outputs,
        time,
        groups: config.norm_num_groups,
        eps: config.norm_eps,
    }
}

fn run_resnet(resnet: &ResnetBlock, x: &Tensor, conditions: &Conditions) -> Tensor {
    if !conditions.recompute {
        return resnet.forward(x, Some(&conditions.time));
    }
    let resnet = resnet.clone();
    tape::recompute(&[x, conditions.time.value()], move |inputs| {
        resnet.forward(&inputs[0], Some(&Condition::new(inputs[1].clone())))
    })
}

fn run_transformer(transformer: &Transformer, x: &Tensor, conditions: &Conditions) -> Tensor {
    if !conditions.recompute {
        return transformer.forward(x, &conditions.context);
    }
    let transformer = transformer.clone();
    tape::recompute(&[x, conditions.context.value()], move |inputs| {
        transformer.forward(&inputs[0], &Condition::new(inputs[1].clone()))
    })
}

/// A level on the way down. Everything it passes is kept for the way up.
#[derive(Clone, Debug)]
pub(super) struct DownBlock {
    layers: Vec<Layer>,
    downsampler: Option<Downsample>,
}

impl DownBlock {
    pub fn load(config: &UnetConfig, level: usize, w: &Weights) -> Result<Self> {
        let channels = &config.block_out_channels;
        let attention = config.down_blocks[level].has_attention();
        let is_last = level + 1 == channels.len();
        Ok(DownBlock {
            layers: (0..config.layers_per_block[level])
                .map(|i| {
                    let inputs = if i == 0 {
                        channels[level.saturating_sub(1)]
                    } else {
                        channels[level]
                    };
                    Layer::load(config, level, attention, i, inputs, w)
                })
                .collect::<Result<_>>()?,
            downsampler: (!is_last)
                .then(|| {
                    Downsample::load(
                        &w.at("downsamplers").at(0),
                        channels[level],
                        config.downsample_padding,
                    )
                })
                .transpose()?,
        })
    }

    pub fn forward(&self, x: &Tensor, conditions: &Conditions, skips: &mut Vec<Tensor>) -> Tensor {
        let mut x = x.clone();
        for layer in &self.layers {
            x = layer.forward(&x, conditions);
            skips.push(x.clone());
        }
        if let Some(downsampler) = &self.downsampler {
            x = downsampler.forward(&x);
            skips.push(x.clone());
        }
        x
    }
}

/// The coarsest level: residual block, transformer, residual block.
#[derive(Clone, Debug)]
pub(super) struct MidBlock {
    first: Layer,
    last: ResnetBlock,
}

impl MidBlock {
    pub fn load(config: &UnetConfig, w: &Weights) -> Result<Self> {
        let level = config.block_out_channels.len() - 1;
        let channels = config.block_out_channels[level];
        Ok(MidBlock {
            first: Layer::load(config, level, true, 0, channels, w)?,
            last: ResnetBlock::load(
                &w.at("resnets").at(1),
                resnet_sizes(config, channels, channels),
            )?,
        })
    }

    pub fn forward(&self, x: &Tensor, conditions: &Conditions) -> Tensor {
        run_resnet(&self.last, &self.first.forward(x, conditions), conditions)
    }
}

/// A level on the way up. Each layer takes one kept tensor of the way down beside its input.
#[derive(Clone, Debug)]
pub(super) struct UpBlock {
    layers: Vec<Layer>,
    upsampler: Option<Upsample>,
}

impl UpBlock {
    /// The `index`-th block on the way up, which is on level `levels - 1 - index`.
    pub fn load(config: &UnetConfig, index: usize, w: &Weights) -> Result<Self> {
        let channels = &config.block_out_channels;
        let level = channels.len() - 1 - index;
        let coarser = channels[(level + 1).min(channels.len() - 1)];
        let finer = channels[level.saturating_sub(1)];
        let attention = config.up_blocks[index].has_attention();
        // One more than on the way down, for what came into the level.
        let count = config.layers_per_block[level] + 1;
        Ok(UpBlock {
            layers: (0..count)
                .map(|i| {
                    let below = if i == 0 { coarser } else { channels[level] };
                    let skip = if i + 1 == count {
                        finer
                    } else {
                        channels[level]
                    };
                    Layer::load(config, level, attention, i, below + skip, w)
                })
                .collect::<Result<_>>()?,
            upsampler: (level > 0)
                .then(|| Upsample::load(&w.at("upsamplers").at(0), channels[level]))
                .transpose()?,
        })
    }

    pub fn forward(&self, x: &Tensor, conditions: &Conditions, skips: &mut Vec<Tensor>) -> Tensor {
        let mut x = x.clone();
        for layer in &self.layers {
            if let Some(skip) = skips.pop() {
                x = Tensor::concat_channels(&[&x, &skip]);
            }
            x = layer.forward(&x, conditions);
        }
        match (&self.upsampler, skips.last()) {
            // The next level's size, which is one less than twice this one's where that was odd.
            (Some(upsampler), Some(next)) => upsampler.forward_to(&x, next.dim(1), next.dim(2)),
            _ => x,
        }
    }
}
