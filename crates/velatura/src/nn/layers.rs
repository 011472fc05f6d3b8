//! The elementary layers. Without a checkpoint they begin as PyTorch's of the same names do.

use std::sync::Arc;

use velatura_tensor::{
    BandedConv, Before, Padding, Parameter, Precision, Residual, Tensor, Weight,
};

use super::{Adapter, watch};
use crate::Result;
use crate::weights::{Init, Weights};

/// x `[…, I]` → `[…, O]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Parameter>,
    adapter: Option<Adapter>,
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

    /// Of values and, in the second half of its outputs, their gates: for [`Linear::forward_geglu`] alone.
    pub fn gated(w: &Weights, inputs: usize, outputs: usize) -> Result<Self> {
        let init = Init::torch(inputs);
        Ok(Linear {
            weight: w.gated_weight("weight", [outputs, inputs], init)?,
            bias: Some(w.parameter("bias", &[outputs], init)?),
            adapter: w.adapter(&[outputs, inputs]),
            path: w.path().into(),
        })
    }

    /// Where its weights stand in the checkpoint.
    pub fn path(&self) -> &Arc<str> {
        &self.path
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
            weight: w.weight("weight", [outputs, inputs], weight)?,
            bias: bias
                .map(|init| w.parameter("bias", &[outputs], init))
                .transpose()?,
            adapter: w.adapter(&[outputs, inputs]),
            path: w.path().into(),
        })
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        let y = x.linear(&self.weight, self.bias.as_ref());
        watch(&self.path, adapted(y, x, self.adapter.as_ref()))
    }

    /// The result, plus `residual`.
    pub fn forward_onto(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        if self.adapter.is_some() {
            return residual.add(&self.forward(x));
        }
        let y = x.linear_onto(&self.weight, self.bias.as_ref(), residual);
        watch(&self.path, y)
    }

    /// `value · gelu(gate)` of a layer that gives both: half as many channels.
    pub fn forward_geglu(&self, x: &Tensor) -> Tensor {
        if self.adapter.is_some() {
            return self.forward(x).geglu();
        }
        watch(&self.path, x.linear_geglu(&self.weight, self.bias.as_ref()))
    }
}

/// y, plus what the adapter makes of x where there is one.
fn adapted(y: Tensor, x: &Tensor, adapter: Option<&Adapter>) -> Tensor {
    match adapter {
        Some(adapter) => y.add(&adapter.forward(x)),
        None => y,
    }
}

/// x `[B, H, W, I]` → `[B, H', W', O]`.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Weight,
    bias: Parameter,
    /// Of a kernel of 1×1 only, which is a product like a linear layer's.
    adapter: Option<Adapter>,
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
            weight: w.conv_weight(
                "weight",
                [outputs, inputs, kernel, kernel],
                stride,
                padding,
                init,
            )?,
            bias: w.parameter("bias", &[outputs], init)?,
            adapter: (kernel == 1 && stride == 1)
                .then(|| w.adapter(&[outputs, inputs, 1, 1]))
                .flatten(),
            stride,
            padding,
            path: w.path().into(),
        })
    }

    /// Its kernel.
    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        let y = x.conv2d(&self.weight, Some(&self.bias), self.stride, self.padding);
        watch(&self.path, adapted(y, x, self.adapter.as_ref()))
    }
}

/// A convolution of 1×1, which is a product like a linear layer's.
impl Conv2d {
    /// The result, plus `residual`.
    pub fn forward_onto(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        if self.adapter.is_some() || self.weight.parameter().is_some() {
            return residual.add(&self.forward(x));
        }
        let y = x.linear_onto(&self.weight, Some(&self.bias), residual);
        watch(&self.path, y)
    }
}

/// A 3×3 convolution with what stands before and behind it: a large picture then needs no memory for what is
/// between them (see [`BandedConv`]).
impl Conv2d {
    /// What this convolution of 1×1 makes of x, to be added to what another one makes.
    pub fn residual(&self, x: &Tensor) -> Residual<'_> {
        match self.adapter {
            Some(_) => Residual {
                x: self.forward(x),
                projection: None,
            },
            None => Residual {
                x: x.clone(),
                projection: Some((&self.weight, &self.bias)),
            },
        }
    }

    /// x `[B, H, W, I]`, normalised, through SiLU, convolved, plus `residual`.
    pub fn forward_normed(
        &self,
        norm: &GroupNorm,
        x: Tensor,
        residual: Option<Residual>,
    ) -> Tensor {
        let before = Before::NormSilu {
            groups: norm.groups,
            eps: norm.eps,
            gamma: &norm.weight,
            beta: &norm.bias,
        };
        self.forward_banded(before, x, residual)
    }

    /// x `[B, H, W, I]`, each place four times, convolved: `[B, 2H, 2W, O]`.
    pub fn forward_upsampled(&self, x: Tensor) -> Tensor {
        self.forward_banded(Before::Upsample, x, None)
    }

    fn forward_banded(&self, before: Before, x: Tensor, residual: Option<Residual>) -> Tensor {
        let (weight, bias) = (&self.weight, &self.bias);
        let conv = BandedConv {
            before,
            weight,
            bias,
            residual,
        };
        watch(&self.path, conv.forward(x))
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

/// A table `[V, D]` of vectors, and rows that were learnt beside it.
#[derive(Clone, Debug)]
pub struct Embedding {
    table: Parameter,
    /// Each with the id of its first row.
    learned: Vec<(u32, Parameter)>,
    path: Arc<str>,
}

impl Embedding {
    /// A fresh table is normal with deviation `std`.
    pub fn load(w: &Weights, rows: usize, width: usize, std: f32) -> Result<Self> {
        Ok(Embedding {
            table: w.parameter("weight", &[rows, width], Init::Normal(std))?,
            learned: Vec::new(),
            path: w.path().into(),
        })
    }

    /// The table itself, `[V, D]`.
    pub fn table(&self) -> Tensor {
        self.table.value()
    }

    /// From now on the ids from `first` on mean the `rows` `[n, D]`.
    pub fn learn(&mut self, first: u32, rows: Parameter) {
        self.learned.push((first, rows));
    }

    /// Whether there is a row for `id`.
    pub fn has(&self, id: u32) -> bool {
        (id as usize) < self.table.shape()[0] || self.source(id).0.is_some()
    }

    /// The rows `ids`, as `shape` + `[D]`.
    pub fn forward(&self, ids: &[u32], shape: &[usize]) -> Tensor {
        let rows = if self.learned.is_empty() {
            self.table.embedding(ids, shape)
        } else {
            self.mixed(ids, shape)
        };
        watch(&self.path, rows)
    }

    /// Which of the learned rows `id` belongs to, and its place there or in the table.
    fn source(&self, id: u32) -> (Option<usize>, u32) {
        let found = self.learned.iter().position(|(first, rows)| {
            id.checked_sub(*first)
                .is_some_and(|place| (place as usize) < rows.shape()[0])
        });
        match found {
            Some(index) => (found, id - self.learned[index].0),
            None => (None, id),
        }
    }

    /// Run by run from table and learned rows, put together again.
    fn mixed(&self, ids: &[u32], shape: &[usize]) -> Tensor {
        let sources: Vec<_> = ids.iter().map(|&id| self.source(id)).collect();
        let runs = sources.chunk_by(|(a, _), (b, _)| a == b);
        let pieces: Vec<Tensor> = runs
            .map(|run| {
                let table = run[0].0.map_or(&self.table, |index| &self.learned[index].1);
                let places: Vec<u32> = run.iter().map(|&(_, place)| place).collect();
                table.embedding(&places, &[places.len()])
            })
            .collect();
        let whole = Tensor::concat_batch(&pieces.iter().collect::<Vec<_>>());
        whole.reshape(&[shape, &[self.table.shape()[1]]].concat())
    }
}
