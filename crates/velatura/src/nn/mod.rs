//! The layers that the models are made of. Each takes its weights from a cursor and remembers the
//! cursor's path, so that a number that is none can be traced to its layer.

mod adapter;
mod attention;
mod condition;
mod finite;
mod layers;
mod resnet;
mod time;

pub use adapter::{Adaptation, Adapter};
pub use attention::{Attention, AttentionSizes, FeedForward};
pub use condition::Condition;
pub use finite::{check_finite, watch};
pub use layers::{Conv2d, Embedding, GroupNorm, LayerNorm, Linear};
pub use resnet::{Downsample, ResnetBlock, ResnetSizes, Upsample};
pub use time::{TimestepEmbedding, timestep_features};
