//! PSNR, SSIM, Fréchet and kernel distance against the libraries of the field (`fixtures/make_metrics.py`), and the
//! features that FID is made of against pytorch-fid (`fixtures/make_inception.py`).

mod common;

use serde_json::Value;
use velatura::checkpoint::{FloatType, TensorFile, save_tensors};
use velatura_tensor::Tensor;
use velatura_tensor::random::TorchGenerator;
use velatura_train::evaluate::distance::{Features, frechet, kernel};
use velatura_train::evaluate::features::read;
use velatura_train::evaluate::inception::Inception;
use velatura_train::evaluate::quality::{psnr, ssim};

#[test]
fn metrics_are_the_libraries() {
    let Some(dir) = common::fixtures::topic("metrics") else {
        return;
    };
    let text = std::fs::read_to_string(dir.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let near = |found: f64, wanted: &Value, tolerance: f64| {
        let wanted = wanted.as_f64().unwrap();
        let error = (found - wanted).abs();
        assert!(
            error <= tolerance * wanted.abs().max(1.0),
            "{found} and {wanted}"
        );
    };
    for (number, pair) in expected["pairs"].as_array().unwrap().iter().enumerate() {
        let picture = |which: &str| read(&dir.join(format!("{number}.{which}.png"))).unwrap();
        let (a, b) = (picture("a"), picture("b"));
        // Both are computed in f64.
        near(psnr(&a, &b), &pair["psnr"], 1e-12);
        near(ssim(&a, &b).unwrap(), &pair["ssim"], 1e-10);
    }
    for set in expected["sets"].as_array().unwrap() {
        let width = set["width"].as_u64().unwrap() as usize;
        let features = |which: &str| {
            let values = set[which].as_array().unwrap().iter();
            let values: Vec<f32> = values.map(|x| x.as_f64().unwrap() as f32).collect();
            Features::new(&values, width)
        };
        let (a, b) = (features("a"), features("b"));
        // Where covariances are singular, scipy's root has errors of the root of epsilon.
        near(frechet(&a, &b).unwrap(), &set["frechet"], 1e-6);
        let size = a.len().min(b.len());
        // The first subset begins at the beginning, as the script's does.
        near(kernel(&a, &b, 1, size).unwrap().0, &set["kernel"], 1e-9);
    }
}

/// The weights of the script, which stores none: tensor number i is made from the seed i.
fn inception_weights(shapes: &Value) -> Vec<(String, Tensor)> {
    let mut tensors = Vec::new();
    for (number, entry) in shapes.as_array().unwrap().iter().enumerate() {
        let name = entry[0].as_str().unwrap();
        let shape = entry[1].as_array().unwrap().iter();
        let shape: Vec<usize> = shape.map(|n| n.as_u64().unwrap() as usize).collect();
        // A count of batches, which nobody needs.
        if shape.is_empty() {
            continue;
        }
        let count: usize = shape.iter().product();
        let mut values = TorchGenerator::new(number as u64).randn(count);
        let fan_in = (count / shape[0]) as f64;
        let change: &dyn Fn(f32) -> f32 = match name.rsplit_once('.').unwrap() {
            (layer, "weight") if layer.ends_with("conv") => &|x| x * (2.0 / fan_in).sqrt() as f32,
            (_, "running_var") => &|x| 1.0 + 0.5 * x.abs(),
            (layer, "weight") if layer.ends_with("bn") => &|x| 1.0 + 0.2 * x,
            _ => &|x| 0.1 * x,
        };
        values.iter_mut().for_each(|x| *x = change(*x));
        tensors.push((name.to_owned(), Tensor::from_vec(values, &shape)));
    }
    tensors
}

#[test]
fn features_are_pytorch_fids() {
    let Some(dir) = common::fixtures::topic("inception") else {
        return;
    };
    let text = std::fs::read_to_string(dir.join("shapes.json")).unwrap();
    let mut weights = inception_weights(&serde_json::from_str(&text).unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("inception.safetensors");
    save_tensors(&file, weights.clone(), FloatType::F32).unwrap();
    let inception = Inception::load(&file).unwrap();
    let expected = TensorFile::open(&dir.join("expected.safetensors")).unwrap();
    for number in 0..2 {
        let picture = common::fixtures::tensor(&expected, &format!("picture.{number}"));
        let wanted = common::fixtures::tensor(&expected, &format!("features.{number}"));
        let found = inception.features(&picture.nchw_to_nhwc()).unwrap();
        assert_eq!(found.len(), Inception::FEATURES);
        let error = common::fixtures::distance(&found, wanted.as_slice());
        // Ninety-four convolutions deep in f32.
        assert!(error < 1e-4, "picture {number}: {error}");
    }
    // What is missing is named.
    weights.retain(|(name, _)| name != "Mixed_6c.branch7x7_2.bn.bias");
    save_tensors(&file, weights, FloatType::F32).unwrap();
    let error = Inception::load(&file).err().unwrap().to_string();
    assert!(error.contains("Mixed_6c.branch7x7_2.bn.bias"), "{error}");
}
