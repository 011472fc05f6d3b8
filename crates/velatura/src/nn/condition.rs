//! What a model is told besides its input.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use velatura_tensor::Tensor;

use super::Linear;

/// A tensor that many layers project, each with weights of its own: the text's context, the embedding of the time.
///
/// In training every step has conditions of its own, and their projections belong on the tape: [`Condition::new`].
/// While a picture is painted they are known before the first step, so each projection is taken once and kept:
/// [`Condition::kept`].
#[derive(Clone, Debug)]
pub struct Condition {
    value: Tensor,
    kept: Option<Rc<RefCell<Projections>>>,
    /// The one sample of `value` that is meant, and how many of the model's samples it is meant for.
    sample: Option<(usize, usize)>,
}

/// By the path of the layer.
type Projections = HashMap<Arc<str>, Tensor>;

impl Condition {
    /// `value: [B, …, I]`, projected anew each time.
    pub fn new(value: Tensor) -> Condition {
        Condition {
            value,
            kept: None,
            sample: None,
        }
    }

    /// `value: [N, …, I]`, projected once by each layer.
    pub fn kept(value: Tensor) -> Condition {
        Condition {
            kept: Some(Rc::default()),
            ..Condition::new(value)
        }
    }

    /// What is projected.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Sample `index` alone, for a batch of `count`; what is kept, is kept for all samples together.
    pub fn repeated(&self, index: usize, count: usize) -> Condition {
        Condition {
            sample: Some((index, count)),
            ..self.clone()
        }
    }

    /// What `layer` makes of it: `[B, …, O]`.
    pub fn project(&self, layer: &Linear) -> Tensor {
        let projected = match &self.kept {
            None => layer.forward(&self.value),
            Some(kept) => kept
                .borrow_mut()
                .entry(layer.path().clone())
                .or_insert_with(|| layer.forward(&self.value))
                .clone(),
        };
        match self.sample {
            None => projected,
            Some((index, count)) => {
                Tensor::concat_batch(&vec![&projected.narrow_batch(index, 1); count])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{Mode, Store};
    use velatura_tensor::Precision;

    #[test]
    fn kept_projections_are_those_of_the_layer_that_asks() {
        let store = Store::random(1, Mode::Inference(Precision::F32));
        let layer = |name| Linear::load(&store.root().at(name), 3, 2).unwrap();
        let (first, second) = (layer("first"), layer("second"));
        let value = Tensor::from_vec((0..6).map(|x| x as f32).collect(), &[2, 3]);
        let condition = Condition::kept(value.clone());
        for _ in 0..2 {
            for layer in [&first, &second] {
                let expected = layer.forward(&value);
                assert_eq!(condition.project(layer).as_slice(), expected.as_slice());
                let row = condition.repeated(1, 3).project(layer);
                assert_eq!(row.as_slice(), expected.as_slice()[2..].repeat(3));
            }
        }
        let address = |x: Tensor| x.as_slice().as_ptr();
        assert_eq!(
            address(condition.project(&first)),
            address(condition.project(&first))
        );
    }
}
