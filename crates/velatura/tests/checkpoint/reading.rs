//! Every form in which weights come.

use half::{bf16, f16};
use serde_json::{Value, json};
use tempfile::TempDir;
use velatura::checkpoint::Component;
use velatura::weights::{Init, Mode, Store};
use velatura_tensor::{Padding, Precision};

use crate::{DIFFUSERS, assert_says, f32_file, file, folder, message};

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
