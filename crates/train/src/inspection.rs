//! A batch on disk, for a person to look at.

use std::fs;
use std::path::Path;

use image::RgbImage;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use velatura_tensor::Tensor;

use crate::error::{Error, Result};
use crate::picture::{grid, write_png};

/// Pictures in a row of `batch.png`.
const COLUMNS: usize = 8;

/// What there is to see of a batch.
pub(crate) struct Inspection {
    /// Its numbers, which may well be NaN.
    pub tensors: Vec<(&'static str, Tensor)>,
    /// What its samples are called, or say.
    pub texts: Vec<String>,
    /// Its pictures, all of one size, where it has some.
    pub pictures: Vec<RgbImage>,
}

impl Inspection {
    /// Writes `batch.safetensors`, and `batch.txt` and `batch.png` where there is something for them, into the new
    /// folder `dir`.
    ///
    /// # Errors
    /// The place is not writable, or the disk is full.
    pub fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).map_err(Error::io("make the folder", dir))?;
        let bytes: Vec<(&str, &Tensor, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, tensor)| {
                let values = tensor.as_slice().iter();
                (
                    *name,
                    tensor,
                    values.flat_map(|x| x.to_le_bytes()).collect(),
                )
            })
            .collect();
        let path = dir.join("batch.safetensors");
        // Not through `save_tensors`, which refuses the very numbers that are of interest here.
        let fault = |error: safetensors::SafeTensorError| Error::run(&path, error.to_string());
        let views = bytes
            .iter()
            .map(|(name, tensor, bytes)| {
                let view = TensorView::new(Dtype::F32, tensor.shape().to_vec(), bytes);
                Ok((*name, view.map_err(fault)?))
            })
            .collect::<Result<Vec<_>>>()?;
        safetensors::serialize_to_file(views, None, &path).map_err(fault)?;
        if !self.texts.is_empty() {
            let path = dir.join("batch.txt");
            fs::write(&path, self.texts.join("\n") + "\n").map_err(Error::io("write", &path))?;
        }
        if !self.pictures.is_empty() {
            write_png(&grid(&self.pictures, COLUMNS), &dir.join("batch.png"))?;
        }
        Ok(())
    }
}
