//! Low-rank adaptations in the names of diffusers, kohya's scripts and older versions, against what PyTorch makes of
//! them (fixtures/make_training_lora.py).

mod support;

use std::path::Path;
use std::sync::Arc;

use support::{Expected, relative, topic};
use velatura::checkpoint::{Component, LoraFile};
use velatura::clip::{ClipTextConfig, ClipTextModel};
use velatura::unet::{Unet, UnetConfig};
use velatura::weights::{Mode, Store};
use velatura_tensor::{Precision, Tensor};

const F32: Mode = Mode::Inference(Precision::F32);
/// As for the models themselves.
const TOLERANCE: f64 = 1e-4;

fn text_encoder(model: &Path, loras: &[(Arc<LoraFile>, f32)]) -> ClipTextModel {
    let component = Component::open(&model.join("text_encoder"), None).unwrap();
    let store = Store::load(&component, F32).with_loras("text_encoder", loras);
    ClipTextModel::load(&ClipTextConfig::read(&component).unwrap(), &store.root()).unwrap()
}

fn unet(model: &Path, loras: &[(Arc<LoraFile>, f32)]) -> Unet {
    let component = Component::open(&model.join("unet"), None).unwrap();
    let store = Store::load(&component, F32).with_loras("unet", loras);
    Unet::load(&UnetConfig::read(&component).unwrap(), &store.root()).unwrap()
}

#[test]
fn every_programs_adaptation_does_what_it_does_there() {
    let (Some(dir), Some(models)) = (topic("lora"), topic("models")) else {
        return;
    };
    let model = models.join("sd15");
    let expected = Expected::open(&dir.join("expected.safetensors"));
    let (ids, _) = expected.ids("ids");
    let (times, _) = expected.integers("timesteps");
    let times: Vec<f32> = times.iter().map(|&time| time as f32).collect();
    let sample = expected.tensor("sample");
    for file in [
        "diffusers/pytorch_lora_weights.safetensors",
        "kohya.safetensors",
        "old.safetensors",
    ] {
        let lora = Arc::new(LoraFile::open(&dir.join(file)).unwrap());
        let loras = [(Arc::clone(&lora), 1.0)];
        if file != "old.safetensors" {
            let text = text_encoder(&model, &loras).forward(&ids, 2);
            let error = relative(&text, &expected.tensor("text"));
            assert!(error < TOLERANCE, "{file}: text encoder off by {error:.1e}");
        }
        let context = expected.tensor("text");
        let paint = |loras: &[(Arc<LoraFile>, f32)]| -> Tensor {
            unet(&model, loras).forward(&sample, &times, &context)
        };
        let error = relative(&paint(&loras), &expected.tensor("unet"));
        assert!(error < TOLERANCE, "{file}: UNet off by {error:.1e}");
        lora.check_used().unwrap();

        // Without it, and with it and its opposite, the model is another and its old self.
        let bare = paint(&[]);
        assert!(relative(&bare, &expected.tensor("unet")) > 0.05);
        let undone = paint(&[(Arc::clone(&lora), 1.0), (lora, -1.0)]);
        assert!(relative(&undone, &bare) < TOLERANCE);
    }
}
