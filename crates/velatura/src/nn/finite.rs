//! Finds the layer in which a NaN or an infinity was born.
//!
//! Looking at every intermediate costs time, so nobody does while all is well. When the result of a
//! model turns out not to be finite, the caller runs the model once more inside [`check_finite`].

use std::cell::{Cell, RefCell};

use velatura_tensor::Tensor;

use crate::{Error, Result};

thread_local! {
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `f` and returns its result, or an error that names the first layer of `model` whose output was not
/// finite: `unet.down_blocks.0.resnets.1.conv1`.
///
/// # Errors
/// [`Error::NotFinite`].
pub fn check_finite<T>(model: &str, f: impl FnOnce() -> T) -> Result<T> {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            WATCHING.set(false);
        }
    }
    FIRST.take();
    WATCHING.set(true);
    let off = Off;
    let result = f();
    drop(off);
    match FIRST.take() {
        None => Ok(result),
        Some(layer) => Err(Error::not_finite(
            format!("{model}.{layer}"),
            "the weights of this layer or of those before it may be damaged, or too large for the chosen precision: try another copy of the model, or f32",
        )),
    }
}

/// Hands `x` through; under [`check_finite`], remembers `path` if it is the first that is not finite.
pub fn watch(path: &str, x: Tensor) -> Tensor {
    if WATCHING.get() && !x.is_finite() {
        FIRST.with_borrow_mut(|first| {
            first.get_or_insert_with(|| path.to_owned());
        });
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_layer_is_named_and_the_switch_goes_off() {
        let nan = || Tensor::from_vec(vec![0.0, f32::NAN], &[2]);
        let error = check_finite("unet", || {
            watch("a", Tensor::zeros(&[2]));
            watch("b.c", nan());
            watch("d", nan());
        })
        .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("unet.b.c: the result is not finite"),
            "{error}"
        );
        watch("later", nan());
        assert!(check_finite("unet", || watch("a", Tensor::zeros(&[2]))).is_ok());
    }
}
