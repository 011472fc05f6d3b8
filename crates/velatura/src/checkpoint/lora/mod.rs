//! Low-rank adaptations (Hu et al. 2021, arXiv:2106.09685): a layer's weight W becomes W + (α/r)·B·A, with A of r rows
//! and B of r columns. Files of diffusers, PEFT and kohya's scripts are read, the first and the last are written.

mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};
use velatura_tensor::Tensor;

use self::names::{Meaning, Part, kohya_prefix, layer_name, read};
use super::{FloatType, TensorFile, TensorView, save_tensors};
use crate::error::{Error, Result};

/// Where diffusers keeps PEFT's settings in a file's metadata.
const METADATA: &str = "lora_adapter_metadata";

/// An adaptation from a file, for layers of the UNet and of the text encoder.
#[derive(Debug)]
pub struct LoraFile {
    path: PathBuf,
    layers: BTreeMap<String, Layer>,
    /// The layers that some model has asked for.
    used: Mutex<BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Layer {
    /// `[r, …]`
    down: Option<(Vec<usize>, Vec<f32>)>,
    /// `[O, r]`
    up: Option<(Vec<usize>, Vec<f32>)>,
    alpha: Option<f32>,
}

impl LoraFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// It is missing, damaged, or holds something that is not a low-rank adaptation of a Stable Diffusion 1.x or 2.x
    /// model: with the tensor's name.
    pub fn open(path: &Path) -> Result<LoraFile> {
        let file = TensorFile::open(path)?;
        let mut layers: BTreeMap<String, Layer> = BTreeMap::new();
        for view in file.names().filter_map(|name| file.tensor(name)) {
            let (layer, part) = match read(view.name) {
                Meaning::Of { layer, part } => (layer, part),
                Meaning::Foreign(what) => return Err(refuse(&view, what)),
                Meaning::Unknown => return Err(refuse(&view, "a tensor of another kind")),
            };
            let layer = layers.entry(layer).or_default();
            let values = view.to_f32()?;
            match part {
                Part::Down => layer.down = Some((view.shape.to_vec(), values)),
                Part::Up => layer.up = Some((view.shape.to_vec(), values)),
                Part::Alpha => layer.alpha = values.first().copied(),
            }
        }
        if layers.is_empty() {
            return Err(Error::format(path, "expected a LoRA, found no tensors"));
        }
        let settings = file
            .metadata(METADATA)
            .and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
        for (name, layer) in &mut layers {
            layer.check(name).map_err(|error| error.in_file(path))?;
            if let (None, Some(settings)) = (layer.alpha, &settings) {
                layer.alpha = layer.alpha_of(name, settings);
            }
        }
        Ok(LoraFile {
            path: path.to_path_buf(),
            layers,
            used: Mutex::default(),
        })
    }

    /// Adds `strength`·(α/r)·B·A to the `values` of the tensor `name`, if the file has something for it.
    ///
    /// # Errors
    /// The layer has another shape than the model's.
    pub(crate) fn add_to(
        &self,
        component: &str,
        name: &str,
        shape: &[usize],
        strength: f32,
        values: &mut [f32],
    ) -> Result<()> {
        let Some(path) = name.strip_suffix(".weight") else {
            return Ok(());
        };
        let key = layer_name(component, path);
        let Some(layer) = self.layers.get(&key) else {
            return Ok(());
        };
        layer
            .add_to(&key, shape, strength, values)
            .map_err(|error| error.in_file(&self.path))?;
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key);
        Ok(())
    }

    /// Checks that every layer of the file has been added to some model's. To be called when all models are loaded.
    ///
    /// # Errors
    /// A layer was left over: the file was made for another kind of model.
    pub fn check_used(&self) -> Result<()> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self.layers.keys().filter(|name| !used.contains(*name));
        let Some(first) = left.next() else {
            return Ok(());
        };
        Err(Error::tensor(
            first,
            "a layer that the model has",
            format!(
                "none of this name, nor for {} others of {} in the file; it was made for another kind of model",
                left.count(),
                self.layers.len()
            ),
        )
        .in_file(&self.path))
    }
}

/// What is said of a tensor that is no part of an adaptation.
fn refuse(view: &TensorView, what: &str) -> Error {
    Error::tensor(
        view.name,
        "the two matrices of a LoRA (lora_A and lora_B, or lora_down and lora_up)",
        format!("{what}, which is not supported"),
    )
    .in_file(view.file)
}

impl Layer {
    /// The rank, if both matrices are there and have it.
    fn rank(&self) -> Option<usize> {
        let (down, up) = (&self.down.as_ref()?.0, &self.up.as_ref()?.0);
        let rank = *down.first()?;
        let unit = up.iter().skip(2).all(|&side| side == 1);
        (rank > 0 && up.len() >= 2 && up[1] == rank && unit).then_some(rank)
    }

    fn check(&self, name: &str) -> Result<()> {
        if self.rank().is_some() {
            return Ok(());
        }
        let shape = |matrix: &Option<(Vec<usize>, Vec<f32>)>| match matrix {
            Some((shape, _)) => format!("{shape:?}"),
            None => "missing".into(),
        };
        Err(Error::tensor(
            name,
            "A of shape [r, …] and B of shape [O, r]",
            format!("A {}, B {}", shape(&self.down), shape(&self.up)),
        ))
    }

    /// α as PEFT's settings have it, where there are some for the component of the layer `name`.
    fn alpha_of(&self, name: &str, settings: &Map<String, Value>) -> Option<f32> {
        let (component, _) = name.split_once('/')?;
        let field = |field: &str| settings.get(&format!("{component}.{field}"));
        let alpha = field("lora_alpha")?.as_f64()?;
        let rank = self.rank()? as f64;
        // "Rank-stabilised" adaptations divide by √r.
        let stabilised = field("use_rslora").and_then(Value::as_bool) == Some(true);
        Some(if stabilised {
            alpha * rank.sqrt()
        } else {
            alpha
        } as f32)
    }

    fn add_to(&self, name: &str, shape: &[usize], strength: f32, values: &mut [f32]) -> Result<()> {
        let (Some(rank), Some((down_shape, down)), Some((up_shape, up))) =
            (self.rank(), &self.down, &self.up)
        else {
            return self.check(name);
        };
        // Kernels of 1×1 are written with and without their last two axes.
        let plain = |shape: &[usize]| match shape {
            [a, b, 1, 1] => vec![*a, *b],
            other => other.to_vec(),
        };
        let [wanted, given] = [
            plain(shape),
            plain(&[&up_shape[..1], &down_shape[1..]].concat()),
        ];
        if wanted != given {
            return Err(Error::tensor(
                name,
                format!("matrices for a weight of shape {wanted:?}"),
                format!("matrices for one of shape {given:?}"),
            ));
        }
        // Without an α it is r.
        let scale = strength * self.alpha.map_or(1.0, |alpha| alpha / rank as f32);
        let width = down.len() / rank;
        for (row, up) in values.chunks_exact_mut(width).zip(up.chunks_exact(rank)) {
            for (&up, down) in up.iter().zip(down.chunks_exact(width)) {
                let factor = scale * up;
                row.iter_mut()
                    .zip(down)
                    .for_each(|(value, down)| *value += factor * down);
            }
        }
        Ok(())
    }
}

/// Whose names a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraNaming {
    /// diffusers': `unet.mid_block.….to_q.lora_A.weight`.
    Diffusers,
    /// That of kohya's scripts, which web UIs read: `lora_unet_mid_block_…_to_q.lora_down.weight`.
    Kohya,
}

/// One layer of an adaptation that was trained here.
#[derive(Clone, Debug)]
pub struct LoraLayer {
    /// `unet` or `text_encoder`.
    pub component: &'static str,
    /// Where the layer stands: `mid_block.attentions.0.….to_q`.
    pub path: String,
    /// A: `[r, I]`, or `[r, I, 1, 1]` of a convolution.
    pub down: Tensor,
    /// B: `[O, r]`, or `[O, r, 1, 1]`.
    pub up: Tensor,
    /// α
    pub alpha: f32,
}

/// Writes an adaptation.
///
/// diffusers' names have no place for α that all its versions read, so there B carries the factor α/r.
///
/// # Errors
/// A value is not finite or too large for `dtype`; the place is not writable; the disk is full.
pub fn save_lora(
    path: &Path,
    layers: &[LoraLayer],
    naming: LoraNaming,
    dtype: FloatType,
) -> Result<()> {
    let mut tensors = Vec::with_capacity(3 * layers.len());
    for layer in layers {
        let LoraLayer {
            component,
            path,
            down,
            up,
            alpha,
        } = layer;
        let mut put = |name: String, tensor: Tensor| tensors.push((name, tensor));
        match naming {
            LoraNaming::Diffusers => {
                let scale = alpha / down.dim(0) as f32;
                put(format!("{component}.{path}.lora_A.weight"), down.clone());
                put(format!("{component}.{path}.lora_B.weight"), up.scale(scale));
            }
            LoraNaming::Kohya => {
                let name = format!("{}{}", kohya_prefix(component), path.replace('.', "_"));
                put(format!("{name}.lora_down.weight"), down.clone());
                put(format!("{name}.lora_up.weight"), up.clone());
                put(format!("{name}.alpha"), Tensor::full(&[], *alpha));
            }
        }
    }
    save_tensors(path, tensors, dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> LoraLayer {
        LoraLayer {
            component: "unet",
            path: "mid_block.to_q".into(),
            down: Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]),
            up: Tensor::from_vec(vec![1.0, 0.0, 0.0, 1.0], &[2, 2]),
            alpha: 4.0,
        }
    }

    #[test]
    fn what_is_written_in_either_naming_adds_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lora.safetensors");
        for naming in [LoraNaming::Diffusers, LoraNaming::Kohya] {
            save_lora(&path, &[layer()], naming, FloatType::F32).unwrap();
            let file = LoraFile::open(&path).unwrap();
            let mut values = vec![1.0; 6];
            file.add_to("unet", "mid_block.to_k.weight", &[2, 3], 0.5, &mut values)
                .unwrap();
            assert_eq!(values, [1.0; 6]);
            assert!(file.check_used().is_err());
            file.add_to("unet", "mid_block.to_q.weight", &[2, 3], 0.5, &mut values)
                .unwrap();
            // α/r = 2, times the strength of one half.
            assert_eq!(values, [2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "{naming:?}");
            file.check_used().unwrap();
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lora.safetensors");
        save_lora(&path, &[layer()], LoraNaming::Kohya, FloatType::F32).unwrap();
        let file = LoraFile::open(&path).unwrap();
        let error = file
            .add_to("unet", "mid_block.to_q.weight", &[2, 4], 1.0, &mut [0.0; 8])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("[2, 4]") && error.contains("[2, 3]"),
            "{error}"
        );
        let error = file.check_used().unwrap_err().to_string();
        assert!(error.contains("unet/mid_block_to_q"), "{error}");

        let message = |name: &str| {
            save_tensors(
                &path,
                [(name.to_owned(), Tensor::zeros(&[2, 2]))],
                FloatType::F32,
            )
            .unwrap();
            LoraFile::open(&path).unwrap_err().to_string()
        };
        assert!(message("lora_unet_x.hada_w1_a").contains("LoHa"));
        assert!(message("conv_in.weight").contains("another kind"));
        assert!(message("lora_unet_x.lora_up.weight").contains("A missing"));
    }
}
