//! Reads the fixtures: `fixtures/data`, or the folder that VELATURA_FIXTURES names.

// Each test program compiles this file for itself and uses a part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use velatura::checkpoint::TensorFile;
use velatura_tensor::Tensor;

/// The folder of a topic; none if another set of fixtures was asked for and lacks it.
pub fn topic(name: &str) -> Option<PathBuf> {
    match std::env::var_os("VELATURA_FIXTURES") {
        Some(other) => {
            let dir = PathBuf::from(other).join(name);
            if !dir.is_dir() {
                println!("skipped: there is no {}", dir.display());
                return None;
            }
            Some(dir)
        }
        None => Some(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../fixtures/data")
                .join(name),
        ),
    }
}

/// The folders in `dir`, sorted.
pub fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|p| p.is_dir())
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "{} is empty", dir.display());
    folders
}

/// A JSON file.
pub fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A safetensors file of expected values.
pub struct Expected(TensorFile);

impl Expected {
    pub fn open(path: &Path) -> Self {
        Expected(TensorFile::open(path).unwrap_or_else(|e| panic!("{e}")))
    }

    pub fn names(&self) -> Vec<String> {
        self.0.names().map(str::to_owned).collect()
    }

    /// As the file has it.
    pub fn plain(&self, name: &str) -> Tensor {
        let view = self
            .0
            .tensor(name)
            .unwrap_or_else(|| panic!("no tensor {name}"));
        Tensor::from_vec(view.to_f32().unwrap(), view.shape)
    }

    /// Channels last, if it is a feature map.
    pub fn tensor(&self, name: &str) -> Tensor {
        let tensor = self.plain(name);
        if tensor.shape().len() == 4 {
            tensor.nchw_to_nhwc()
        } else {
            tensor
        }
    }

    /// 64-bit integers, and their shape.
    pub fn integers(&self, name: &str) -> (Vec<i64>, Vec<usize>) {
        let view = self
            .0
            .tensor(name)
            .unwrap_or_else(|| panic!("no tensor {name}"));
        let read = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap());
        (
            view.bytes.chunks_exact(8).map(read).collect(),
            view.shape.to_vec(),
        )
    }

    /// Token ids and the number of texts.
    pub fn ids(&self, name: &str) -> (Vec<u32>, usize) {
        let (ids, shape) = self.integers(name);
        (
            ids.into_iter()
                .map(|id| u32::try_from(id).unwrap())
                .collect(),
            shape[0],
        )
    }

    /// The distinct `<n>` of the names that begin with `prefix<n>.`, sorted.
    pub fn numbers(&self, prefix: &str) -> Vec<usize> {
        let mut numbers: Vec<usize> = self
            .names()
            .iter()
            .filter_map(|name| name.strip_prefix(prefix)?.split('.').next()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

/// ‖a − b‖ / ‖b‖ in f64.
pub fn relative(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape(), b.shape());
    let pairs = || a.as_slice().iter().zip(b.as_slice());
    let distance: f64 = pairs()
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum();
    let norm: f64 = b.as_slice().iter().map(|b| f64::from(*b).powi(2)).sum();
    (distance / norm).sqrt()
}
