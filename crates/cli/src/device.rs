//! `--device`.

use anyhow::Result;
use velatura_tensor::Gpu;
use velatura_tensor::device::{self, Device};

/// Runs `f` with its arithmetic there.
pub fn on<T>(device: Device, f: impl FnOnce() -> Result<T>) -> Result<T> {
    match device.open()? {
        Some(gpu) => {
            eprintln!("on {}", gpu.name());
            Gpu::catch(|| device::on(&gpu, f))?
        }
        None => f(),
    }
}
