//! A record of everything that passes through a pipeline, for comparing with other programs: f32 and channels
//! first, under the names that our fixtures use.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use velatura_tensor::Tensor;

use crate::checkpoint::write_atomically;
use crate::{Error, Result};

/// Named tensors in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    entries: BTreeMap<String, Entry>,
}

/// One tensor as it is stored.
#[derive(Clone, Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Trace {
    /// An empty record.
    pub fn new() -> Trace {
        Trace::default()
    }

    /// Records `x: [B, H, W, C]` as `[B, C, H, W]`.
    pub fn image(&mut self, name: impl Into<String>, x: &Tensor) {
        let x = x.nhwc_to_nchw();
        self.floats(name, x.as_slice(), x.shape());
    }

    /// Records numbers of any shape as they are.
    pub fn floats(&mut self, name: impl Into<String>, values: &[f32], shape: &[usize]) {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.insert(name.into(), Dtype::F32, shape, bytes);
    }

    /// Records token ids.
    pub fn ids(&mut self, name: impl Into<String>, ids: &[u32], shape: &[usize]) {
        let bytes = ids
            .iter()
            .flat_map(|&id| i64::from(id).to_le_bytes())
            .collect();
        self.insert(name.into(), Dtype::I64, shape, bytes);
    }

    fn insert(&mut self, name: String, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) {
        let shape = shape.to_vec();
        self.entries.insert(
            name,
            Entry {
                dtype,
                shape,
                bytes,
            },
        );
    }

    /// What was recorded as `name`, when it is f32: its shape and its numbers.
    pub fn get(&self, name: &str) -> Option<(&[usize], Vec<f32>)> {
        let entry = self
            .entries
            .get(name)
            .filter(|entry| entry.dtype == Dtype::F32)?;
        let (numbers, _) = entry.bytes.as_chunks::<4>();
        Some((
            &entry.shape,
            numbers
                .iter()
                .map(|&bytes| f32::from_le_bytes(bytes))
                .collect(),
        ))
    }

    /// The token ids that were recorded as `name`.
    pub fn get_ids(&self, name: &str) -> Option<Vec<u32>> {
        let entry = self
            .entries
            .get(name)
            .filter(|entry| entry.dtype == Dtype::I64)?;
        let (numbers, _) = entry.bytes.as_chunks::<8>();
        numbers
            .iter()
            .map(|&bytes| u32::try_from(i64::from_le_bytes(bytes)).ok())
            .collect()
    }

    /// The names of all that was recorded, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Writes a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder is missing or not writable, or the disk is full.
    pub fn write(&self, path: &Path) -> Result<()> {
        let cannot = |error: safetensors::SafeTensorError| {
            Error::format(
                path,
                format!("cannot put the trace into a safetensors file: {error}"),
            )
        };
        let views = self
            .entries
            .iter()
            .map(|(name, entry)| {
                TensorView::new(entry.dtype, entry.shape.clone(), &entry.bytes)
                    .map(|view| (name, view))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(cannot)?;
        let bytes = safetensors::serialize(views, None).map_err(cannot)?;
        write_atomically(path, |out| out.write_all(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_stored_channels_first() {
        let mut trace = Trace::new();
        // Two channels of a 1×3 picture.
        trace.image(
            "latents.0",
            &Tensor::from_vec(vec![1.0, 10.0, 2.0, 20.0, 3.0, 30.0], &[1, 1, 3, 2]),
        );
        trace.ids("input_ids", &[49406, 7], &[1, 2]);
        let (shape, values) = trace.get("latents.0").unwrap();
        assert_eq!(shape, [1, 2, 1, 3]);
        assert_eq!(values, [1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.safetensors");
        trace.write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let ids = file.tensor("input_ids").unwrap();
        assert_eq!(ids.dtype(), Dtype::I64);
        assert_eq!(ids.data()[..8], 49406i64.to_le_bytes());
        assert_eq!(file.names().len(), 2);
    }
}
