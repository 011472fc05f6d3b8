//! Folders and configs.

use std::fs;
use std::path::Path;

use serde_json::json;
use velatura::checkpoint::{Component, ModelFolder, read_config};

use crate::{DIFFUSERS, assert_says, folder, message};

#[test]
fn folders_that_are_no_components_are_explained() {
    let open = |dir: &Path| message(Component::open(dir, None));
    assert_says(
        &open(Path::new("no/such/unet")),
        &["no/such/unet", "nothing"],
    );
    let empty = tempfile::tempdir().unwrap();
    assert_says(&open(empty.path()), &["config.json", "check the path"]);
    assert_says(
        &open(folder(&[]).path()),
        &["no weights", DIFFUSERS, "config.json"],
    );
    let pickle = folder(&[("diffusion_pytorch_model.bin", Vec::new())]);
    assert_says(
        &open(pickle.path()),
        &[
            "diffusion_pytorch_model.bin",
            "safetensors only",
            "save_pretrained",
        ],
    );

    let model = |dir: &Path| message(ModelFolder::open(dir));
    assert_says(
        &model(Path::new("no/such/model")),
        &["no/such/model", "model_index.json", "nothing"],
    );
    assert_says(&model(empty.path()), &["no model_index.json"]);
    assert_says(
        &model(pickle.path()),
        &["single component", "the folder above"],
    );
    let single = tempfile::tempdir().unwrap();
    fs::write(single.path().join("v1-5.ckpt"), "").unwrap();
    assert_says(&model(single.path()), &["v1-5.ckpt", "from_single_file"]);
    assert_says(
        &model(&single.path().join("v1-5.ckpt")),
        &["found a file", "from_single_file"],
    );
}

#[test]
fn a_model_folder_tells_its_components() {
    let dir = tempfile::tempdir().unwrap();
    let index = json!({
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1",
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderTiny"],
        "safety_checker": [null, null], "requires_safety_checker": false,
        "text_encoder": ["transformers", "CLIPTextModel"],
    });
    fs::write(dir.path().join("model_index.json"), index.to_string()).unwrap();
    fs::create_dir(dir.path().join("unet")).unwrap();
    fs::create_dir(dir.path().join("vae")).unwrap();
    let model = ModelFolder::open(dir.path()).unwrap();
    assert_eq!(model.pipeline(), Some("StableDiffusionPipeline"));
    assert_eq!(
        model.components().collect::<Vec<_>>(),
        ["unet", "vae", "text_encoder"]
    );
    assert_eq!(
        model.require("unet", &["UNet2DConditionModel"]).unwrap(),
        dir.path().join("unet")
    );
    assert_says(
        &message(model.require("safety_checker", &[])),
        &["model_index.json", "safety_checker", "nothing"],
    );
    assert_says(
        &message(model.require("vae", &["AutoencoderKL"])),
        &["`vae`", "AutoencoderKL", "AutoencoderTiny"],
    );
    assert_says(
        &message(model.require("text_encoder", &["CLIPTextModel"])),
        &["text_encoder", "no folder"],
    );
    fs::write(dir.path().join("model_index.json"), "[]").unwrap();
    assert_says(
        &message(ModelFolder::open(dir.path())),
        &["expected an object", "array"],
    );
    fs::write(dir.path().join("model_index.json"), "{").unwrap();
    assert_says(
        &message(ModelFolder::open(dir.path())),
        &["model_index.json", "not JSON"],
    );
}

#[test]
fn config_errors_name_the_field() {
    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    struct Config {
        channels: Vec<u32>,
        inner: Inner,
    }
    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    struct Inner {
        groups: u32,
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let read = |text: &[u8]| {
        fs::write(&path, text).unwrap();
        message(read_config::<Config>(&path))
    };
    assert_says(
        &read(br#"{"channels": [1, "x"]}"#),
        &["config.json", "`channels[1]`", "u32", "string \"x\""],
    );
    assert_says(
        &read(br#"{"channels": [1, -2]}"#),
        &["`channels[1]`", "u32", "-2"],
    );
    assert_says(&read(br#"{"channels": [1]}"#), &["`inner`", "missing"]);
    assert_says(
        &read(br#"{"channels": [1], "inner": {}}"#),
        &["`inner.groups`", "missing"],
    );
    assert_says(&read(br#"{"channels": [1"#), &["not JSON", "line 1"]);
    assert_says(
        &read(br#"{"channels": [1], "inner": {"groups": 1}} x"#),
        &["not JSON"],
    );
    assert_says(&read(b""), &["not JSON"]);
    assert_says(&read(b"{\"channels\": \"\xff\"}"), &["UTF-8", "byte 14"]);
    fs::remove_file(&path).unwrap();
    assert_says(
        &message(read_config::<Config>(&path)),
        &["config.json", "No such file"],
    );
}
