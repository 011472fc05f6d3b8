//! Many pictures from one model, several at once.

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use image::RgbImage;
use velatura::pipeline::{Pipeline, Plan};
use velatura_tensor::{Gpu, device};

use super::{Report, tell};
use crate::error::{Error, Result};

/// Paints `plans`, `together` at a time, whose UNet steps are taken in one batch; hands each picture to `take` with the
/// plan's number as it is finished, in no fixed order. The pictures do not depend on what is painted beside them.
///
/// # Errors
/// A picture cannot be painted; `take` fails; `report` says stop.
pub fn paint(
    pipeline: &Pipeline,
    plans: &[Plan],
    together: usize,
    report: Report,
    mut take: impl FnMut(usize, RgbImage) -> Result<()>,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let stopped = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    // The threads compute where this one does.
    let gpu = device::current();
    std::thread::scope(|scope| {
        for _ in 0..together.clamp(1, plans.len().max(1)) {
            let sender = match sender.lock() {
                Ok(sender) => sender.clone(),
                Err(poisoned) => poisoned.into_inner().clone(),
            };
            let (next, stopped, gpu) = (&next, &stopped, gpu.as_ref());
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(plan) = plans.get(number) else {
                        return;
                    };
                    let mut observe = |_: &velatura::pipeline::Step| {
                        if stopped.load(Ordering::Relaxed) {
                            ControlFlow::Break(())
                        } else {
                            ControlFlow::Continue(())
                        }
                    };
                    let paint = || pipeline.paint(plan, None, &mut observe);
                    let painted = Gpu::catch(|| device::maybe_on(gpu, paint))
                        .map_err(Error::from)
                        .and_then(|painted| Ok(painted?));
                    let failed = painted.is_err();
                    if sender.send((number, painted)).is_err() || failed {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut done = 0;
        let ended = receiver.iter().try_for_each(|(number, painted)| {
            let image = painted?.image;
            let (width, height) = (image.width() as u32, image.height() as u32);
            let picture = RgbImage::from_raw(width, height, image.pixels().to_vec());
            let picture = picture.ok_or_else(|| {
                Error::data(format!("picture {number}"), "its bytes do not fit its size")
            })?;
            take(number, picture)?;
            done += 1;
            tell(&mut *report, "picture", done, plans.len())
        });
        // Whoever still paints stops at its next step, and nobody takes another.
        stopped.store(ended.is_err(), Ordering::Relaxed);
        if ended.is_err() {
            next.store(plans.len(), Ordering::Relaxed);
        }
        ended
    })
}
