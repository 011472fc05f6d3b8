//! The weight of a linear layer or a convolution, in the layout that its kernel wants.
//!
//! Generation packs a weight once, at load, and drops the original. Training keeps the f32
//! parameter and packs it again after each optimiser step, for the forward and for the input
//! gradient; both are cached until the parameter changes.

mod parts;

pub use parts::{PackedForm, PackedParts};

use crate::{Parameter, Precision, Tensor, device};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use velatura_kernels::conv::{Algorithm, ConvShape, PackedConv};
use velatura_kernels::gemm::{PackedMatrix, int8_error};
use velatura_kernels::profile;

/// A weight `[O, I]` of a linear layer or `[O, I, k, k]` of a convolution. Cloning shares it.
#[derive(Clone)]
pub struct Weight(Arc<Inner>);

struct Inner {
    shape: Vec<usize>,
    source: Source,
}

enum Source {
    Packed(Arc<Packed>),
    /// As it is, for a graphics card.
    Plain(Tensor, Precision),
    Trainable {
        parameter: Parameter,
        precision: Precision,
        forward: Cache,
        input_gradient: Cache,
    },
}

/// The packed form, and the parameter's version and the algorithm that it was made for.
type Cache = Mutex<Option<(u64, Algorithm, Arc<Packed>)>>;

/// A 1×1 convolution over channels-last data is a matrix product, so it is packed as one.
pub(crate) enum Packed {
    Matrix(PackedMatrix),
    Conv(PackedConv),
}

impl Weight {
    /// The weight `[O, I]` of a linear layer, for inference: only the packed form of `values` is kept.
    ///
    /// # Panics
    /// When `shape` does not fit `values`.
    pub fn packed(values: &[f32], shape: [usize; 2], precision: Precision) -> Self {
        let [o, i] = shape;
        if let Some(plain) = Self::plain(values, &shape, precision) {
            return plain;
        }
        let precision = worth(precision, values, i);
        let matrix = PackedMatrix::from_rows(values, o, i, precision);
        Weight(Arc::new(Inner {
            shape: shape.to_vec(),
            source: Source::Packed(Arc::new(Packed::Matrix(matrix))),
        }))
    }

    /// The weight `[2·O, I]` of values and their gates, for inference: see [`Tensor::linear_geglu`](crate::Tensor::linear_geglu).
    ///
    /// # Panics
    /// When `shape` does not fit `values`.
    pub fn packed_gated(values: &[f32], shape: [usize; 2], precision: Precision) -> Self {
        let [o, i] = shape;
        if let Some(plain) = Self::plain(values, &shape, precision) {
            return plain;
        }
        let precision = worth(precision, values, i);
        match PackedMatrix::gated(values, o / 2, i, precision) {
            Some(matrix) => Weight(Arc::new(Inner {
                shape: shape.to_vec(),
                source: Source::Packed(Arc::new(Packed::Matrix(matrix))),
            })),
            None => Self::packed(values, shape, precision),
        }
    }

    /// The weight `[O, I, k, k]` of a convolution, for inference: only the packed form of `values` is kept.
    /// `expected` is a convolution that it will be used for; other sizes of pictures come out right too, if
    /// perhaps by an algorithm that is not the fastest for them. Algorithms for which the weight takes more
    /// memory are left to weights of at most `transformed` numbers.
    ///
    /// # Panics
    /// When `expected` does not fit `values`.
    pub fn packed_conv(
        values: &[f32],
        expected: &ConvShape,
        precision: Precision,
        transformed: usize,
    ) -> Self {
        let ConvShape {
            in_channels: i,
            out_channels: o,
            kernel: k,
            ..
        } = *expected;
        let shape = [o, i, k, k];
        if let Some(plain) = Self::plain(values, &shape, precision) {
            return plain;
        }
        let algorithm = match values.len() <= transformed {
            true => Algorithm::choose(expected, precision),
            false => Algorithm::Direct,
        };
        // A 1×1 kernel makes a linear layer of it.
        let precision = match k {
            1 => worth(precision, values, i),
            _ => precision.beside_linear(),
        };
        Weight(Arc::new(Inner {
            shape: shape.to_vec(),
            source: Source::Packed(Arc::new(pack(values, &shape, precision, algorithm))),
        }))
    }

    /// Where this thread's operations are a card's: nothing is packed for the processor.
    fn plain(values: &[f32], shape: &[usize], precision: Precision) -> Option<Self> {
        device::current()?;
        let tensor = Tensor::from_vec(values.to_vec(), shape);
        Some(Weight(Arc::new(Inner {
            shape: shape.to_vec(),
            source: Source::Plain(tensor, precision),
        })))
    }

    /// A weight that training changes, with products in f32.
    pub fn trainable(parameter: Parameter) -> Self {
        Self::trainable_in(parameter, Precision::F32)
    }

    /// A weight that training changes. The parameter itself stays f32, and so do sums and gradients;
    /// `precision` is that of the factors of its products, forward and backward. Without a matrix unit or a fast
    /// bf16 dot product the gradient of the weight is an f32 product either way.
    pub fn trainable_in(parameter: Parameter, precision: Precision) -> Self {
        Weight(Arc::new(Inner {
            shape: parameter.shape().to_vec(),
            source: Source::Trainable {
                parameter,
                precision,
                forward: Cache::default(),
                input_gradient: Cache::default(),
            },
        }))
    }

    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// The parameter behind a trainable weight.
    pub fn parameter(&self) -> Option<&Parameter> {
        match &self.0.source {
            Source::Packed(_) | Source::Plain(..) => None,
            Source::Trainable { parameter, .. } => Some(parameter),
        }
    }

    /// The weight as it is, off the tape.
    ///
    /// # Panics
    /// When only its packed form was kept.
    pub(crate) fn tensor(&self) -> Tensor {
        match &self.0.source {
            Source::Packed(_) => {
                panic!("{self:?}, packed for the processor, used on a graphics card")
            }
            Source::Plain(tensor, _) => tensor.clone(),
            Source::Trainable { parameter, .. } => parameter.value().detach(),
        }
    }

    /// The number format of the products.
    pub fn precision(&self) -> Precision {
        match &self.0.source {
            Source::Packed(packed) => match &**packed {
                Packed::Matrix(matrix) => matrix.precision(),
                Packed::Conv(conv) => conv.precision(),
            },
            Source::Plain(_, precision) | Source::Trainable { precision, .. } => *precision,
        }
    }

    /// The form for the forward product: of a convolution, if given.
    pub(crate) fn forward(&self, conv: Option<&ConvShape>) -> Arc<Packed> {
        match &self.0.source {
            Source::Packed(packed) => packed.clone(),
            Source::Plain(..) => panic!("{self:?}, for a graphics card, used on the processor"),
            Source::Trainable {
                parameter,
                precision,
                forward,
                ..
            } => cached(
                forward,
                parameter,
                algorithm(conv, *precision, Algorithm::choose_in_training),
                |values, algorithm| pack(values, self.shape(), *precision, algorithm),
            ),
        }
    }

    /// The form for the gradient with respect to the input.
    ///
    /// # Panics
    /// For a weight packed for inference, which no gradient passes.
    pub(crate) fn for_input_gradient(&self, conv: Option<&ConvShape>) -> Arc<Packed> {
        match &self.0.source {
            Source::Packed(_) | Source::Plain(..) => {
                panic!("a gradient through {self:?}, packed for inference")
            }
            Source::Trainable {
                parameter,
                precision,
                input_gradient,
                ..
            } => cached(
                input_gradient,
                parameter,
                algorithm(conv, *precision, Algorithm::choose_for_input_gradient),
                |values, algorithm| {
                    pack_input_gradient(values, self.shape(), *precision, algorithm)
                },
            ),
        }
    }
}

/// `precision`, unless 8-bit integers would change the weight `[O, inputs]` so much that the layer is better left in what
/// stands beside them.
fn worth(precision: Precision, values: &[f32], inputs: usize) -> Precision {
    // Twice what weights lose that are spread normally, ten times bf16's rounding: a layer with outliers.
    const TOO_ROUGH: f64 = 0.02;
    match precision {
        Precision::Int8 if int8_error(values, inputs) > TOO_ROUGH => precision.beside_linear(),
        precision => precision,
    }
}

/// The algorithm follows from the shape at hand alone, so that a resumed training takes the same one.
fn algorithm(
    conv: Option<&ConvShape>,
    precision: Precision,
    choose: fn(&ConvShape, Precision) -> Algorithm,
) -> Algorithm {
    conv.map_or(Algorithm::Direct, |shape| choose(shape, precision))
}

fn cached(
    cache: &Cache,
    parameter: &Parameter,
    algorithm: Algorithm,
    make: impl FnOnce(&[f32], Algorithm) -> Packed,
) -> Arc<Packed> {
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    let version = parameter.version();
    if let Some((made_from, made_for, packed)) = &*cache
        && (*made_from, *made_for) == (version, algorithm)
    {
        return packed.clone();
    }
    // Given back before the new form is made, its memory is taken again at once; else every step would touch fresh
    // pages for all weights.
    *cache = None;
    let _note = profile::note(|| ("pack weights".into(), format!("{algorithm:?}"), 0.0));
    let packed = Arc::new(make(parameter.value().as_slice(), algorithm));
    *cache = Some((version, algorithm, packed.clone()));
    packed
}

fn pack(values: &[f32], shape: &[usize], precision: Precision, algorithm: Algorithm) -> Packed {
    match *shape {
        [o, i] | [o, i, 1, 1] => Packed::Matrix(PackedMatrix::from_rows(values, o, i, precision)),
        [o, i, k, k2] if k == k2 => {
            Packed::Conv(PackedConv::new(values, (o, i, k), precision, algorithm))
        }
        _ => panic!("a weight is [O, I] or [O, I, k, k], not {shape:?}"),
    }
}

/// dx = dy · W: the weight `[O, I]` is itself the right operand, `O` being summed over.
fn pack_input_gradient(
    values: &[f32],
    shape: &[usize],
    precision: Precision,
    algorithm: Algorithm,
) -> Packed {
    match *shape {
        [o, i] | [o, i, 1, 1] => {
            Packed::Matrix(PackedMatrix::from_columns(values, o, i, precision))
        }
        [o, i, k, _] => {
            let sizes = (o, i, k);
            Packed::Conv(PackedConv::for_input_gradient(
                values, sizes, precision, algorithm,
            ))
        }
        _ => panic!("a weight is [O, I] or [O, I, k, k], not {shape:?}"),
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weight{:?}", self.shape())
    }
}
