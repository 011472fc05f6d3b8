//! The elementary layers. Without a checkpoint they begin as PyTorch's of the same names do.

use std::sync::Arc;

use velatura_tensor::{Padding, Parameter, Precision, Tensor, Weight};

use super::watch;
use crate::Result;
use crate::weights::{Init, Weights};

/// x `[…, I]` → `[…, O]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Parameter>,
    path: Arc<str>,
}

impl Linear {
    /// With a bias.
    pub fn load(w: &Weights, inputs: usize, outputs: usize) -> Result<Self> {
        let init = Init::torch(inputs);
        Self::with(w, inputs, outputs, init, Some(init))
    }

    /// Without a bias.
    pub fn without_bias(w: &Weights, inputs: usize, outputs: usize) -> Result<Self> {
        Self::with(w, inputs, outputs, Init::torch(inputs), None)
    }

    /// With a bias; a fresh layer has normal weights of deviation `std` and biases of zero, as CLIP's have.
    pub fn normal(w: &Weights, inputs: usize, outputs: usize, std: f32) -> Result<Self> {
        Self::with(w, inputs, outputs, Init::Normal(std), Some(Init::Zeros))
    }

    /// The number format of its products.
    pub fn precision(&self) -> Precision {
        self.weight.precision()
    }

    fn with(
        w: &Weights,
        inputs: usize,
        outputs: usize,
        weight: Init,
        bias: Option<Init>,
    ) -> Result<Self> {
        Ok(Linear {
            weight: w.weight("weight", &[outputs, inputs], weight)?,
            bias: bias
                .map(|init| w.parameter("bias", &[outputs], init))
                .transpose()?,
            path: w.path().into(),
        })
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        watch(&self.path, x.linear(&self.weight, self.bias.as_ref()))
    }
}

/// x `[B, H, W, I]` → `[B, H', W', O]`.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Weight,
    bias: Parameter,
    stride: usize,
    padding: Padding,
    path: Arc<str>,
}

impl Conv2d {
    /// A square kernel of odd size that keeps height and width.
    pub fn load(w: &Weights, inputs: usize, outputs: usize, kernel: usize) -> Result<Self> {
        Self::strided(w, inputs, outputs, kernel, 1, Padding::uniform(kernel / 2))
    }

    /// Any stride and padding.
    pub fn strided(
        w: &Weights,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: Padding,
    ) -> Result<Self> {
        let init = Init::torch(inputs * kernel * kernel);
        Ok(Conv2d {
            weight: w.weight("weight", &[outputs, inputs, kernel, kernel], init)?,
            bias: w.parameter("bias", &[outputs], init)?,
            stride,
            padding,
            path: w.path().into(),
        })
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        watch(
            &self.path,
            x.conv2d(&self.weight, Some(&self.bias), self.stride, self.padding),
        )
    }
}

/// Group normalisation over x `[B, …, C]`.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    groups: usize,
    eps: f32,
    weight: Parameter,
    bias: Parameter,
    path: Arc<str>,
}

impl GroupNorm {
    /// `groups` has to divide `channels`; the configs see to that.
    pub fn load(w: &Weights, groups: usize, channels: usize, eps: f32) -> Result<Self> {
        Ok(GroupNorm {
            groups,
            eps,
            weight: w.parameter("weight", &[channels], Init::Ones)?,
            bias: w.parameter("bias", &[channels], Init::Zeros)?,
            path: w.path().into(),
        })
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        watch(
            &self.path,
            x.group_norm(self.groups, self.eps, &self.weight, &self.bias),
        )
    }

    /// Followed by SiLU, in one pass.
    pub fn forward_silu(&self, x: &Tensor) -> Tensor {
        watch(
            &self.path,
            x.group_norm_silu(self.groups, self.eps, &self.weight, &self.bias),
        )
    }
}

/// Layer normalisation over the last axis of x `[…, C]`.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    eps: f32,
    weight: Parameter,
    bias: Parameter,
    path: Arc<str>,
}

impl LayerNorm {
    pub fn load(w: &Weights, channels: usize, eps: f32) -> Result<Self> {
        Ok(LayerNorm {
            eps,
            weight: w.parameter("weight", &[channels], Init::Ones)?,
            bias: w.parameter("bias", &[channels], Init::Zeros)?,
            path: w.path().into(),
        })
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        watch(&self.path, x.layer_norm(self.eps, &self.weight, &self.bias))
    }
}

/// A table `[V, D]` of vectors.
#[derive(Clone, Debug)]
pub struct Embedding {
    table: Parameter,
    path: Arc<str>,
}

impl Embedding {
    /// A fresh table is normal with deviation `std`.
    pub fn load(w: &Weights, rows: usize, width: usize, std: f32) -> Result<Self> {
        Ok(Embedding {
            table: w.parameter("weight", &[rows, width], Init::Normal(std))?,
            path: w.path().into(),
        })
    }

    /// The rows `ids`, as `shape` + `[D]`.
    pub fn forward(&self, ids: &[u32], shape: &[usize]) -> Tensor {
        watch(&self.path, self.table.embedding(ids, shape))
    }
}
