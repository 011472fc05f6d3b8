//! The tape: which operation made a tensor from which others, and how gradients flow back.
//!
//! An operation whose inputs reach a trainable [`Parameter`](crate::Parameter) leaves a node that
//! holds its backward function. [`Tensor::backward`] visits the nodes from the newest to the oldest,
//! so each has its whole gradient when its turn comes, and frees what each one kept as it goes.
//! [`recompute`] trades time for memory: it keeps a block's inputs only and runs the block again.

use crate::Tensor;
use crate::parameter::Parameter;
use std::cell::Cell;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::LocalKey;

type Backward = Box<dyn FnOnce(&Tensor, &mut Gradients) + Send>;

/// Nodes are numbered in the order they are made, so a node's inputs always have lower numbers.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

pub(crate) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

pub(crate) struct Node {
    id: u64,
    inputs: Vec<Arc<Node>>,
    /// None for a leaf; taken when the gradient has passed.
    backward: Mutex<Option<Backward>>,
}

/// A tensor's place on the tape, or none.
#[derive(Clone, Default)]
pub(crate) struct NodeRef(Option<Arc<Node>>);

impl NodeRef {
    /// A leaf: gradients for it are kept under `id`.
    pub fn leaf(id: u64) -> Self {
        NodeRef(Some(Arc::new(Node {
            id,
            inputs: Vec::new(),
            backward: Mutex::new(None),
        })))
    }
}

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
    static LEARNING: Cell<bool> = const { Cell::new(true) };
}

/// Runs `f` with `switch` set to `on`, and back afterwards, also when `f` panics.
fn with<T>(switch: &'static LocalKey<Cell<bool>>, on: bool, f: impl FnOnce() -> T) -> T {
    struct Restore(&'static LocalKey<Cell<bool>>, bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    let _restore = Restore(switch, switch.replace(on));
    f()
}

fn with_recording<T>(on: bool, f: impl FnOnce() -> T) -> T {
    with(&RECORDING, on, f)
}

/// Runs `f` with all parameters held: gradients pass through what it computes with them to its inputs, and none are
/// computed for the parameters (PyTorch's `requires_grad_(False)`).
pub fn frozen<T>(f: impl FnOnce() -> T) -> T {
    with(&LEARNING, false, f)
}

/// Whether parameters get gradients.
pub(crate) fn is_learning() -> bool {
    LEARNING.get()
}

/// Runs `f` without recording: its results carry no gradient.
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    with_recording(false, f)
}

/// Runs `f` on `inputs` without keeping what happens inside it, and runs it once more when the
/// gradient comes by (activation checkpointing, Chen et al. 2016, arXiv:1604.06174).
///
/// `f` must give the same result both times. Parameters that it uses get their gradients as usual.
pub fn recompute(inputs: &[&Tensor], f: impl Fn(&[Tensor]) -> Tensor + Send + 'static) -> Tensor {
    let kept: Vec<Tensor> = inputs.iter().map(|x| x.detach()).collect();
    let mut out = no_grad(|| f(&kept));
    if !RECORDING.get() {
        return out;
    }
    let nodes: Vec<NodeRef> = inputs.iter().map(|x| x.node().clone()).collect();
    out.record_always(inputs, move |dy, gradients| {
        let ids: Vec<u64> = kept.iter().map(|_| next_id()).collect();
        let leaves: Vec<Tensor> = kept
            .iter()
            .zip(&ids)
            .map(|(x, &id)| {
                let mut leaf = x.detach();
                leaf.set_node(NodeRef::leaf(id));
                leaf
            })
            .collect();
        drop(kept);
        let again = with_recording(true, || f(&leaves));
        drop(leaves);
        flow(&again, dy.clone(), gradients);
        for (node, id) in nodes.iter().zip(ids) {
            if let Some(dx) = gradients.by_id.remove(&id) {
                gradients.add(node, || dx);
            }
        }
    });
    out
}

/// The gradients of a scalar with respect to the parameters it was made from.
#[derive(Default)]
pub struct Gradients {
    by_id: HashMap<u64, Tensor>,
}

impl Gradients {
    /// The gradient for `parameter`, in its shape; none if the loss does not depend on it.
    pub fn get(&self, parameter: &Parameter) -> Option<&Tensor> {
        self.by_id.get(&parameter.id())
    }

    /// Takes the gradient for `parameter` out.
    pub fn take(&mut self, parameter: &Parameter) -> Option<Tensor> {
        self.by_id.remove(&parameter.id())
    }

    /// Adds another batch's gradients to these (gradient accumulation).
    pub fn merge(&mut self, other: Gradients) {
        for (id, gradient) in other.by_id {
            self.add_by_id(id, gradient);
        }
    }

    /// Adds what `gradient` makes to the gradient of `node`; does nothing for a tensor off the tape.
    pub(crate) fn add(&mut self, node: &NodeRef, gradient: impl FnOnce() -> Tensor) {
        if let Some(node) = &node.0 {
            self.add_by_id(node.id, gradient());
        }
    }

    /// The sum of the gradients of `node` that there are yet.
    pub(crate) fn so_far(&self, node: &NodeRef) -> Option<&Tensor> {
        self.by_id.get(&node.0.as_ref()?.id)
    }

    /// As [`Gradients::add`], for an operation that can add its gradient to what there is on the way: `gradient` gets the
    /// sum so far, if any, and makes the new one.
    pub(crate) fn add_onto(
        &mut self,
        node: &NodeRef,
        gradient: impl FnOnce(Option<&Tensor>) -> Tensor,
    ) {
        if let Some(node) = &node.0 {
            let before = self.by_id.remove(&node.id);
            let sum = gradient(before.as_ref());
            if let Some(before) = before {
                assert_eq!(sum.shape(), before.shape(), "gradients of two shapes");
            }
            self.by_id.insert(node.id, sum);
        }
    }

    fn add_by_id(&mut self, id: u64, gradient: Tensor) {
        match self.by_id.get_mut(&id) {
            Some(sum) => {
                assert_eq!(sum.shape(), gradient.shape(), "gradients of two shapes");
                sum.accumulate(&gradient);
            }
            None => {
                self.by_id.insert(id, gradient);
            }
        }
    }
}

impl Tensor {
    /// The gradients of this scalar with respect to every trainable parameter it depends on.
    /// What the tape kept for it is freed on the way, so this works once per forward pass.
    ///
    /// # Panics
    /// When the tensor has more than one element.
    pub fn backward(&self) -> Gradients {
        assert_eq!(
            self.len(),
            1,
            "backward() of a tensor of shape {:?}",
            self.shape()
        );
        let mut gradients = Gradients::default();
        flow(self, Tensor::full(self.shape(), 1.0), &mut gradients);
        gradients
    }

    /// Notes that `self` came from `inputs`, if any of them is on the tape and recording is on.
    /// `backward` gets the gradient of `self` and adds those of the inputs.
    pub(crate) fn record(
        &mut self,
        inputs: &[&Tensor],
        backward: impl FnOnce(&Tensor, &mut Gradients) + Send + 'static,
    ) {
        if RECORDING.get() && inputs.iter().any(|x| x.node().0.is_some()) {
            self.record_always(inputs, backward);
        }
    }

    /// As [`Tensor::record`], for an operation whose closure may hide parameters.
    fn record_always(
        &mut self,
        inputs: &[&Tensor],
        backward: impl FnOnce(&Tensor, &mut Gradients) + Send + 'static,
    ) {
        self.set_node(NodeRef(Some(Arc::new(Node {
            id: next_id(),
            inputs: inputs.iter().filter_map(|x| x.node().0.clone()).collect(),
            backward: Mutex::new(Some(Box::new(backward))),
        }))));
    }
}

/// Whether an operation on `inputs` would be recorded: attention and norms keep extra statistics
/// for their backward pass only then.
pub(crate) fn is_recording(inputs: &[&Tensor]) -> bool {
    RECORDING.get() && inputs.iter().any(|x| x.node().0.is_some())
}

struct Newest(Arc<Node>);

impl PartialEq for Newest {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}
impl Eq for Newest {}
impl PartialOrd for Newest {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Newest {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

/// Lets the gradient `seed` of `root` flow back into `gradients`.
fn flow(root: &Tensor, seed: Tensor, gradients: &mut Gradients) {
    let Some(root) = &root.node().0 else { return };
    gradients.add_by_id(root.id, seed);
    let mut waiting = BinaryHeap::from([Newest(root.clone())]);
    let mut seen = HashSet::from([root.id]);
    while let Some(Newest(node)) = waiting.pop() {
        let backward = node
            .backward
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // A leaf keeps its gradient: that is the result.
        let Some(backward) = backward else { continue };
        if let Some(dy) = gradients.by_id.remove(&node.id) {
            no_grad(|| backward(&dy, gradients));
        }
        for input in &node.inputs {
            if seen.insert(input.id) {
                waiting.push(Newest(input.clone()));
            }
        }
    }
}
