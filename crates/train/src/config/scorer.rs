//! The network that judges scenes, and the pictures that it learns from.

use serde::{Deserialize, Serialize};

/// `[scorer]` (part "scorer")
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scorer {
    /// Channels of a fresh network at a half, a quarter, an eighth and a sixteenth of the picture's size.
    pub block_out_channels: [usize; 4],
    /// Groups of its norms.
    pub norm_num_groups: usize,
    /// Share of pictures that show nothing: noise, and scenes in pieces.
    pub nothing: f32,
    /// Share of scenes without things.
    pub empty: f32,
    /// Share of pictures made soft, grainy, crooked or a little off in tone.
    pub degraded: f32,
    /// Share of pictures taken through the autoencoder that `[model] vae` names.
    pub reconstructed: f32,
}

impl Default for Scorer {
    fn default() -> Self {
        Scorer {
            block_out_channels: [32, 48, 96, 160],
            norm_num_groups: 8,
            nothing: 0.06,
            empty: 0.06,
            degraded: 0.7,
            reconstructed: 0.06,
        }
    }
}

impl Scorer {
    /// The first field that cannot be, in words for the person.
    pub(super) fn check(&self) -> Result<(), String> {
        for (share, name) in [
            (self.nothing, "nothing"),
            (self.empty, "empty"),
            (self.degraded, "degraded"),
            (self.reconstructed, "reconstructed"),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(format!(
                    "[scorer] {name}: expected a share from 0 to 1, found {share}"
                ));
            }
        }
        let groups = self.norm_num_groups;
        let fits = |&c: &usize| groups > 0 && c > 0 && c.is_multiple_of(groups);
        if self.block_out_channels.iter().all(fits) {
            return Ok(());
        }
        Err(format!(
            "[scorer] block_out_channels: expected multiples of norm_num_groups = {groups}, found {:?}",
            self.block_out_channels
        ))
    }
}
