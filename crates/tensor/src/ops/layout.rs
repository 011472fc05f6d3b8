//! Joining, cutting and reordering.

use crate::Tensor;
use velatura_gpu::Gpu;
use velatura_gpu::layout::{self as gpu, Columns};
use velatura_kernels::pool;
use velatura_kernels::profile::{self, Note};

/// For profiles; bytes are what counts here.
fn note(what: &str, shape: &[usize]) -> Option<Note> {
    profile::note(|| (format!("{what} channels {shape:?}"), "copy".into(), 0.0))
}

/// Calls `task` with some rows of `width` numbers and the index of the first, on all threads.
fn by_rows(rows: &mut [f32], width: usize, task: impl Fn(usize, &mut [f32]) + Sync) {
    // As the kernels cut what moves bytes: 128 KiB.
    let block = ((32 << 10) / width.max(1)).max(1);
    pool::parallel_chunks_mut(rows, (block * width).max(1), |i, rows| {
        task(i * block, rows)
    });
}

impl Tensor {
    /// Tensors that differ in their last axis only, side by side along it.
    ///
    /// # Panics
    /// When there is none, or another axis differs.
    pub fn concat_channels(parts: &[&Tensor]) -> Tensor {
        let leading = &parts[0].shape()[..parts[0].shape().len() - 1];
        for part in parts {
            assert_eq!(&part.shape()[..leading.len()], leading, "concat_channels");
        }
        let widths: Vec<usize> = parts.iter().map(|x| x.channels()).collect();
        let total: usize = widths.iter().sum();
        let mut shape = leading.to_vec();
        shape.push(total);
        let rows = leading.iter().product::<usize>();
        let on_gpu = |on: &Gpu| {
            let mut out = on.allocate(rows * total);
            let mut start = 0;
            for (part, &width) in parts.iter().zip(&widths) {
                let into = Columns {
                    width: total,
                    start,
                };
                gpu::copy_columns(
                    [rows, width],
                    part.memory(on),
                    Columns { width, start: 0 },
                    &mut out,
                    into,
                );
                start += width;
            }
            out
        };
        let mut out = Tensor::computed(&shape, on_gpu, |out| {
            let _note = note("join", &shape);
            by_rows(out, total, |first, out| {
                let mut start = 0;
                for (part, &width) in parts.iter().zip(&widths) {
                    let from = part.as_slice()[first * width..].chunks_exact(width);
                    for (row, from) in out.chunks_exact_mut(total).zip(from) {
                        row[start..start + width].copy_from_slice(from);
                    }
                    start += width;
                }
            });
        });
        let nodes: Vec<_> = parts.iter().map(|x| x.node().clone()).collect();
        out.record(parts, move |dy, gradients| {
            let mut start = 0;
            for (node, width) in nodes.iter().zip(widths) {
                gradients.add(node, || dy.narrow_channels(start, width));
                start += width;
            }
        });
        out
    }

    /// Channels `start..start + len`.
    pub fn narrow_channels(&self, start: usize, len: usize) -> Tensor {
        let total = self.channels();
        assert!(
            start + len <= total,
            "channels {start}+{len} of {:?}",
            self.shape()
        );
        let mut shape = self.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = len;
        }
        let rows = self.len() / total.max(1);
        let (whole, part) = (
            Columns {
                width: total,
                start,
            },
            Columns {
                width: len,
                start: 0,
            },
        );
        let on_gpu = |on: &Gpu| {
            let mut out = on.allocate(rows * len);
            gpu::copy_columns([rows, len], self.memory(on), whole, &mut out, part);
            out
        };
        let mut out = Tensor::computed(&shape, on_gpu, |out| {
            let _note = note("cut", &shape);
            by_rows(out, len, |first, out| {
                let rows = self.as_slice()[first * total..].chunks_exact(total);
                for (row, out) in rows.zip(out.chunks_exact_mut(len)) {
                    out.copy_from_slice(&row[start..start + len]);
                }
            });
        });
        let (node, shape) = (self.node().clone(), self.shape().to_vec());
        out.record(&[self], move |dy, gradients| {
            gradients.add(&node, || {
                let on_gpu = |on: &Gpu| {
                    let mut dx = on.filled(rows * total, 0.0);
                    gpu::copy_columns([rows, len], dy.memory(on), part, &mut dx, whole);
                    dx
                };
                Tensor::computed(&shape, on_gpu, |dx| {
                    dx.fill(0.0);
                    let rows = dx.chunks_exact_mut(total);
                    for (row, dy) in rows.zip(dy.as_slice().chunks_exact(len)) {
                        row[start..start + len].copy_from_slice(dy);
                    }
                })
            })
        });
        out
    }

    /// Tensors that differ in their first axis only, one after the other along it.
    pub fn concat_batch(parts: &[&Tensor]) -> Tensor {
        let trailing = &parts[0].shape()[1..];
        for part in parts {
            assert_eq!(&part.shape()[1..], trailing, "concat_batch");
        }
        let counts: Vec<usize> = parts.iter().map(|x| x.dim(0)).collect();
        let mut shape = parts[0].shape().to_vec();
        shape[0] = counts.iter().sum();
        let on_gpu = |on: &Gpu| {
            let mut out = on.allocate(shape.iter().product());
            let mut start = 0;
            for part in parts {
                gpu::copy(part.len(), part.memory(on), 0, &mut out, start);
                start += part.len();
            }
            out
        };
        let mut out = Tensor::computed(&shape, on_gpu, |out| {
            let mut start = 0;
            for part in parts {
                out[start..start + part.len()].copy_from_slice(part.as_slice());
                start += part.len();
            }
        });
        let nodes: Vec<_> = parts.iter().map(|x| x.node().clone()).collect();
        out.record(parts, move |dy, gradients| {
            let mut start = 0;
            for (node, count) in nodes.iter().zip(counts) {
                gradients.add(node, || dy.narrow_batch(start, count));
                start += count;
            }
        });
        out
    }

    /// Samples `start..start + count` along the first axis.
    pub fn narrow_batch(&self, start: usize, count: usize) -> Tensor {
        let batch = self.dim(0);
        assert!(
            start + count <= batch,
            "samples {start}+{count} of {:?}",
            self.shape()
        );
        let sample = self.len() / batch.max(1);
        let mut shape = self.shape().to_vec();
        shape[0] = count;
        let on_gpu = |on: &Gpu| {
            let mut out = on.allocate(count * sample);
            gpu::copy(count * sample, self.memory(on), start * sample, &mut out, 0);
            out
        };
        let mut out = Tensor::computed(&shape, on_gpu, |out| {
            out.copy_from_slice(&self.as_slice()[start * sample..][..count * sample])
        });
        let (node, shape) = (self.node().clone(), self.shape().to_vec());
        out.record(&[self], move |dy, gradients| {
            gradients.add(&node, || {
                let on_gpu = |on: &Gpu| {
                    let mut dx = on.filled(batch * sample, 0.0);
                    gpu::copy(count * sample, dy.memory(on), 0, &mut dx, start * sample);
                    dx
                };
                Tensor::computed(&shape, on_gpu, |dx| {
                    dx.fill(0.0);
                    dx[start * sample..][..count * sample].copy_from_slice(dy.as_slice());
                })
            })
        });
        out
    }

    /// `[B, C, H, W]` → `[B, H, W, C]`: from the order of files and traces to ours.
    pub fn nchw_to_nhwc(&self) -> Tensor {
        let &[b, c, h, w] = self.shape() else {
            panic!("{:?} is not [B, C, H, W]", self.shape());
        };
        self.swap_axes(b, c, h * w, &[b, h, w, c])
    }

    /// `[B, H, W, C]` → `[B, C, H, W]`: from our order to that of files and traces.
    pub fn nhwc_to_nchw(&self) -> Tensor {
        let &[b, h, w, c] = self.shape() else {
            panic!("{:?} is not [B, H, W, C]", self.shape());
        };
        self.swap_axes(b, h * w, c, &[b, c, h, w])
    }

    /// Each sample's `rows × columns` matrix transposed.
    fn swap_axes(&self, batch: usize, rows: usize, columns: usize, shape: &[usize]) -> Tensor {
        let on_gpu = |on: &Gpu| gpu::swap_axes(self.memory(on), rows, columns);
        let mut out = Tensor::computed(shape, on_gpu, |out| {
            for b in 0..batch {
                let from = &self.as_slice()[b * rows * columns..][..rows * columns];
                let to = &mut out[b * rows * columns..][..rows * columns];
                for (r, row) in from.chunks_exact(columns.max(1)).enumerate() {
                    for (c, &value) in row.iter().enumerate() {
                        to[c * rows + r] = value;
                    }
                }
            }
        });
        let (node, shape) = (self.node().clone(), self.shape().to_vec());
        out.record(&[self], move |dy, gradients| {
            gradients.add(&node, || dy.swap_axes(batch, columns, rows, &shape))
        });
        out
    }
}
