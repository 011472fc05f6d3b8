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
/// the numbers go there and back. A UNet and a text encoder need none of those, but for cropping at odd sizes; an
/// autoencoder's latents are cut to a range and made random there.
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

/// [`on`] that card; without one, as this thread computes anyway.
pub fn maybe_on<T>(gpu: Option<&Gpu>, f: impl FnOnce() -> T) -> T {
    match gpu {
        Some(gpu) => on(gpu, f),
        None => f(),
    }
}

/// The card of this thread's operations, for other threads that work for it.
pub fn current() -> Option<Gpu> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_in_pytorch() {
        for (name, device) in [
            ("cpu", Device::Cpu),
            ("cuda", Device::Cuda(0)),
            ("cuda:2", Device::Cuda(2)),
        ] {
            assert_eq!(name.parse(), Ok(device));
        }
        for name in ["", "gpu", "cuda:", "cuda1", "cuda:-1", "CPU"] {
            assert!(name.parse::<Device>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_thread_computes_there_until_the_work_is_done() {
        let gpu = Gpu::for_tests();
        let x = Tensor::from_vec(vec![1.0; 100], &[100]);
        let y = on(&gpu, || {
            assert!(current().is_some());
            x.add(&x)
        });
        assert!(current().is_none());
        // The numbers come when they are asked for, and what changes one side is not lost on the other.
        assert_eq!(y.sum().item(), 200.0);
        let mut z = y.clone();
        z.make_mut()[0] = 5.0;
        assert_eq!(on(&gpu, || z.scale(2.0)).as_slice()[..2], [10.0, 4.0]);
        assert_eq!(y.as_slice()[0], 2.0);
    }
}
