//! The linear layer and the embedding table.

use std::cell::Cell;

use super::on_gpu;
use crate::weight::Packed;
use crate::{Gpu, Parameter, Tensor, Weight, device};
use velatura_gpu::layout;
use velatura_kernels::elementwise::sum_rows;
use velatura_kernels::gemm::{
    Epilogue, PackedMatrix, matmul_geglu, matmul_packed, weight_gradient,
};
use velatura_kernels::{isa, profile};

impl Tensor {
    /// x `[…, I]` · Wᵀ + bias with W `[O, I]` (or `[O, I, 1, 1]`): `[…, O]`.
    ///
    /// # Panics
    /// When x has not I channels.
    pub fn linear(&self, weight: &Weight, bias: Option<&Parameter>) -> Tensor {
        self.linear_added(weight, bias, None)
    }

    /// `residual + x.linear(weight, bias)`, in one pass.
    ///
    /// # Panics
    /// When x has not I channels, or the residual another shape than the result.
    pub fn linear_onto(
        &self,
        weight: &Weight,
        bias: Option<&Parameter>,
        residual: &Tensor,
    ) -> Tensor {
        self.linear_added(weight, bias, Some(residual))
    }

    pub(super) fn linear_added(
        &self,
        weight: &Weight,
        bias: Option<&Parameter>,
        residual: Option<&Tensor>,
    ) -> Tensor {
        let (outputs, inputs) = (weight.shape()[0], weight.shape()[1]);
        let rows = self.len() / inputs;
        let mut out = self.product(weight, bias, residual);
        let bias = bias.map(Parameter::value);
        let w = weight.parameter().map(Parameter::value);
        let on_tape: Vec<&Tensor> = [Some(self), w.as_ref(), bias.as_ref(), residual]
            .into_iter()
            .flatten()
            .collect();
        let x = self.clone();
        let w_node = w.as_ref().map(|w| w.node().clone()).unwrap_or_default();
        let bias_node = bias.as_ref().map(|b| b.node().clone()).unwrap_or_default();
        let residual_node = residual.map(|r| r.node().clone()).unwrap_or_default();
        let weight = weight.clone();
        out.record(&on_tape, move |dy, gradients| {
            let pointwise = on_gpu::pointwise([rows, inputs, outputs]);
            gradients.add_onto(x.node(), |before| {
                let on_gpu =
                    |on: &Gpu| on_gpu::conv_backward_input(on, &pointwise, dy, &weight, before);
                Tensor::computed(x.shape(), on_gpu, |dx| {
                    let packed = weight.for_input_gradient(None);
                    let epilogue = Epilogue {
                        residual: before.map(Tensor::as_slice),
                        ..Epilogue::default()
                    };
                    matmul_packed(rows, dy.as_slice(), as_matrix(&packed), dx, &epilogue);
                })
            });
            let bias_sums = Cell::new(None);
            gradients.add(&w_node, || {
                // The input's gradient is a product like the forward one, which notes itself.
                let _note = profile::note(|| {
                    (
                        format!("product weight gradient {rows}×{inputs}×{outputs}"),
                        weight.precision().algorithm(isa::active()),
                        2.0 * rows as f64 * (inputs * outputs) as f64,
                    )
                });
                let precision = weight.precision();
                let on_gpu = |on: &Gpu| {
                    let (dw, sums) =
                        on_gpu::conv_backward_weight(on, &pointwise, [&x, dy], precision);
                    bias_sums.set(sums);
                    dw
                };
                Tensor::computed(weight.shape(), on_gpu, |dw| {
                    let (dy, x) = (dy.as_slice(), x.as_slice());
                    let mut db = vec![0.0; outputs];
                    let shape = (rows, outputs, inputs);
                    weight_gradient(shape, dy, x, dw, Some(&mut db), weight.precision());
                    bias_sums.set(Some(Tensor::from_vec(db, &[outputs])));
                })
            });
            gradients.add(&bias_node, || bias_gradient(dy, outputs, bias_sums.take()));
            gradients.add(&residual_node, || dy.clone());
        });
        out
    }

    /// `x.linear(weight, bias).geglu()`, in one go where the weight was [packed so](Weight::packed_gated): the values and
    /// gates, twice as many as the result, are then never in memory.
    ///
    /// # Panics
    /// When x has not I channels.
    pub fn linear_geglu(&self, weight: &Weight, bias: Option<&Parameter>) -> Tensor {
        if weight.parameter().is_some() || device::current().is_some() {
            return self.linear(weight, bias).geglu();
        }
        let packed = weight.forward(None);
        let matrix = as_matrix(&packed);
        if !matrix.is_gated() {
            return self.linear(weight, bias).geglu();
        }
        let bias = bias.map(|bias| matrix.gated_bias(bias.value().as_slice()));
        let (rows, shape) = self.product_shape(weight, weight.shape()[0] / 2);
        Tensor::output(&shape, |out| {
            matmul_geglu(rows, self.as_slice(), matrix, bias.as_deref(), out)
        })
    }

    /// x · Wᵀ + bias + residual, off the tape.
    fn product(
        &self,
        weight: &Weight,
        bias: Option<&Parameter>,
        residual: Option<&Tensor>,
    ) -> Tensor {
        let (rows, shape) = self.product_shape(weight, weight.shape()[0]);
        if let Some(residual) = residual {
            assert_eq!(residual.shape(), shape, "a residual of {shape:?}");
        }
        let bias = bias.map(Parameter::value);
        let pointwise = on_gpu::pointwise([rows, weight.shape()[1], weight.shape()[0]]);
        let on_gpu =
            |on: &Gpu| on_gpu::conv(on, &pointwise, self, weight, [bias.as_ref(), residual]);
        Tensor::computed(&shape, on_gpu, |out| {
            let packed = weight.forward(None);
            let epilogue = Epilogue {
                bias: bias.as_ref().map(Tensor::as_slice),
                residual: residual.map(Tensor::as_slice),
            };
            matmul_packed(rows, self.as_slice(), as_matrix(&packed), out, &epilogue);
        })
    }

    /// Rows of x as a matrix, and the shape of a product of `outputs` channels with it.
    fn product_shape(&self, weight: &Weight, outputs: usize) -> (usize, Vec<usize>) {
        let inputs = weight.shape()[1];
        assert_eq!(
            self.channels(),
            inputs,
            "linear {weight:?} of {:?}",
            self.shape()
        );
        let mut shape = self.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        (self.len() / inputs, shape)
    }
}

/// The gradient of a bias: the sum of dy over all rows, if the weight's gradient has not made it on the way.
pub(super) fn bias_gradient(dy: &Tensor, channels: usize, sums: Option<Tensor>) -> Tensor {
    if let Some(sums) = sums {
        return sums;
    }
    let rows = dy.len() / channels;
    Tensor::computed(
        &[channels],
        |on| velatura_gpu::elementwise::sum_rows(dy.memory(on), rows, channels),
        |out| sum_rows(rows, channels, dy.as_slice(), out),
    )
}

fn as_matrix(packed: &Packed) -> &PackedMatrix {
    match packed {
        Packed::Matrix(matrix) => matrix,
        Packed::Conv(_) => panic!("a convolution's weight given to a linear layer"),
    }
}

impl Parameter {
    /// Rows `ids` of this table `[V, D]`, as a tensor of shape `shape` + `[D]`.
    ///
    /// # Panics
    /// When an id is not below V, or the number of ids is not the product of `shape`.
    pub fn embedding(&self, ids: &[u32], shape: &[usize]) -> Tensor {
        let (rows, width) = (self.shape()[0], self.shape()[1]);
        let table = self.value();
        let mut full = shape.to_vec();
        full.push(width);
        assert_eq!(
            shape.iter().product::<usize>(),
            ids.len(),
            "{} ids for shape {shape:?}",
            ids.len()
        );
        if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
            panic!("id {id} in a table of {rows} rows ({})", self.name());
        }
        let on_gpu = |on: &Gpu| layout::take_rows(table.memory(on), ids, width);
        let mut out = Tensor::computed(&full, on_gpu, |out| {
            for (&id, out) in ids.iter().zip(out.chunks_exact_mut(width)) {
                out.copy_from_slice(&table.as_slice()[id as usize * width..][..width]);
            }
        });
        let (node, ids) = (table.node().clone(), ids.to_vec());
        out.record(&[&table], move |dy, gradients| {
            gradients.add(&node, || {
                let on_gpu =
                    |on: &Gpu| layout::take_rows_backward(dy.memory(on), &ids, [rows, width]);
                Tensor::computed(&[rows, width], on_gpu, |d_table| {
                    d_table.fill(0.0);
                    for (&id, dy) in ids.iter().zip(dy.as_slice().chunks_exact(width)) {
                        let row = &mut d_table[id as usize * width..][..width];
                        row.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
                    }
                })
            })
        });
        out
    }
}
