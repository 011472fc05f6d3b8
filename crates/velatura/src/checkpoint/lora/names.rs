//! How programs name the matrices of a low-rank adaptation, as data. Inside, a layer has one name: component and path
//! with underscores for dots, which is what kohya's scripts write and what every other spelling can be turned into.

use super::super::canonical;

/// What a tensor of the file is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A: from the layer's inputs to the rank.
    Down,
    /// B: from the rank to the layer's outputs.
    Up,
    /// α, a single number.
    Alpha,
}

/// What follows the layer in a tensor's name.
const SUFFIXES: &[(&str, Part)] = &[
    // PEFT, and diffusers since 0.21.
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_A.default.weight", Part::Down),
    (".lora_B.default.weight", Part::Up),
    // kohya's scripts.
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".alpha", Part::Alpha),
    // Older versions of diffusers: layers, attention processors, text encoder.
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
];

/// What stands before the layer, and the component it means.
const PREFIXES: &[(&str, &str)] = &[
    ("lora_unet_", UNET),
    ("lora_te_", TEXT),
    // diffusers' conversion to kohya's names, which serves Stable Diffusion XL as well.
    ("lora_te1_", TEXT),
    ("unet.", UNET),
    ("text_encoder.", TEXT),
];

/// What cannot be written as B·A, by a part of the name.
const FOREIGN: &[(&str, &str)] = &[
    ("hada_", "a LoHa (Hadamard product)"),
    ("lokr_", "a LoKr (Kronecker product)"),
    ("lora_mid", "a LoCon in three factors"),
    ("dora_scale", "a DoRA"),
    ("lora_magnitude_vector", "a DoRA"),
    ("lora_te2_", "an adaptation for Stable Diffusion XL"),
    ("text_encoder_2.", "an adaptation for Stable Diffusion XL"),
];

const UNET: &str = "unet";
const TEXT: &str = "text_encoder";

/// What a tensor's name says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A part of this layer.
    Of { layer: String, part: Part },
    /// Something that is not supported; in words.
    Foreign(&'static str),
    /// Nothing that is known.
    Unknown,
}

/// Reads a tensor's name.
pub(super) fn read(name: &str) -> Meaning {
    if let Some((_, what)) = FOREIGN.iter().find(|(part, _)| name.contains(part)) {
        return Meaning::Foreign(what);
    }
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    let Some((stem, part)) = SUFFIXES
        .iter()
        .find_map(|(suffix, part)| Some((name.strip_suffix(suffix)?, *part)))
    else {
        return Meaning::Unknown;
    };
    let Some((path, component)) = PREFIXES
        .iter()
        .find_map(|(prefix, component)| Some((stem.strip_prefix(prefix)?, *component)))
    else {
        return Meaning::Unknown;
    };
    // An attention processor's name comes between the attention and its projection, which for the output lost the
    // index of the list that it stands in.
    let path = match path.split_once(".processor.") {
        Some((attention, "to_out")) => format!("{attention}.to_out.0"),
        Some((attention, projection)) => format!("{attention}.{projection}"),
        None => path.to_owned(),
    };
    // What transformers 5 leaves out, in names with underscores too.
    let path = match path.strip_prefix("encoder_layers_") {
        Some(rest) if component == TEXT => format!("text_model_encoder_layers_{rest}"),
        _ => canonical(&path),
    };
    let layer = layer_name(component, &path);
    Meaning::Of { layer, part }
}

/// The one name of the layer at `path` in `component`.
pub(super) fn layer_name(component: &str, path: &str) -> String {
    format!("{component}/{}", path.replace('.', "_"))
}

/// How kohya's scripts begin the names of a component's layers.
pub(super) fn kohya_prefix(component: &str) -> &'static str {
    if component == TEXT {
        "lora_te_"
    } else {
        "lora_unet_"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_means_the_same_layer() {
        let attention = "down_blocks.0.attentions.1.transformer_blocks.0.attn2";
        let flat = "down_blocks_0_attentions_1_transformer_blocks_0_attn2";
        for (name, part) in [
            (
                format!("unet.{attention}.to_out.0.lora_A.weight"),
                Part::Down,
            ),
            (
                format!("base_model.model.unet.{attention}.to_out.0.lora_B.default.weight"),
                Part::Up,
            ),
            (
                format!("lora_unet_{flat}_to_out_0.lora_down.weight"),
                Part::Down,
            ),
            (format!("lora_unet_{flat}_to_out_0.alpha"), Part::Alpha),
            (
                format!("unet.{attention}.to_out.0.lora.up.weight"),
                Part::Up,
            ),
            (
                format!("unet.{attention}.processor.to_out_lora.down.weight"),
                Part::Down,
            ),
        ] {
            let layer = format!("unet/{flat}_to_out_0");
            assert_eq!(read(&name), Meaning::Of { layer, part }, "{name}");
        }
        for name in [
            "text_encoder.text_model.encoder.layers.3.self_attn.q_proj.lora_A.weight",
            "text_encoder.encoder.layers.3.self_attn.q_proj.lora_linear_layer.down.weight",
            "lora_te_text_model_encoder_layers_3_self_attn_q_proj.lora_down.weight",
            "lora_te1_encoder_layers_3_self_attn_q_proj.lora_down.weight",
        ] {
            let layer = "text_encoder/text_model_encoder_layers_3_self_attn_q_proj".into();
            let part = Part::Down;
            assert_eq!(read(name), Meaning::Of { layer, part }, "{name}");
        }
        assert_eq!(
            read("lora_unet_x.hada_w1_a"),
            Meaning::Foreign("a LoHa (Hadamard product)")
        );
        assert_eq!(read("conv_in.weight"), Meaning::Unknown);
    }
}
