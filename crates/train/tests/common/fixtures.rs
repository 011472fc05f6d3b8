//! Reading what the scripts in `fixtures/` have written.

use std::path::PathBuf;

use velatura::checkpoint::TensorFile;
use velatura_tensor::Tensor;

/// The folder of this topic; none where a folder given by the environment does not have it.
pub fn topic(name: &str) -> Option<PathBuf> {
    let (root, given) = match std::env::var_os("VELATURA_FIXTURES") {
        Some(root) => (PathBuf::from(root), true),
        None => (
            PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/data")),
            false,
        ),
    };
    let folder = root.join(name);
    if given && !folder.is_dir() {
        println!("{} has no {name}: nothing to compare", root.display());
        return None;
    }
    Some(folder)
}

/// Floating-point numbers.
pub fn tensor(file: &TensorFile, name: &str) -> Tensor {
    let view = file
        .tensor(name)
        .unwrap_or_else(|| panic!("no {name} in {}", file.path().display()));
    Tensor::from_vec(view.to_f32().unwrap(), view.shape)
}

/// Numbers of type i64.
pub fn integers(file: &TensorFile, name: &str) -> Vec<usize> {
    let view = file.tensor(name).unwrap();
    let (numbers, rest) = view.bytes.as_chunks::<8>();
    assert!(rest.is_empty());
    numbers
        .iter()
        .map(|&bytes| i64::from_le_bytes(bytes) as usize)
        .collect()
}

/// ‖a − b‖ / ‖b‖
pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: f64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum();
    let size: f64 = b.iter().map(|b| f64::from(*b).powi(2)).sum();
    (difference / size.max(1e-30)).sqrt()
}
