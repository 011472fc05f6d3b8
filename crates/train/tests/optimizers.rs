//! Steps of the optimisers beside PyTorch's: the fixtures of `fixtures/make_optimizers.py`.

mod common;

use common::fixtures::{distance, tensor, topic};
use velatura::checkpoint::TensorFile;
use velatura_tensor::{Gpu, Parameter, Tensor, device};
use velatura_train::config::{Optimizer as Settings, OptimizerKind};
use velatura_train::optimizer::{Named, Optimizer};

#[test]
fn muon_goes_the_way_of_pytorch() {
    follow_muon();
}

#[test]
fn on_a_graphics_card_it_does_too() {
    device::on(&Gpu::for_tests(), follow_muon);
}

fn follow_muon() {
    let Some(folder) = topic("optimizers") else {
        return;
    };
    let file = TensorFile::open(&folder.join("muon.safetensors")).unwrap();
    let starts = file.names().filter(|name| name.ends_with(".start"));
    let names: Vec<&str> = starts.map(|name| name.trim_end_matches(".start")).collect();
    assert!(!names.is_empty(), "{} is empty", file.path().display());
    let read = |what: &str| -> Vec<Tensor> {
        let names = names.iter();
        names
            .map(|name| tensor(&file, &format!("{name}.{what}")))
            .collect()
    };
    let starts = read("start");
    let here = steps(&starts, &read("gradients"));
    let (ends, exact) = (read("end"), read("exact"));
    for (i, name) in names.iter().enumerate() {
        // How far it has gone, which is what is compared.
        let way = |end: &Tensor| end.sub(&starts[i]).to_vec();
        let theirs = distance(&way(&ends[i]), &way(&exact[i]));
        let ours = distance(&way(&here[i]), &way(&exact[i]));
        // Both round to bf16 in every iteration, in places of their own.
        assert!(
            ours <= 2.0 * theirs,
            "{name}: off by {ours}, PyTorch by {theirs}"
        );
        // Near enough to the exact end that a slip of PyTorch's or of the script's would be seen too.
        assert!(theirs < 0.02, "{name}: PyTorch is off by {theirs}");
    }
}

/// The parameters after a step for each of the gradients.
fn steps(starts: &[Tensor], gradients: &[Tensor]) -> Vec<Tensor> {
    let named = |start: &Tensor| Named {
        component: "unet",
        parameter: Parameter::new("mid_block.weight", start.clone()),
    };
    let parameters: Vec<Named> = starts.iter().map(named).collect();
    let settings = Settings {
        kind: OptimizerKind::Muon,
        learning_rate: 0.01,
        weight_decay: 0.1,
        max_grad_norm: 0.0,
        ..Settings::default()
    };
    let count = gradients[0].dim(0);
    let mut optimizer = Optimizer::new(&settings, count as u64, &parameters);
    for step in 0..count {
        let losses = parameters.iter().zip(gradients).map(|(named, gradients)| {
            let value = named.parameter.value();
            let gradient = gradients.narrow_batch(step, 1).reshape(value.shape());
            value.mul(&gradient).sum()
        });
        let loss = losses.reduce(|sum, loss| sum.add(&loss)).unwrap();
        let gradients = loss.backward();
        let norm = optimizer.gradient_norm(&gradients);
        optimizer.step(step as u64 + 1, &gradients, norm);
    }
    let ends = parameters.iter().map(|named| named.parameter.value());
    ends.map(|value| value.detach()).collect()
}

/// What is no matrix between hidden layers takes AdamW's steps.
#[test]
fn biases_tables_and_the_layers_at_the_ends_are_left_to_adamw() {
    let end = |kind, name: &str, shape: &[usize]| {
        let values = (0..shape.iter().product::<usize>()).map(|i| i as f32 * 0.01);
        let named = Named {
            component: "unet",
            parameter: Parameter::new(name, Tensor::from_vec(values.collect(), shape)),
        };
        let settings = Settings {
            kind,
            learning_rate: 0.01,
            ..Settings::default()
        };
        let mut optimizer = Optimizer::new(&settings, 1, std::slice::from_ref(&named));
        let gradients = named.parameter.value().square().sum().backward();
        let norm = optimizer.gradient_norm(&gradients);
        optimizer.step(1, &gradients, norm);
        named.parameter.value().to_vec()
    };
    for (name, shape, muon) in [
        ("mid_block.resnets.0.conv1.weight", &[4, 3, 3, 3][..], true),
        ("text_model.encoder.layers.0.mlp.fc1.weight", &[4, 3], true),
        ("mid_block.resnets.0.conv1.bias", &[4], false),
        ("conv_in.weight", &[4, 3, 3, 3], false),
        ("decoder.conv_out.weight", &[4, 3, 3, 3], false),
        (
            "text_model.embeddings.token_embedding.weight",
            &[4, 3],
            false,
        ),
    ] {
        let [adamw, other] =
            [OptimizerKind::AdamW, OptimizerKind::Muon].map(|kind| end(kind, name, shape));
        assert_eq!(adamw != other, muon, "{name}");
    }
}
