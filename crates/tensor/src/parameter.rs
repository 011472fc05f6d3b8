//! A named value of a model: what training changes and what a checkpoint stores.

use crate::Tensor;
use crate::tape::{NodeRef, is_learning, next_id};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

/// A named tensor of a model. Cloning shares it.
#[derive(Clone)]
pub struct Parameter(Arc<Inner>);

struct Inner {
    name: String,
    shape: Vec<usize>,
    id: u64,
    trainable: bool,
    value: RwLock<Tensor>,
    version: AtomicU64,
}

impl Parameter {
    /// A parameter that gets gradients.
    pub fn new(name: impl Into<String>, value: Tensor) -> Self {
        Self::with(name.into(), value, true)
    }

    /// A parameter that stays as it is.
    pub fn frozen(name: impl Into<String>, value: Tensor) -> Self {
        Self::with(name.into(), value, false)
    }

    fn with(name: String, value: Tensor, trainable: bool) -> Self {
        Parameter(Arc::new(Inner {
            name,
            shape: value.shape().to_vec(),
            id: next_id(),
            trainable,
            value: RwLock::new(value.detach()),
            version: AtomicU64::new(0),
        }))
    }

    /// The path in the checkpoint, such as `mid_block.resnets.0.conv1.weight`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    pub fn is_trainable(&self) -> bool {
        self.0.trainable
    }

    /// The value; on the tape if the parameter is trainable and not held by [`frozen`](crate::tape::frozen).
    pub fn value(&self) -> Tensor {
        let value = self.0.value.read().unwrap_or_else(PoisonError::into_inner);
        let mut value = value.clone();
        if self.0.trainable && is_learning() {
            value.set_node(NodeRef::leaf(self.0.id));
        }
        value
    }

    /// Replaces the value.
    ///
    /// # Panics
    /// When the shape differs.
    pub fn set(&self, value: Tensor) {
        assert_eq!(value.shape(), self.shape(), "new value for {}", self.name());
        *self.write() = value.detach();
    }

    /// Changes the value in place, as an optimiser does.
    pub fn update(&self, change: impl FnOnce(&mut [f32])) {
        change(self.write().make_mut());
    }

    /// The value for changing. The version rises before, so that who has seen the new one waits for the new value.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Tensor> {
        let value = self.0.value.write().unwrap_or_else(PoisonError::into_inner);
        self.0.version.fetch_add(1, Ordering::Release);
        value
    }

    /// The key under which [`Gradients`](crate::Gradients) keeps this parameter's gradient.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Counts the changes, so that a packed copy knows when it is stale.
    pub(crate) fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parameter({} {:?})", self.name(), self.shape())
    }
}
