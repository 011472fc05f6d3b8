//! Which machine computes: the processor, or a graphics card.

use std::cell::RefCell;
use std::str::FromStr;

use velatura_gpu::{Gpu, Memory};

use crate::Tensor;

thread_local! {
    static CURRENT: RefCell<Option<Gpu>> = const { RefCell::new(None) };
}

/// Runs `f` with this thread's operations on `gpu`.
///
/// Tensors may come from either side and go to either. Operations that a card has no kernel for are the processor's, and
/// the numbers go there and back; of those that a UNet, an autoencoder or a text encoder needs, trained or painting, there is
/// none.
pub fn on<T>(gpu: &Gpu, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<Gpu>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _restore = Restore(CURRENT.replace(Some(gpu.clone())));
    f()
}

/// The card of this thread's operations.
pub(crate) fn current() -> Option<Gpu> {
    CURRENT.with_borrow(Clone::clone)
}

impl Tensor {
    /// An operation's result, off the tape: `on_gpu` makes it on the card at hand; else `on_cpu` writes it whole.
    pub(crate) fn computed(
        shape: &[usize],
        on_gpu: impl FnOnce(&Gpu) -> Memory,
        on_cpu: impl FnOnce(&mut [f32]),
    ) -> Tensor {
        match current() {
            Some(gpu) => Tensor::from_memory(on_gpu(&gpu), shape),
            None => Tensor::output(shape, on_cpu),
        }
    }
}

/// A machine by its name: `cpu`, `cuda`, or `cuda:1` for the second of several cards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    #[default]
    Cpu,
    /// NVIDIA's card of this number.
    Cuda(usize),
}

impl Device {
    /// Opens the card; there is none for the processor.
    ///
    /// # Errors
    /// It is not there, or cannot be used.
    pub fn open(self) -> velatura_gpu::Result<Option<Gpu>> {
        match self {
            Device::Cpu => Ok(None),
            Device::Cuda(index) => Gpu::cuda(index).map(Some),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let cuda = match name.strip_prefix("cuda") {
            Some("") => Some(0),
            Some(index) => index.strip_prefix(':').and_then(|index| index.parse().ok()),
            None => None,
        };
        match (name, cuda) {
            ("cpu", _) => Ok(Device::Cpu),
            (_, Some(index)) => Ok(Device::Cuda(index)),
            _ => Err(format!("expected cpu, cuda or cuda:1, found {name}")),
        }
    }
}
