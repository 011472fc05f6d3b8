//! The UNet (`UNet2DConditionModel`): a noisy latent, its time and a text's context in, a prediction of the same
//! size out (Rombach et al. 2022, arXiv:2112.10752; Ronneberger et al. 2015).

mod blocks;
mod config;
mod transformer;

use velatura_tensor::Tensor;

pub(crate) use self::blocks::Conditions;
use self::blocks::{DownBlock, MidBlock, UpBlock};
pub use self::config::{BlockKind, UnetConfig};
use crate::Result;
use crate::nn::{Condition, Conv2d, GroupNorm, TimestepEmbedding, timestep_features, watch};
use crate::weights::Weights;

/// The denoiser.
#[derive(Clone, Debug)]
pub struct Unet {
    config: UnetConfig,
    conv_in: Conv2d,
    time_embedding: TimestepEmbedding,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    /// Whether training keeps only the inputs of residual and transformer blocks and runs the blocks again for
    /// the gradient: about a third more time for a fraction of the memory.
    pub recompute: bool,
}

impl Unet {
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(config: &UnetConfig, w: &Weights) -> Result<Self> {
        let first = config.block_out_channels[0];
        let count = config.block_out_channels.len();
        let levels = 0..count;
        // The feature maps of a level, each level's half as high and wide as the finer one's.
        let at_level = |segment: &str, level: usize| match config.sample_size {
            Some([height, width]) => w
                .at(segment)
                .with_map_size((height >> level, width >> level)),
            None => w.at(segment),
        };
        let (groups, eps) = (config.norm_num_groups, config.norm_eps);
        Ok(Unet {
            conv_in: Conv2d::load(
                &w.at("conv_in").in_f32(),
                config.in_channels,
                first,
                config.conv_in_kernel,
            )?,
            time_embedding: TimestepEmbedding::load(
                &w.at("time_embedding").in_f32(),
                first,
                config.time_embedding_dim,
            )?,
            down_blocks: levels
                .clone()
                .map(|i| DownBlock::load(config, i, &at_level("down_blocks", i).at(i)))
                .collect::<Result<_>>()?,
            mid_block: MidBlock::load(config, &at_level("mid_block", count - 1))?,
            up_blocks: levels
                .map(|i| UpBlock::load(config, i, &at_level("up_blocks", count - 1 - i).at(i)))
                .collect::<Result<_>>()?,
            conv_norm_out: GroupNorm::load(&w.at("conv_norm_out"), groups, first, eps)?,
            conv_out: Conv2d::load(
                &w.at("conv_out").in_f32(),
                first,
                config.out_channels,
                config.conv_out_kernel,
            )?,
            config: config.clone(),
            recompute: false,
        })
    }

    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// x `[B, h, w, C]`, one timestep per sample, context `[B, S, D]`: the prediction `[B, h, w, C']`. What is
    /// predicted, noise or velocity, is the noise schedule's matter.
    ///
    /// # Panics
    /// When the shapes don't fit each other or the config; see [`UnetConfig::check_latent_size`].
    pub fn forward(&self, x: &Tensor, timesteps: &[f32], context: &Tensor) -> Tensor {
        let conditions = Conditions {
            time: Condition::new(self.embed_time(timesteps).silu()),
            context: Condition::new(watch("context", context.clone())),
            recompute: self.recompute,
        };
        self.predict(x, &conditions)
    }

    /// The same model for many x at some of `timesteps`, all with one context `[B, S, D]`: what follows from these
    /// alone is computed once.
    pub fn run(&self, timesteps: &[f32], context: &Tensor) -> UnetRun<'_> {
        UnetRun {
            unet: self,
            timesteps: timesteps.to_vec(),
            time: Condition::kept(self.embed_time(timesteps).silu()),
            context: Condition::kept(context.clone()),
        }
    }

    /// The predictions for several x of one size, each with conditions of its own, in one batch.
    pub(crate) fn answer(&self, questions: &[Question]) -> Vec<Tensor> {
        if let [Question { x, conditions }] = questions {
            return vec![self.predict(x, conditions)];
        }
        let x: Vec<&Tensor> = questions.iter().map(|question| &question.x).collect();
        let conditions = Conditions {
            time: Condition::joined(questions.iter().map(|q| &q.conditions.time)),
            context: Condition::joined(questions.iter().map(|q| &q.conditions.context)),
            recompute: false,
        };
        let output = self.predict(&Tensor::concat_batch(&x), &conditions);
        let mut start = 0;
        x.iter()
            .map(|x| {
                start += x.dim(0);
                output.narrow_batch(start - x.dim(0), x.dim(0))
            })
            .collect()
    }

    fn predict(&self, x: &Tensor, conditions: &Conditions) -> Tensor {
        let mut x = self.conv_in.forward(&watch("sample", x.clone()));
        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(&x, conditions, &mut skips);
        }
        x = self.mid_block.forward(&x, conditions);
        for block in &self.up_blocks {
            x = block.forward(&x, conditions, &mut skips);
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x))
    }

    /// `[B, T]`
    fn embed_time(&self, timesteps: &[f32]) -> Tensor {
        let UnetConfig {
            flip_sin_to_cos,
            freq_shift,
            ..
        } = self.config;
        let width = self.config.block_out_channels[0];
        self.time_embedding.forward(&timestep_features(
            timesteps,
            width,
            flip_sin_to_cos,
            freq_shift,
        ))
    }
}

/// What the UNet is asked: x `[B, h, w, C]`, and what it is told of these samples.
#[derive(Clone)]
pub(crate) struct Question {
    pub x: Tensor,
    pub conditions: Conditions,
}

/// A [`Unet`] while a picture is painted: [`Unet::run`].
pub struct UnetRun<'a> {
    unet: &'a Unet,
    timesteps: Vec<f32>,
    time: Condition,
    context: Condition,
}

impl UnetRun<'_> {
    /// x `[B, h, w, C]` at timestep `t`: the prediction `[B, h, w, C']`, as [`Unet::forward`] gives it for B times `t`
    /// and the run's context.
    ///
    /// # Panics
    /// When the run does not visit `t`, or x has not as many samples as the context.
    pub fn forward(&self, x: &Tensor, t: f32) -> Tensor {
        let Question { x, conditions } = self.question(x, t);
        self.unet.predict(&x, &conditions)
    }

    /// The question that [`UnetRun::forward`] answers, for [`Unet::answer`].
    pub(crate) fn question(&self, x: &Tensor, t: f32) -> Question {
        let Some(step) = self.timesteps.iter().position(|&other| other == t) else {
            panic!("timestep {t} in a run over {:?}", self.timesteps);
        };
        Question {
            x: x.clone(),
            conditions: Conditions {
                time: self.time.repeated(step, x.dim(0)),
                context: self.context.clone(),
                recompute: false,
            },
        }
    }

    /// As [`UnetRun::forward`], computing everything anew: for the search of a number that is none.
    ///
    /// # Panics
    /// As there, the timestep aside.
    pub fn forward_anew(&self, x: &Tensor, t: f32) -> Tensor {
        let timesteps = vec![t; x.dim(0)];
        self.unet.forward(x, &timesteps, self.context.value())
    }
}
