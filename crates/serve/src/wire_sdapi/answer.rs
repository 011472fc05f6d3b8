//! What AUTOMATIC1111's clients are answered: recipes, lists, and the parameters text taken apart.

use serde_json::{Map, Value, json};
use velatura::diffusion::{Sampler, Spacing};
use velatura::metadata::{Inpainting, Recipe};

/// The `info` text of an answer: JSON inside JSON.
pub fn info(recipes: &[Recipe], batch_size: usize, timestamp: &str) -> String {
    let Some(first) = recipes.first() else {
        return "{}".to_string();
    };
    let every = |value: &dyn Fn(&Recipe) -> Value| recipes.iter().map(value).collect::<Vec<_>>();
    json!({
        "prompt": first.prompt,
        "all_prompts": every(&|recipe| json!(recipe.prompt)),
        "negative_prompt": first.negative_prompt,
        "all_negative_prompts": every(&|recipe| json!(recipe.negative_prompt)),
        "seed": first.seed,
        "all_seeds": every(&|recipe| json!(recipe.seed)),
        "subseed": first.seed,
        "all_subseeds": every(&|recipe| json!(recipe.seed)),
        "subseed_strength": 0,
        "width": first.width,
        "height": first.height,
        "sampler_name": sampler_label(&first.sampler),
        "cfg_scale": first.guidance_scale,
        "steps": first.steps,
        "batch_size": batch_size,
        "restore_faces": false,
        "face_restoration_model": null,
        "sd_model_name": first.model.name,
        "sd_model_hash": first.model.hash,
        "sd_vae_name": null,
        "sd_vae_hash": null,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": first.strength,
        "extra_generation_params": extra(first),
        "index_of_first_image": 0,
        "infotexts": every(&|recipe| json!(labelled(recipe).parameters())),
        "styles": [],
        "job_timestamp": timestamp,
        "clip_skip": 1,
        "is_using_inpainting_conditioning": false,
        "version": format!("Velatura {}", first.version),
    })
    .to_string()
}

/// What the web UI's text has beyond the fields of its answer.
fn extra(recipe: &Recipe) -> Map<String, Value> {
    let schedule = ("Schedule type", schedule_label(&recipe.schedule));
    let inpainting = recipe.inpainting.iter().flat_map(Inpainting::pairs);
    std::iter::once(schedule)
        .chain(inpainting)
        .map(|(name, value)| (name.to_string(), json!(value)))
        .collect()
}

/// A recipe that was read back, with the names that its text uses.
fn labelled(recipe: &Recipe) -> Recipe {
    Recipe {
        sampler_label: sampler_label(&recipe.sampler),
        schedule_label: schedule_label(&recipe.schedule),
        ..recipe.clone()
    }
}

fn sampler_label(name: &str) -> String {
    let sampler = name.parse::<Sampler>();
    sampler.map_or_else(|_| name.to_string(), |sampler| sampler.label().to_string())
}

fn schedule_label(name: &str) -> String {
    let spacing = name.parse::<Spacing>();
    spacing.map_or_else(|_| name.to_string(), |spacing| spacing.label().to_string())
}

/// The list of samplers.
pub fn samplers() -> Value {
    let row = |sampler: Sampler| {
        json!({
            "name": sampler.label(),
            "aliases": [sampler.name(), sampler.diffusers_class()],
            "options": {},
        })
    };
    Sampler::ALL.into_iter().map(row).collect()
}

/// The list of spacings.
pub fn schedulers() -> Value {
    let automatic = json!({
        "name": "automatic", "label": "Automatic", "aliases": null, "default_rho": -1, "need_inner_model": false,
    });
    let row = |spacing: Spacing| {
        json!({
            "name": spacing.name(),
            "label": spacing.label(),
            "aliases": null,
            "default_rho": if spacing == Spacing::Karras { 7 } else { -1 },
            "need_inner_model": false,
        })
    };
    std::iter::once(automatic)
        .chain(Spacing::ALL.into_iter().map(row))
        .collect()
}

/// The pairs of a `parameters` text's last line.
pub fn items(parameters: &str) -> Map<String, Value> {
    let mut items = Map::new();
    let (text, pairs) = match parameters.rsplit_once('\n') {
        Some((text, pairs)) if pairs.starts_with("Steps: ") => (text, pairs),
        _ => (parameters, ""),
    };
    let (prompt, negative) = match text.split_once("\nNegative prompt: ") {
        Some((prompt, negative)) => (prompt, negative),
        None => (text, ""),
    };
    items.insert("Prompt".to_string(), json!(prompt));
    items.insert("Negative prompt".to_string(), json!(negative));
    let mut rest = pairs;
    while let Some((key, after)) = rest.split_once(": ") {
        // A value that holds what separates pairs is a JSON string.
        let mut reader = serde_json::Deserializer::from_str(after).into_iter::<String>();
        let (value, end) = match reader.next() {
            Some(Ok(value)) => (value, reader.byte_offset()),
            _ => {
                let end = after.find(", ").unwrap_or(after.len());
                (after[..end].to_string(), end)
            }
        };
        items.insert(key.to_string(), json!(value));
        rest = after[end..].trim_start_matches(", ");
    }
    items
}
