//! What the program says when it cannot do what it was asked: one paragraph, the right status, no partial file.

mod common;

use std::fs;
use std::path::Path;

use common::{Bench, models, said};
use serde_json::{Value, json};

const NONE: [&str; 0] = [];

#[test]
fn usage_errors_exit_with_2() {
    let bench = Bench::new();
    let cases: [(&[&str], &[&str]); 12] = [
        (&["-s", "0", "x"], &["steps: expected", "found 0"]),
        (&["-s", "many", "x"], &["many"]),
        (
            &["--width", "0", "x"],
            &["width: expected a multiple of 8", "found 0"],
        ),
        (
            &["--height", "100000", "x"],
            &["height: expected a multiple of 8", "found 100000"],
        ),
        (
            &["--width", "65", "x"],
            &[
                "width: expected a multiple of 8",
                "found 65; the nearest is 64",
            ],
        ),
        (&["--sampler", "eular", "x"], &["eular", "'euler'"]),
        (&["--schedule", "karas", "x"], &["karas", "'karras'"]),
        (
            &["--sampler", "ddim", "--schedule", "karras", "x"],
            &["schedule: expected normal", "ddim", "euler"],
        ),
        (&["-g", "NaN", "x"], &["guidance: expected", "NaN"]),
        (&["--precision", "f64", "x"], &["f64"]),
        (&["--threads", "0", "x"], &["threads"]),
        (&["--seed", "1"], &["<PROMPT>"]),
    ];
    for (args, parts) in cases {
        let model = models().join("sd15");
        let fixed = ["generate", "-o", "a.png", "-m", model.to_str().unwrap()];
        bench.run(&[&fixed, args].concat()).fails(2, parts);
        assert_eq!(bench.files(), NONE);
    }
    bench.run(&["paint"]).fails(2, &["paint"]);
    bench
        .run(&[
            "scenes", "render", "--count", "0", "--seed", "1", "--out", "x",
        ])
        .fails(2, &["--count"]);
    assert_eq!(bench.files(), NONE);
}

#[test]
fn an_output_that_cannot_be_written_is_told_before_the_work() {
    let bench = Bench::new();
    fs::create_dir(bench.path("folder")).unwrap();
    for (output, part) in [
        ("no/a.png", "does not exist"),
        ("folder", "found a folder"),
        ("/dev/null/a.png", "a.png"),
    ] {
        let said = bench.generate(&["-o", output, "x"]);
        said.fails(1, &[output, part]);
        assert!(!said.stderr.contains("step"), "{}", said.stderr);
    }
    bench
        .generate(&["-o", "a.png", "--trace", "no/a.safetensors", "x"])
        .fails(1, &["no/a.safetensors"]);
    assert_eq!(bench.files(), ["folder"]);
}

#[test]
fn a_missing_model_is_named() {
    let bench = Bench::new();
    bench
        .run(&["generate", "-m", "nowhere", "x"])
        .fails(1, &["nowhere", "expected a folder"]);
    fs::write(bench.path("a.ckpt"), "pickle").unwrap();
    bench
        .run(&["generate", "-m", "a.ckpt", "x"])
        .fails(1, &["a.ckpt", "found a file"]);
    bench
        .run(&["train", "nowhere.toml"])
        .fails(1, &["nowhere.toml"]);
    assert_eq!(bench.files(), ["a.ckpt"]);
}

#[test]
fn a_graphics_card_that_is_not_there_is_told() {
    let bench = Bench::new();
    let train: &[&str] = &["train", "nowhere.toml"];
    for command in [&["generate", "x"][..], train, &["bench", "--train"]] {
        let mut asked = bench.command();
        // CUDA does not show a card whose number is not named here.
        asked.env("CUDA_VISIBLE_DEVICES", "");
        asked.args(command).args(["--device", "cuda"]);
        let expected = ["no NVIDIA GPU can be used", "leave --device out"];
        said(asked.output().unwrap()).fails(1, &expected);
    }
    bench
        .run(&["generate", "--device", "gpu", "x"])
        .fails(2, &["expected cpu, cuda or cuda:1, found gpu"]);
    assert_eq!(bench.files(), NONE);
}

/// Damages a copy of a model, paints with it, and expects an error that names what was damaged.
#[track_caller]
fn damaged(damage: impl FnOnce(&Path), parts: &[&str]) {
    let bench = Bench::new();
    let model = bench.copy_model("sd15");
    damage(&model);
    bench
        .run(&["generate", "-m", "model", "-s", "2", "-o", "a.png", "x"])
        .fails(1, parts);
    assert_eq!(bench.files(), ["model"]);
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

#[test]
fn a_file_that_is_missing_or_cut_short_is_named() {
    damaged(
        |model| fs::remove_dir_all(model.join("vae")).unwrap(),
        &["model_index.json", "vae"],
    );
    damaged(
        |model| fs::remove_file(model.join(UNET)).unwrap(),
        &["unet", "safetensors"],
    );
    damaged(
        |model| fs::remove_file(model.join("unet/config.json")).unwrap(),
        &["unet/config.json"],
    );
    damaged(
        |model| fs::remove_file(model.join("scheduler/scheduler_config.json")).unwrap(),
        &["scheduler_config.json"],
    );
    damaged(
        |model| fs::remove_file(model.join("tokenizer/vocab.json")).unwrap(),
        &["tokenizer"],
    );
    damaged(
        |model| {
            let file = model.join(UNET);
            let bytes = fs::read(&file).unwrap();
            fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        },
        &[UNET, "cut short"],
    );
    damaged(
        |model| fs::write(model.join(UNET), []).unwrap(),
        &[UNET, "cut short"],
    );
}

#[test]
fn a_config_that_cannot_be_is_named() {
    let unet = |field: &'static str, value: Value| {
        move |model: &Path| {
            edit(&model.join("unet/config.json"), |config| {
                config[field] = value
            })
        }
    };
    damaged(
        unet("norm_num_groups", json!(7)),
        &["unet/config.json", "norm_num_groups"],
    );
    damaged(
        unet("block_out_channels", json!("many")),
        &["unet/config.json", "block_out_channels", "many"],
    );
    damaged(
        unet("cross_attention_dim", json!(7)),
        &["unet/config.json", "cross_attention_dim"],
    );
    damaged(
        unet("in_channels", json!(9)),
        &["unet/config.json", "in_channels", "inpainting"],
    );
    damaged(
        unet("layers_per_block", json!(3)),
        &["unet", "tensor", "no such tensor"],
    );
    damaged(
        |model| {
            edit(&model.join("vae/config.json"), |config| {
                config.as_object_mut().unwrap().remove("block_out_channels");
            });
        },
        &["vae/config.json", "block_out_channels"],
    );
    damaged(
        |model| {
            edit(&model.join("scheduler/scheduler_config.json"), |config| {
                config["beta_schedule"] = json!("cubic")
            })
        },
        &["scheduler_config.json", "beta_schedule", "cubic"],
    );
    damaged(
        |model| fs::write(model.join("velatura.json"), r#"{"steps": "few"}"#).unwrap(),
        &["velatura.json", "steps"],
    );
    damaged(
        |model| fs::write(model.join("model_index.json"), "{").unwrap(),
        &["model_index.json", "JSON"],
    );
}

/// Rewrites the tensors of a safetensors file of f32.
fn retensor(file: &Path, change: impl Fn(&str, &mut Vec<usize>, &mut Vec<u8>)) {
    use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
    let bytes = fs::read(file).unwrap();
    let tensors: Vec<_> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(name, view)| {
            assert_eq!(view.dtype(), Dtype::F32);
            let (mut shape, mut data) = (view.shape().to_vec(), view.data().to_vec());
            change(name, &mut shape, &mut data);
            (name.to_owned(), shape, data)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, data)| {
        (
            name,
            TensorView::new(Dtype::F32, shape.clone(), data).unwrap(),
        )
    });
    fs::write(file, serialize(views, None).unwrap()).unwrap();
}

#[test]
fn weights_that_cannot_be_are_named() {
    damaged(
        |model| {
            retensor(&model.join(UNET), |name, _, data| {
                if name == "mid_block.resnets.0.conv1.bias" {
                    data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
                }
            });
        },
        &[UNET, "mid_block.resnets.0.conv1.bias", "NaN"],
    );
    damaged(
        |model| {
            retensor(&model.join(UNET), |name, shape, _| {
                if name == "conv_in.bias" {
                    shape.insert(0, 1);
                }
            });
        },
        &[UNET, "conv_in.bias", "shape"],
    );
    // Finite weights that are too large overflow on the way, and the layer is named.
    damaged(
        |model| {
            retensor(&model.join(UNET), |name, _, data| {
                if name == "down_blocks.0.resnets.0.conv1.weight" {
                    for value in data.as_chunks_mut::<4>().0 {
                        *value = 1e38f32.to_le_bytes();
                    }
                }
            });
        },
        &["unet.down_blocks.0.resnets.0", "not finite"],
    );
}
