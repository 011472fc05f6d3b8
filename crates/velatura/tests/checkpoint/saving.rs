//! What is written, and its hash.

use std::fs;

use serde_json::{Value, json};
use velatura::checkpoint::{Component, FloatType, model_hash, save_component};
use velatura_tensor::Tensor;

use crate::{DIFFUSERS, assert_says, f32_file, folder, message};

fn tensors() -> Vec<(String, Tensor)> {
    vec![
        (
            "b.weight".to_owned(),
            Tensor::from_vec(vec![1.0, -0.5, 0.25, 2.0, 3.0, 4.0], &[2, 3]),
        ),
        ("a.bias".to_owned(), Tensor::from_vec(vec![0.125; 3], &[3])),
    ]
}

#[test]
fn what_is_saved_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    for (config, file) in [
        (
            json!({"_class_name": "UNet2DConditionModel", "sample_size": 8}),
            DIFFUSERS,
        ),
        (
            json!({"architectures": ["CLIPTextModel"], "hidden_size": 8}),
            "model.safetensors",
        ),
    ] {
        for dtype in [FloatType::F32, FloatType::F16, FloatType::Bf16] {
            let unet = dir.path().join("deep").join("unet");
            save_component(&unet, &config, tensors(), dtype).unwrap();
            assert!(unet.join(file).is_file());
            let component = Component::open(&unet, None).unwrap();
            assert_eq!(component.config::<Value>().unwrap(), config);
            for (name, tensor) in tensors() {
                let view = component.tensor(&name).unwrap();
                assert_eq!(view.shape, tensor.shape());
                assert_eq!(view.to_f32().unwrap(), tensor.to_vec());
            }
            // The official reader agrees.
            let bytes = fs::read(unet.join(file)).unwrap();
            let official = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(official.len(), 2);
            assert_eq!(
                (bytes.len() - 9 * if dtype == FloatType::F32 { 4 } else { 2 }) % 8,
                0,
                "data are aligned"
            );
            let left: Vec<_> = fs::read_dir(&unet)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            assert_eq!(left.len(), 2, "no temporary file stays: {left:?}");
            fs::remove_dir_all(&unet).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_stored_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"_class_name": "X"});
    let save = |value: f32, dtype: FloatType| {
        let tensor = ("x".to_owned(), Tensor::from_vec(vec![0.0, value], &[2]));
        save_component(dir.path(), &config, [tensor], dtype)
    };
    assert_says(
        &message(save(f32::NAN, FloatType::F32)),
        &["`x`", "finite", "NaN"],
    );
    assert_says(
        &message(save(70000.0, FloatType::F16)),
        &["`x`", "65519", "70000"],
    );
    assert_says(
        &message(save(f32::INFINITY, FloatType::Bf16)),
        &["`x`", "inf"],
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    save(65504.0, FloatType::F16).unwrap();
    save(-3.3e38, FloatType::Bf16).unwrap();
    // A file where a folder should be.
    let path = dir.path().join("config.json");
    assert_says(
        &message(save_component(&path, &config, tensors(), FloatType::F32)),
        &["config.json"],
    );
}

#[test]
fn the_hash_of_a_single_file_is_that_of_the_file() {
    use sha2::{Digest, Sha256};
    let bytes = f32_file(&[("x", &[1], &[1.0])]);
    let dir = folder(&[(DIFFUSERS, bytes.clone())]);
    let component = Component::open(dir.path(), None).unwrap();
    let expected: String = Sha256::digest(&bytes)
        .iter()
        .take(5)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(model_hash(&[&component]), expected);
    assert_eq!(expected.len(), 10);
    assert_ne!(model_hash(&[&component, &component]), expected);
}
