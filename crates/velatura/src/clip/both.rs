//! Both halves of CLIP: how well a text fits a picture.

use std::path::Path;

use serde_json::{Value, json};
use velatura_tensor::tape::no_grad;
use velatura_tensor::{Precision, Tensor};

use super::{ClipTextConfig, ClipTextModel, ClipVisionConfig, ClipVisionModel};
use crate::checkpoint::Component;
use crate::fields::Fields;
use crate::image::Image;
use crate::nn::Linear;
use crate::tokenizer::Tokenizer;
use crate::weights::{Mode, Store};
use crate::{Error, Result};

/// A CLIP model (`CLIPModel` of transformers) with its tokenizer.
pub struct ClipModel {
    tokenizer: Tokenizer,
    text: ClipTextModel,
    vision: ClipVisionModel,
    text_projection: Linear,
    visual_projection: Linear,
}

/// What pictures are normalised by, as CLIP was trained: mean and deviation of each channel.
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const DEVIATION: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

impl ClipModel {
    /// Opens a folder as transformers writes it: `config.json`, weights, and the tokenizer's files; without those,
    /// CLIP's own vocabulary.
    ///
    /// # Errors
    /// A file is missing or damaged; a tensor is missing or of another shape; the config asks for what is not
    /// supported.
    pub fn open(dir: &Path, precision: Precision) -> Result<ClipModel> {
        let component = Component::open(dir, None)?;
        let config: Value = component.config()?;
        let in_config = |error: Error| error.in_file(component.config_path());
        let fields = Fields::of_any_class(&config).map_err(in_config)?;
        let projection: usize = fields.get_or("projection_dim", 512).map_err(in_config)?;
        let text_config = ClipTextConfig::from_json(&text_fields(&config)).map_err(in_config)?;
        let empty = json!({});
        let vision = fields.value("vision_config").unwrap_or(&empty);
        let vision_config = ClipVisionConfig::from_json(vision).map_err(in_config)?;
        let store = Store::load(&component, Mode::Inference(precision));
        let w = store.root();
        // Only training asks for it: it makes likelihoods of likenesses.
        if w.has("logit_scale") {
            w.parameter("logit_scale", &[], crate::weights::Init::Ones)?;
        }
        let project = |name: &str, width| Linear::without_bias(&w.at(name), width, projection);
        let model = ClipModel {
            text: ClipTextModel::load(&text_config, &w)?,
            vision: ClipVisionModel::load(&vision_config, &w)?,
            text_projection: project("text_projection", text_config.hidden_size)?,
            visual_projection: project("visual_projection", vision_config.hidden_size)?,
            tokenizer: if ["tokenizer.json", "vocab.json"]
                .iter()
                .any(|f| dir.join(f).is_file())
            {
                Tokenizer::from_folder(dir)?
            } else {
                Tokenizer::clip()?
            },
        };
        store.finish()?;
        Ok(model)
    }

    /// The embeddings `[B, P]` of pictures `[B, S, S, 3]` that [`ClipModel::prepare`] has made, of length 1.
    pub fn embed_pictures(&self, x: &Tensor) -> Tensor {
        no_grad(|| unit_rows(&self.visual_projection.forward(&self.vision.forward(x))))
    }

    /// The embedding `[1, P]` of a text, of length 1. What is beyond 77 tokens is cut off.
    ///
    /// # Errors
    /// The tokenizer has ids that the model has no row for.
    pub fn embed_text(&self, text: &str) -> Result<Tensor> {
        let encoding = self.tokenizer.encode(text)?;
        self.text.check_ids(&encoding.ids)?;
        let context = no_grad(|| self.text.forward(&encoding.ids, 1));
        // The end mark has seen the whole text. It stands behind it, or at the end of what there was room for.
        let width = context.channels();
        let end = (encoding.length + 1).min(encoding.ids.len() - 1);
        let pooled = context.as_slice()[end * width..][..width].to_vec();
        let pooled = Tensor::from_vec(pooled, &[1, width]);
        Ok(no_grad(|| {
            unit_rows(&self.text_projection.forward(&pooled))
        }))
    }

    /// A picture as the model wants it, `[1, S, S, 3]`: the shorter side scaled to S, the middle cut out, normalised.
    pub fn prepare(&self, picture: &Image) -> Tensor {
        let side = self.vision.config().image_size;
        let square = picture.middle_square(side);
        let values = square.pixels().chunks_exact(3).flat_map(|pixel| {
            [0, 1, 2].map(|c| (f32::from(pixel[c]) / 255.0 - MEAN[c]) / DEVIATION[c])
        });
        Tensor::from_vec(values.collect(), &[1, side, side, 3])
    }

    /// How well the text fits the picture: 100 times the cosine between both, not below 0 (Hessel et al. 2021,
    /// arXiv:2104.08718, in the scale of torchmetrics).
    ///
    /// # Errors
    /// As [`ClipModel::embed_text`].
    pub fn score(&self, picture: &Image, text: &str) -> Result<f32> {
        let (a, b) = (
            self.embed_pictures(&self.prepare(picture)),
            self.embed_text(text)?,
        );
        let cosine: f32 = a
            .as_slice()
            .iter()
            .zip(b.as_slice())
            .map(|(a, b)| a * b)
            .sum();
        Ok((100.0 * cosine).max(0.0))
    }
}

/// The text's part of the config; what is missing has the defaults of transformers.
fn text_fields(config: &Value) -> Value {
    let mut fields = json!({
        "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
        "num_attention_heads": 8,
    });
    if let (Value::Object(all), Value::Object(given)) = (&mut fields, &config["text_config"]) {
        all.extend(
            given
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
    }
    fields
}

/// Each row divided by its length.
fn unit_rows(x: &Tensor) -> Tensor {
    let mut values = x.to_vec();
    for row in values.chunks_exact_mut(x.channels()) {
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut()
            .for_each(|v| *v /= length.max(f32::MIN_POSITIVE));
    }
    Tensor::from_vec(values, x.shape())
}
