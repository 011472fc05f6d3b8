//! The recipe that a picture carries: all that is needed to paint it again, once as the `parameters` text that
//! AUTOMATIC1111's web UI writes (which the field's tools read), once as a JSON of our own.

use serde::{Deserialize, Serialize};

use crate::image::TextChunk;

/// The PNG key of AUTOMATIC1111's text.
pub const PARAMETERS_KEY: &str = "parameters";
/// The PNG key of our JSON.
pub const RECIPE_KEY: &str = "velatura";
/// The PNG standard's key of a copyright notice.
pub const COPYRIGHT_KEY: &str = "Copyright";

/// How a picture was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The version of this library.
    pub version: String,
    /// The model's name and content.
    pub model: ModelIdentity,
    /// What should be seen.
    pub prompt: String,
    /// What should not; may be empty.
    pub negative_prompt: String,
    /// The seed of the noise.
    pub seed: u64,
    /// Steps asked of the sampler.
    pub steps: usize,
    /// The sampler, by its name on the command line.
    pub sampler: String,
    /// The sampler's name in AUTOMATIC1111's list.
    #[serde(skip)]
    pub sampler_label: String,
    /// The spacing of the noise levels, by its name on the command line.
    pub schedule: String,
    /// The spacing's name in AUTOMATIC1111's list.
    #[serde(skip)]
    pub schedule_label: String,
    /// DDIM's η.
    pub eta: f32,
    /// The scale of classifier-free guidance; 1 is none.
    pub guidance_scale: f32,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// What was painted: `txt2img`, `img2img` or `inpaint`. Recipes before 0.2 know only the first and do not say so.
    #[serde(default = "txt2img")]
    pub mode: String,
    /// How far the picture that it began with went back to noise; none without such a picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// How the masked part was repainted; none without a mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inpainting: Option<Inpainting>,
    /// The numbers that matrix products were taken in: `f32`, `bf16` or `int8`.
    pub precision: String,
    /// A licence that the picture has to carry; in a text of its own.
    #[serde(skip)]
    pub notice: Option<String>,
}

/// How a part of a picture was repainted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inpainting {
    /// What the masked part held before, by its name on the command line.
    pub masked_content: String,
    /// Pixels over which the mask's edge was softened.
    pub mask_blur: f32,
    /// Pixels around the mask, where only the field around it was repainted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding_mask_crop: Option<usize>,
}

impl Inpainting {
    /// The pairs that AUTOMATIC1111's text has for it.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        if self.mask_blur > 0.0 {
            pairs.push(("Mask blur", self.mask_blur.to_string()));
        }
        if let Some(padding) = self.padding_mask_crop {
            pairs.push(("Inpaint area", "Only masked".to_string()));
            pairs.push(("Masked area padding", padding.to_string()));
        }
        if self.masked_content != "original" {
            pairs.push(("Masked content", self.masked_content.replace('-', " ")));
        }
        pairs
    }
}

/// Which model it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// The folder's name.
    pub name: String,
    /// The first ten hexadecimal digits of the SHA-256 of the weight files, as the field abbreviates it.
    pub hash: String,
}

impl Recipe {
    /// The text chunks for a PNG file.
    pub fn text_chunks(&self) -> Vec<TextChunk> {
        // A struct of strings and finite numbers always has a JSON form.
        let json = serde_json::to_string(self).unwrap_or_default();
        let mut chunks = vec![
            (PARAMETERS_KEY.to_string(), self.parameters()),
            (RECIPE_KEY.to_string(), json),
        ];
        let notice = self.notice.clone();
        chunks.extend(notice.map(|notice| (COPYRIGHT_KEY.to_string(), notice)));
        chunks
    }

    /// AUTOMATIC1111's text: the prompt, then `Negative prompt: …` where there is one, then one line of
    /// `Key: value` pairs separated by commas.
    pub fn parameters(&self) -> String {
        let mut pairs = vec![
            ("Steps", self.steps.to_string()),
            ("Sampler", self.sampler_label.clone()),
            ("Schedule type", self.schedule_label.clone()),
            ("CFG scale", self.guidance_scale.to_string()),
            ("Seed", self.seed.to_string()),
            ("Size", format!("{}x{}", self.width, self.height)),
            ("Model hash", self.model.hash.clone()),
            ("Model", self.model.name.clone()),
        ];
        if let Some(strength) = self.strength {
            pairs.push(("Denoising strength", strength.to_string()));
        }
        pairs.extend(self.inpainting.iter().flat_map(Inpainting::pairs));
        if self.eta != 0.0 {
            pairs.push(("Eta DDIM", self.eta.to_string()));
        }
        pairs.push(("Version", format!("Velatura {}", self.version)));
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(key, value)| format!("{key}: {}", quoted(value)))
            .collect();
        let mut text = self.prompt.clone();
        if !self.negative_prompt.is_empty() {
            text.push_str("\nNegative prompt: ");
            text.push_str(&self.negative_prompt);
        }
        text.push('\n');
        text.push_str(&pairs.join(", "));
        text
    }
}

fn txt2img() -> String {
    "txt2img".to_string()
}

/// A value as it stands in the list of pairs: a JSON string where it holds what separates pairs.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            version: "0.1.0".into(),
            model: ModelIdentity {
                name: "stable-diffusion-v1-5".into(),
                hash: "0123456789".into(),
            },
            prompt: "a red car on a beach at sunset".into(),
            negative_prompt: "blurry, text".into(),
            seed: 42,
            steps: 30,
            sampler: "dpm++2m".into(),
            sampler_label: "DPM++ 2M".into(),
            schedule: "karras".into(),
            schedule_label: "Karras".into(),
            eta: 0.0,
            guidance_scale: 7.5,
            width: 512,
            height: 768,
            mode: "txt2img".into(),
            strength: None,
            inpainting: None,
            precision: "f32".into(),
            notice: None,
        }
    }

    #[test]
    fn a_licence_goes_with_the_picture() {
        assert_eq!(recipe().text_chunks().len(), 2);
        let notice = "Copyright (c) Somebody.\n\nMIT".to_string();
        let recipe = Recipe {
            notice: Some(notice.clone()),
            ..recipe()
        };
        let chunks = recipe.text_chunks();
        assert_eq!(chunks[2], (COPYRIGHT_KEY.to_string(), notice));
        assert!(!chunks[1].1.contains("Somebody"));
    }

    #[test]
    fn the_text_is_what_the_web_ui_writes() {
        let mut recipe = recipe();
        assert_eq!(
            recipe.parameters(),
            "a red car on a beach at sunset\n\
             Negative prompt: blurry, text\n\
             Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 42, Size: 512x768, \
             Model hash: 0123456789, Model: stable-diffusion-v1-5, Version: Velatura 0.1.0"
        );
        recipe.negative_prompt.clear();
        recipe.guidance_scale = 7.0;
        recipe.model.name = "mine: \"best\", final".into();
        assert_eq!(
            recipe.parameters(),
            "a red car on a beach at sunset\n\
             Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 42, Size: 512x768, \
             Model hash: 0123456789, Model: \"mine: \\\"best\\\", final\", Version: Velatura 0.1.0"
        );
    }

    #[test]
    fn a_picture_to_begin_with_is_told_by_its_strength() {
        let recipe = Recipe {
            mode: "img2img".into(),
            strength: Some(0.6),
            ..recipe()
        };
        let text = recipe.parameters();
        assert!(text.contains(", Denoising strength: 0.6, "), "{text}");
    }

    #[test]
    fn the_json_reads_back() {
        let mut recipe = recipe();
        let chunks = recipe.text_chunks();
        let back: Recipe = serde_json::from_str(&chunks[1].1).unwrap();
        recipe.sampler_label.clear();
        recipe.schedule_label.clear();
        assert_eq!(back, recipe);
        // What was written before there were modes.
        let mut old: serde_json::Value = serde_json::from_str(&chunks[1].1).unwrap();
        old.as_object_mut().unwrap().remove("mode");
        assert_eq!(serde_json::from_value::<Recipe>(old).unwrap(), recipe);
    }
}
