//! Reading and writing checkpoints: every form in which weights come, and every way in which they can be wrong.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use velatura::checkpoint::{
    Component, FloatType, ModelFolder, TensorFile, model_hash, read_config, save_component,
};
use velatura::weights::{Init, Mode, Store};
use velatura_tensor::{Padding, Precision, Tensor};

/// A safetensors file with any header and any data.
fn file(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A safetensors file with these f32 tensors.
fn f32_file(tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, shape, values) in tensors {
        let begin = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert((*name).to_owned(), entry);
    }
    file(&Value::Object(header), &data)
}

/// A component's folder with these files and a config.
fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn message<T>(result: velatura::Result<T>) -> String {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.to_string(),
    }
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    assert!(!message.contains('\n'), "one paragraph: {message}");
}

const DIFFUSERS: &str = "diffusion_pytorch_model.safetensors";

#[test]
fn all_float_types_are_read() {
    let values = [1.0f32, -2.5, 0.15625, 3.0e-5, 60000.0];
    let half: Vec<u8> = values
        .iter()
        .flat_map(|&v| f16::from_f32(v).to_le_bytes())
        .collect();
    let brain: Vec<u8> = values
        .iter()
        .flat_map(|&v| bf16::from_f32(v).to_le_bytes())
        .collect();
    let single: Vec<u8> = values.iter().flat_map(|&v| v.to_le_bytes()).collect();
    for (dtype, data) in [("F16", half), ("BF16", brain), ("F32", single)] {
        let header = json!({
            "__metadata__": {"format": "pt"},
            "x": {"dtype": dtype, "shape": [5], "data_offsets": [0, data.len()]},
        });
        let dir = folder(&[(DIFFUSERS, file(&header, &data))]);
        let component = Component::open(dir.path(), None).unwrap();
        let found = component.tensor("x").unwrap().to_f32().unwrap();
        let expected: Vec<f32> = values
            .iter()
            .map(|&v| match dtype {
                "F16" => f16::from_f32(v).to_f32(),
                "BF16" => bf16::from_f32(v).to_f32(),
                _ => v,
            })
            .collect();
        assert_eq!(found, expected, "{dtype}");
    }
}

#[test]
fn weights_are_found_under_all_their_names() {
    let weights = |value: f32| f32_file(&[("x", &[1], &[value])]);
    let value = |dir: &TempDir, variant: Option<&str>| {
        let component = Component::open(dir.path(), variant).unwrap();
        component.tensor("x").unwrap().to_f32().unwrap()[0]
    };
    for stem in ["diffusion_pytorch_model", "model"] {
        let plain = format!("{stem}.safetensors");
        let fp16 = format!("{stem}.fp16.safetensors");
        let both = folder(&[(&plain, weights(1.0)), (&fp16, weights(2.0))]);
        assert_eq!((value(&both, None), value(&both, Some("fp16"))), (1.0, 2.0));
        // The only variant there is needs no name.
        assert_eq!(value(&folder(&[(&fp16, weights(3.0))]), None), 3.0);
        assert_says(
            &message(Component::open(both.path(), Some("ema"))),
            &["variant `ema`", "(none), fp16"],
        );
        let two = folder(&[
            (&fp16, weights(1.0)),
            (&format!("{stem}.ema.safetensors"), weights(2.0)),
        ]);
        assert_says(
            &message(Component::open(two.path(), None)),
            &["without a variant", "ema, fp16"],
        );
    }
}

/// Two shards and their index, for every spelling of both.
fn shards(index: &str, first: &str, second: &str, map: Value) -> TempDir {
    folder(&[
        (first, f32_file(&[("a", &[1], &[1.0])])),
        (second, f32_file(&[("b", &[1], &[2.0])])),
        (
            index,
            json!({"metadata": {"total_size": 8}, "weight_map": map})
                .to_string()
                .into_bytes(),
        ),
    ])
}

#[test]
fn shards_are_put_together() {
    let spellings = [
        (
            "diffusion_pytorch_model.safetensors.index.json",
            "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model-00002-of-00002.safetensors",
            None,
        ),
        (
            "diffusion_pytorch_model.safetensors.index.fp16.json",
            "diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
            "diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
            Some("fp16"),
        ),
        (
            "model.safetensors.index.fp16.json",
            "model-00001-of-00002.fp16.safetensors",
            "model-00002-of-00002.fp16.safetensors",
            Some("fp16"),
        ),
    ];
    for (index, first, second, variant) in spellings {
        let dir = shards(index, first, second, json!({"a": first, "b": second}));
        for variant in [variant, None] {
            let component = Component::open(dir.path(), variant).unwrap();
            assert_eq!(component.names().collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(component.tensor("b").unwrap().to_f32().unwrap(), [2.0]);
        }
    }
    let (index, first, second, _) = spellings[0];
    let open = |map: Value| {
        message(Component::open(
            shards(index, first, second, map).path(),
            None,
        ))
    };
    assert_says(
        &open(json!({"a": first, "b": first})),
        &["`b`", "no such tensor", first],
    );
    assert_says(
        &open(json!({"a": first, "b": second, "c": second})),
        &["`c`", second],
    );
    assert_says(
        &open(json!({"a": first, "b": "gone.safetensors"})),
        &["weight_map", "gone.safetensors", "missing"],
    );
    assert_says(
        &open(json!({"a": "../x.safetensors"})),
        &["weight_map", "same folder", "../x.safetensors"],
    );
    assert_says(&open(json!({})), &["weight_map", "empty"]);
    assert_says(
        &open(json!({"a": first, "b": 3})),
        &[index, "weight_map.b", "string", "3"],
    );
    // A shard without index.
    let lonely = folder(&[(first, f32_file(&[("a", &[1], &[1.0])]))]);
    assert_says(
        &message(Component::open(lonely.path(), None)),
        &["index", first],
    );
    // A tensor in two shards.
    let twice = folder(&[
        (first, f32_file(&[("a", &[1], &[1.0])])),
        (
            second,
            f32_file(&[("a", &[1], &[2.0]), ("b", &[1], &[2.0])]),
        ),
        (
            index,
            json!({"weight_map": {"a": first, "b": second}})
                .to_string()
                .into_bytes(),
        ),
    ]);
    assert_says(
        &message(Component::open(twice.path(), None)),
        &["`a`", "also", second],
    );
    // A tensor that the index does not know.
    let unknown = folder(&[
        (first, f32_file(&[("a", &[1], &[1.0]), ("b", &[1], &[2.0])])),
        (
            index,
            json!({"weight_map": {"a": first}}).to_string().into_bytes(),
        ),
    ]);
    assert_says(
        &message(Component::open(unknown.path(), None)),
        &["`b`", "no entry", first],
    );
}

#[test]
fn foreign_names_are_understood() {
    let dir = folder(&[(
        "model.safetensors",
        f32_file(&[
            ("final_layer_norm.weight", &[2], &[1.0, 2.0]),
            (
                "decoder.mid_block.attentions.0.query.weight",
                &[1, 2, 1, 1],
                &[3.0, 4.0],
            ),
        ]),
    )]);
    let component = Component::open(dir.path(), None).unwrap();
    let store = Store::load(&component, Mode::Inference(Precision::F32));
    let text = store.root().at("text_model").at("final_layer_norm");
    assert!(text.has("weight") && !text.has("bias"));
    assert_eq!(
        text.parameter("weight", &[2], Init::Ones)
            .unwrap()
            .value()
            .to_vec(),
        [1.0, 2.0]
    );
    let attention = store
        .root()
        .at("decoder")
        .at("mid_block")
        .at("attentions")
        .at(0);
    attention
        .at("to_q")
        .weight("weight", [1, 2], Init::Zeros)
        .unwrap();
    store.finish().unwrap();
    // Both spellings at once are one tensor too many.
    let both = folder(&[(
        "model.safetensors",
        f32_file(&[
            ("final_layer_norm.bias", &[1], &[1.0]),
            ("text_model.final_layer_norm.bias", &[1], &[1.0]),
        ]),
    )]);
    assert_says(
        &message(Component::open(both.path(), None)),
        &["final_layer_norm.bias", "another"],
    );
}

#[test]
fn a_model_gets_what_it_asks_for_or_a_reason() {
    let dir = folder(&[(
        DIFFUSERS,
        f32_file(&[
            ("conv.weight", &[2, 1, 1, 1], &[1.0, 2.0]),
            ("conv.bias", &[2], &[0.5, f32::NAN]),
            ("extra.weight", &[1], &[0.0]),
            ("extra.bias", &[1], &[f32::NEG_INFINITY]),
            ("text_model.embeddings.position_ids", &[1], &[0.0]),
        ]),
    )]);
    let component = Component::open(dir.path(), None).unwrap();
    let store = Store::load(&component, Mode::Training);
    let conv = store.root().at("conv");
    let weight = conv
        .conv_weight("weight", [2, 1, 1, 1], 1, Padding::uniform(0), Init::Zeros)
        .unwrap();
    assert_eq!(weight.parameter().unwrap().value().to_vec(), [1.0, 2.0]);
    assert_eq!(store.parameters().len(), 1);
    assert_says(
        &message(conv.conv_weight("weight", [2, 2, 1, 1], 1, Padding::uniform(0), Init::Zeros)),
        &[DIFFUSERS, "`conv.weight`", "[2, 2, 1, 1]", "[2, 1, 1, 1]"],
    );
    assert_says(
        &message(conv.parameter("bias", &[2], Init::Zeros)),
        &[DIFFUSERS, "`conv.bias`", "finite", "NaN at index 1 of 2"],
    );
    assert_says(
        &message(
            store
                .root()
                .at("conv2")
                .weight("weight", [2, 3], Init::Zeros),
        ),
        &[DIFFUSERS, "`conv2.weight`", "[2, 3]", "no such tensor"],
    );
    // Two are left over, and one that may be.
    assert_says(
        &message(store.finish()),
        &[
            DIFFUSERS,
            "`extra.bias`",
            "[1]",
            "left over",
            "1 more",
            "`extra.weight`",
        ],
    );
    store
        .root()
        .at("extra")
        .parameter("weight", &[1], Init::Ones)
        .unwrap();
    assert_says(
        &message(store.root().at("extra").parameter("bias", &[1], Init::Ones)),
        &["`extra.bias`", "-inf"],
    );
    store.finish().unwrap();
}

#[test]
fn weights_that_are_not_floating_point_are_refused() {
    let header = json!({"x": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}});
    let dir = folder(&[(DIFFUSERS, file(&header, &[0; 8]))]);
    let component = Component::open(dir.path(), None).unwrap();
    let store = Store::load(&component, Mode::Training);
    assert_says(
        &message(store.root().parameter("x", &[1], Init::Zeros)),
        &[DIFFUSERS, "`x`", "F32, F16 or BF16", "I64"],
    );
}

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

#[test]
fn damaged_files_are_explained() {
    let good = f32_file(&[("a", &[2], &[1.0, 2.0]), ("b", &[1], &[3.0])]);
    let open = |bytes: &[u8]| {
        let dir = folder(&[(DIFFUSERS, bytes.to_vec())]);
        message(Component::open(dir.path(), None))
    };
    // Cut anywhere, it is never taken for whole, and never a panic.
    for length in 0..good.len() {
        assert_says(&open(&good[..length]), &[DIFFUSERS, "cut short"]);
    }
    let mut longer = good.clone();
    longer.push(0);
    assert_says(&open(&longer), &["12 bytes", "13"]);
    assert_says(
        &open(b"PK\x03\x04\x14\x00\x08\x08\x08\x08archive"),
        &["not a safetensors file", "convert"],
    );

    let entry = |shape: Value, offsets: Value| json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
    let with = |header: Value| open(&file(&header, &[0; 8]));
    assert_says(
        &with(json!({"a": entry(json!([3]), json!([0, 8]))})),
        &["`a`", "12 bytes", "0..8"],
    );
    assert_says(
        &with(json!({"a": entry(json!([2]), json!([8, 0]))})),
        &["`a`", "8..0"],
    );
    assert_says(
        &with(json!({"a": entry(json!([2]), json!([4, 12]))})),
        &["`a`", "from byte 0"],
    );
    assert_says(
        &with(
            json!({"a": entry(json!([1]), json!([0, 4])), "b": entry(json!([1]), json!([0, 4]))}),
        ),
        &["`b`", "from byte 4"],
    );
    assert_says(
        &with(json!({"a": entry(json!([u64::MAX, u64::MAX]), json!([0, 8]))})),
        &["`a`", "fits into memory"],
    );
    assert_says(
        &with(json!({"a": entry(json!([-1]), json!([0, 8]))})),
        &["`a`", "-1"],
    );
    assert_says(
        &with(json!({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}})),
        &["`a`", "F99"],
    );
    assert_says(
        &with(json!({"a": {"dtype": "F32", "shape": [2]}})),
        &["`a`", "data_offsets"],
    );
    assert_says(&with(json!([1, 2])), &["header", "one entry per tensor"]);
    let twice = br#"{"a": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}, "a": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let mut bytes = (twice.len() as u64).to_le_bytes().to_vec();
    bytes.extend(twice);
    bytes.extend([0; 8]);
    assert_says(&open(&bytes), &["`a` occurs twice"]);

    // Eight tensors of 2^61 bytes: their sum exceeds 64 bits.
    let step = 1u64 << 61;
    let mut huge = serde_json::Map::new();
    for i in 0..8u64 {
        let end = if i == 7 { u64::MAX } else { (i + 1) * step };
        let shape = if i == 7 { step - 1 } else { step };
        let entry = json!({"dtype": "U8", "shape": [shape], "data_offsets": [i * step, end]});
        huge.insert(format!("t{i}"), entry);
    }
    assert!(with(Value::Object(huge)).contains("t0"));
}

proptest! {
    /// Whatever the bytes are: an error or tensors that lie within the file, and no panic.
    #[test]
    fn no_header_makes_a_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..64),
        place in 0usize..200,
        value in any::<u8>(),
        kind in 0..3,
        offsets in any::<[u64; 4]>(),
        shape in proptest::collection::vec(any::<u64>(), 0..4),
    ) {
        let bytes = match kind {
            0 => noise,
            1 => {
                let mut bytes = f32_file(&[("a", &[2], &[1.0, 2.0]), ("b", &[1], &[3.0])]);
                let place = place % bytes.len();
                bytes[place] = value;
                bytes
            }
            _ => file(&json!({
                "a": {"dtype": "F32", "shape": shape, "data_offsets": [offsets[0] % 16, offsets[1] % 16]},
                "b": {"dtype": "U8", "shape": [offsets[3]], "data_offsets": [offsets[2], offsets[3]]},
            }), &noise),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        fs::write(&path, bytes).unwrap();
        if let Ok(file) = TensorFile::open(&path) {
            for name in file.names() {
                let view = file.tensor(name).unwrap();
                let _ = view.to_f32();
            }
        }
    }
}

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
