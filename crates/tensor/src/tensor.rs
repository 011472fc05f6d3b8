//! The tensor: a shape, shared immutable f32 storage, and its place on the tape if it has one.

use crate::buffer::{self, Buffer};
use crate::device;
use crate::storage::Storage;
use crate::tape::NodeRef;
use std::fmt;
use std::sync::Arc;
use velatura_gpu::{Gpu, Memory, elementwise as gpu};
use velatura_kernels::elementwise;

/// An immutable, contiguous array of f32. Cloning shares the storage.
///
/// Activations are channels last: an image or feature map is `[B, H, W, C]`, a sequence `[B, S, C]`.
#[derive(Clone)]
pub struct Tensor {
    shape: Arc<[usize]>,
    data: Arc<Storage>,
    node: NodeRef,
}

impl Tensor {
    /// A tensor of `values` in row-major order.
    ///
    /// # Panics
    /// When the number of values is not the product of `shape`.
    pub fn from_vec(values: Vec<f32>, shape: &[usize]) -> Self {
        assert_eq!(
            values.len(),
            shape.iter().product::<usize>(),
            "{} values for shape {shape:?}",
            values.len()
        );
        Self::from_buffer(values.into(), shape)
    }

    /// All zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self::full(shape, 0.0)
    }

    /// All `value`.
    pub fn full(shape: &[usize], value: f32) -> Self {
        // What fits into a cache line or two is looked at by the processor soon.
        const SMALL: usize = 64;
        let len = shape.iter().product();
        match device::current() {
            Some(gpu) if len > SMALL => Self::from_memory(gpu.filled(len, value), shape),
            _ => Self::output(shape, |values| values.fill(value)),
        }
    }

    /// A tensor that `fill` writes whole: it must not read what it finds there.
    pub(crate) fn output(shape: &[usize], fill: impl FnOnce(&mut [f32])) -> Self {
        let mut data = Buffer::for_output(shape.iter().product());
        fill(&mut data);
        Self::from_buffer(data, shape)
    }

    pub(crate) fn from_buffer(data: Buffer, shape: &[usize]) -> Self {
        Self::from_storage(data.into(), shape)
    }

    pub(crate) fn from_memory(memory: Memory, shape: &[usize]) -> Self {
        Self::from_storage(memory.into(), shape)
    }

    fn from_storage(data: Storage, shape: &[usize]) -> Self {
        Tensor {
            shape: shape.into(),
            data: Arc::new(data),
            node: NodeRef::default(),
        }
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The size along axis `axis`.
    pub fn dim(&self, axis: usize) -> usize {
        self.shape[axis]
    }

    /// The size along the last axis (channels).
    pub fn channels(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in row-major order.
    pub fn as_slice(&self) -> &[f32] {
        self.data.host()
    }

    /// The values on a card.
    pub(crate) fn memory(&self, gpu: &Gpu) -> &Memory {
        self.data.device(gpu)
    }

    /// The values on a card, in bf16.
    pub(crate) fn rounded(&self, gpu: &Gpu) -> &Memory {
        self.data.rounded(gpu)
    }

    pub fn to_vec(&self) -> Vec<f32> {
        self.as_slice().to_vec()
    }

    /// The one value of a tensor with one element.
    ///
    /// # Panics
    /// When there is not exactly one.
    pub fn item(&self) -> f32 {
        assert_eq!(
            self.len(),
            1,
            "item() of a tensor of shape {:?}",
            self.shape
        );
        self.as_slice()[0]
    }

    /// Whether no value is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        elementwise::all_finite(self.as_slice())
    }

    /// The same values, off the tape: no gradient flows through.
    pub fn detach(&self) -> Self {
        Tensor {
            node: NodeRef::default(),
            ..self.clone()
        }
    }

    /// The same values under another shape; the gradient flows through.
    ///
    /// # Panics
    /// When the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Self {
        assert_eq!(
            self.len(),
            shape.iter().product::<usize>(),
            "reshape {:?} to {shape:?}",
            self.shape
        );
        let mut out = self.with_shape(shape);
        let (node, from) = (self.node.clone(), self.shape.clone());
        out.record(&[self], move |dy, gradients| {
            gradients.add(&node, || dy.with_shape(&from));
        });
        out
    }

    /// The same storage under another shape, off the tape.
    fn with_shape(&self, shape: &[usize]) -> Self {
        Tensor {
            shape: shape.into(),
            data: self.data.clone(),
            node: NodeRef::default(),
        }
    }

    /// This tensor's place on the tape.
    pub(crate) fn node(&self) -> &NodeRef {
        &self.node
    }

    pub(crate) fn set_node(&mut self, node: NodeRef) {
        self.node = node;
    }

    /// Whether nobody else holds the storage.
    pub(crate) fn is_unshared(&self) -> bool {
        Arc::strong_count(&self.data) == 1
    }

    /// Adds `other`, of the same shape: in place where nothing else shares the values.
    pub(crate) fn accumulate(&mut self, other: &Tensor) {
        if let Some(gpu) = device::current() {
            gpu::accumulate(self.memory_mut(&gpu), other.memory(&gpu));
            return;
        }
        match Arc::get_mut(&mut self.data) {
            Some(sum) => elementwise::axpy(1.0, other.as_slice(), sum.host_mut()),
            None => {
                let (a, b) = (self.as_slice(), other.as_slice());
                *self = Tensor::output(&self.shape, |sum| elementwise::add(a, b, sum));
            }
        }
    }

    /// The values for writing; copies them first when they are shared.
    pub(crate) fn make_mut(&mut self) -> &mut [f32] {
        if Arc::get_mut(&mut self.data).is_none() {
            let mut copy = Buffer::for_output(self.data.len());
            copy.copy_from_slice(self.as_slice());
            self.data = Arc::new(copy.into());
        }
        match Arc::get_mut(&mut self.data) {
            Some(storage) => storage.host_mut(),
            None => unreachable!("the storage was made unique above"),
        }
    }

    /// The values on a card for writing; copies them first when they are shared.
    pub(crate) fn memory_mut(&mut self, gpu: &Gpu) -> &mut Memory {
        if Arc::get_mut(&mut self.data).is_none() {
            self.data = Arc::new(self.memory(gpu).duplicate().into());
        }
        match Arc::get_mut(&mut self.data) {
            Some(storage) => storage.device_mut(gpu),
            None => unreachable!("the storage was made unique above"),
        }
    }

    /// Bytes in tensors now, all together; those with fewer than 4096 numbers are not counted.
    pub fn memory_in_use() -> usize {
        buffer::in_use()
    }

    /// Runs `f` and says how many bytes were in tensors at most meanwhile, counted as by
    /// [`Tensor::memory_in_use`].
    pub fn peak_memory_during<T>(f: impl FnOnce() -> T) -> (T, usize) {
        buffer::peak_during(f)
    }

    /// Gives memory that waits for reuse back to the system.
    pub fn release_idle_memory() {
        buffer::release_idle();
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.as_slice()[..self.len().min(8)];
        write!(f, "Tensor{:?} {shown:?}", self.shape)?;
        if self.len() > shown.len() {
            write!(f, "…")?;
        }
        Ok(())
    }
}
