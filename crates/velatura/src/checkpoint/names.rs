//! Foreign tensor names, as data. Inside Velatura a tensor has one name: the one that diffusers gives it today
//! (and, for the text encoder, the one that published checkpoints and `transformers` 4 have).

/// One way in which files spell a name differently.
enum Rule {
    /// `transformers` 5 drops the first segment: a name that begins with `.0` belongs under `.1`.
    Under(&'static str, &'static str),
    /// Segments renamed inside a kind of block: in a name that contains `within`, the part `from`, which stands
    /// between dots, is written `to`.
    Segment {
        within: &'static str,
        from: &'static str,
        to: &'static str,
    },
}

/// Every foreign spelling that is understood.
const RULES: &[Rule] = &[
    // CLIP text models, written by transformers 5.
    Rule::Under("embeddings.", "text_model."),
    Rule::Under("encoder.layers.", "text_model."),
    Rule::Under("final_layer_norm.", "text_model."),
    // The attention of AutoencoderKL, written by diffusers before 0.17.
    Rule::Segment {
        within: "mid_block.attentions.",
        from: "query",
        to: "to_q",
    },
    Rule::Segment {
        within: "mid_block.attentions.",
        from: "key",
        to: "to_k",
    },
    Rule::Segment {
        within: "mid_block.attentions.",
        from: "value",
        to: "to_v",
    },
    Rule::Segment {
        within: "mid_block.attentions.",
        from: "proj_attn",
        to: "to_out.0",
    },
];

/// Tensors that files carry though no model needs them: buffers which older versions saved.
const HARMLESS: &[&str] = &[
    "text_model.embeddings.position_ids",
    "vision_model.embeddings.position_ids",
];

/// Attention projections are matrices, which some converters wrote as 1×1 convolutions `[O, I, 1, 1]`.
const MATRICES: &[&str] = &[
    "to_q.weight",
    "to_k.weight",
    "to_v.weight",
    "to_out.0.weight",
];

/// The one name of the tensor which a file calls `name`.
pub fn canonical(name: &str) -> String {
    let mut name = name.to_owned();
    for rule in RULES {
        match rule {
            Rule::Under(start, prefix) if name.starts_with(start) => name.insert_str(0, prefix),
            Rule::Segment { within, from, to } if name.contains(within) => {
                let rename =
                    |segment: &str| if segment == *from { *to } else { segment }.to_owned();
                name = name.split('.').map(rename).collect::<Vec<_>>().join(".");
            }
            _ => {}
        }
    }
    name
}

/// Whether a tensor that no model asked for may stay unused. `name` is canonical.
pub fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name)
}

/// The shape in which the tensor with this canonical name is used: `shape`, without the 1×1 kernel that some
/// converters gave to attention projections.
pub fn canonical_shape<'a>(name: &str, shape: &'a [usize]) -> &'a [usize] {
    match shape {
        [_, _, 1, 1] if MATRICES.iter().any(|matrix| name.ends_with(matrix)) => &shape[..2],
        _ => shape,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_names_become_canonical_and_canonical_names_stay() {
        let table = [
            (
                "embeddings.token_embedding.weight",
                "text_model.embeddings.token_embedding.weight",
            ),
            (
                "encoder.layers.3.self_attn.q_proj.bias",
                "text_model.encoder.layers.3.self_attn.q_proj.bias",
            ),
            (
                "final_layer_norm.weight",
                "text_model.final_layer_norm.weight",
            ),
            (
                "decoder.mid_block.attentions.0.query.weight",
                "decoder.mid_block.attentions.0.to_q.weight",
            ),
            (
                "encoder.mid_block.attentions.0.proj_attn.bias",
                "encoder.mid_block.attentions.0.to_out.0.bias",
            ),
            // These look alike, and are something else.
            (
                "encoder.down_blocks.0.resnets.0.conv1.weight",
                "encoder.down_blocks.0.resnets.0.conv1.weight",
            ),
            (
                "mid_block.attentions.0.proj_in.weight",
                "mid_block.attentions.0.proj_in.weight",
            ),
        ];
        for (foreign, expected) in table {
            assert_eq!(canonical(foreign), expected);
            assert_eq!(canonical(expected), expected);
        }
    }

    #[test]
    fn only_attention_projections_lose_a_unit_kernel() {
        assert_eq!(
            canonical_shape("mid_block.attentions.0.to_q.weight", &[8, 8, 1, 1]),
            &[8, 8]
        );
        assert_eq!(
            canonical_shape("mid_block.attentions.0.proj_in.weight", &[8, 8, 1, 1]),
            &[8, 8, 1, 1]
        );
    }
}
