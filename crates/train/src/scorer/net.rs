//! The network: a few residual blocks on the way down, one on the way up.

use std::path::Path;

use serde_json::{Value, json};
use velatura::checkpoint::Component;
use velatura::nn::{Conv2d, GroupNorm, ResnetBlock, ResnetSizes};
use velatura::weights::{Mode, Store, Weights};
use velatura_scenes::{COLOURS, Colour, Setting, Time, Weather};
use velatura_tensor::tape::no_grad;
use velatura_tensor::{Padding, Precision, Tensor};

use super::sight::Sight;
use crate::error::{Error, Result};

/// Cells of the grid along a side: a thing's smallest distance from its like is some five of them.
pub const CELLS: usize = 16;
/// What the picture's side is divided by to give the grid.
pub const CELL: usize = 8;
/// Channels of a cell before its classes: whether a centre is there, where in the cell, and the logarithms of width
/// and height.
pub const PLACE: usize = 5;

const EPS: f32 = 1e-6;

/// The sizes of a [`Scorer`], and what it tells apart.
#[derive(Clone, Debug, PartialEq)]
pub struct ScorerConfig {
    /// Channels at a half, a quarter, an eighth and a sixteenth of the picture's size.
    pub block_out_channels: [usize; 4],
    pub norm_num_groups: usize,
    /// The things it knows, in the singular.
    pub nouns: Vec<String>,
    /// The landscapes, hours and weathers that it knows.
    pub settings: Vec<Setting>,
    pub times: Vec<Time>,
    pub weathers: Vec<Weather>,
}

impl ScorerConfig {
    /// The side in pixels of the pictures that it sees; others are scaled.
    pub const SIZE: usize = CELLS * CELL;

    /// Classes of a thing's colour; the last means that it has no single one.
    pub const COLOURS: usize = COLOURS.len() + 1;

    /// Of everything that this program's scenes have, with these things.
    pub fn of_all_scenes(
        block_out_channels: [usize; 4],
        norm_num_groups: usize,
        nouns: Vec<String>,
    ) -> ScorerConfig {
        ScorerConfig {
            block_out_channels,
            norm_num_groups,
            nouns,
            settings: Setting::ALL.to_vec(),
            times: Time::ALL.to_vec(),
            weathers: Weather::ALL.to_vec(),
        }
    }

    /// Classes of a landscape, an hour and a weather; the last of each means that there is none to be seen.
    pub fn scene_classes(&self) -> [usize; 3] {
        [self.settings.len(), self.times.len(), self.weathers.len()].map(|known| known + 1)
    }

    /// Channels of a cell.
    pub fn cell_channels(&self) -> usize {
        PLACE + self.nouns.len() + Self::COLOURS
    }

    /// For `config.json`.
    pub fn to_json(&self) -> Value {
        let names = |names: &[&str]| json!(names);
        json!({
            "_class_name": "VelaturaSceneScorer",
            "block_out_channels": self.block_out_channels,
            "norm_num_groups": self.norm_num_groups,
            "sample_size": Self::SIZE,
            "nouns": self.nouns,
            "colours": names(&COLOURS.map(Colour::name)),
            "settings": self.settings.iter().map(|x| x.name()).collect::<Vec<_>>(),
            "times": self.times.iter().map(|x| x.name()).collect::<Vec<_>>(),
            "weathers": self.weathers.iter().map(|x| x.name()).collect::<Vec<_>>(),
        })
    }

    /// # Errors
    /// A field is missing or of another kind; the classes are not those of this program's scenes.
    pub fn from_json(value: &Value) -> Result<ScorerConfig, String> {
        let numbers = |field: &str| -> Result<Vec<usize>, String> {
            let list = value[field].as_array().ok_or_else(|| {
                format!(
                    "{field}: expected a list of numbers, found {}",
                    value[field]
                )
            })?;
            let number = |n: &Value| n.as_u64().map(|n| n as usize);
            let read: Option<Vec<usize>> = list.iter().map(number).collect();
            read.ok_or_else(|| format!("{field}: expected whole numbers, found {}", value[field]))
        };
        let channels = numbers("block_out_channels")?;
        let groups = value["norm_num_groups"]
            .as_u64()
            .ok_or("norm_num_groups: expected a number")? as usize;
        let found = channels.len();
        let block_out_channels: [usize; 4] = channels
            .try_into()
            .map_err(|_| format!("block_out_channels: expected 4 numbers, found {found}"))?;
        let divides = |&c: &usize| c > 0 && groups > 0 && c.is_multiple_of(groups);
        if !block_out_channels.iter().all(divides) {
            return Err(format!(
                "block_out_channels: expected multiples of norm_num_groups = {groups}, found {block_out_channels:?}"
            ));
        }
        let config = ScorerConfig {
            block_out_channels,
            norm_num_groups: groups,
            nouns: names(value, "nouns", |name| Some(name.to_owned()))?,
            settings: names(value, "settings", Setting::from_name)?,
            times: names(value, "times", Time::from_name)?,
            weathers: names(value, "weathers", Weather::from_name)?,
        };
        let own = config.to_json();
        for field in ["sample_size", "colours"] {
            if !value[field].is_null() && value[field] != own[field] {
                return Err(format!(
                    "{field}: expected {}, found {}",
                    own[field], value[field]
                ));
            }
        }
        Ok(config)
    }
}

/// What the names of a list stand for.
fn names<T>(
    value: &Value,
    field: &str,
    find: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, String> {
    let list = value[field].as_array().filter(|list| !list.is_empty());
    let list =
        list.ok_or_else(|| format!("{field}: expected a list of names, found {}", value[field]))?;
    list.iter()
        .map(|name| {
            name.as_str()
                .and_then(&find)
                .ok_or_else(|| format!("{field}: this program's scenes have no {name}"))
        })
        .collect()
}

/// What the network says of a batch.
pub struct Outputs {
    /// `[B, CELLS, CELLS, cell_channels]`: [`PLACE`] numbers, the nouns' logits, the colours'.
    pub cells: Tensor,
    /// `[B, CELLS / 2, CELLS / 2, Σ scene_classes]`: logits of landscape, hour and weather, whose mean over all places counts.
    pub scene: Tensor,
}

/// The network.
#[derive(Clone, Debug)]
pub struct Scorer {
    config: ScorerConfig,
    conv_in: Conv2d,
    downs: [Conv2d; 3],
    quarter: ResnetBlock,
    eighth: [ResnetBlock; 2],
    sixteenth: ResnetBlock,
    up: Conv2d,
    joined: ResnetBlock,
    norm_cells: GroupNorm,
    conv_cells: Conv2d,
    norm_scene: GroupNorm,
    conv_scene: Conv2d,
}

impl Scorer {
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(config: &ScorerConfig, w: &Weights) -> velatura::Result<Self> {
        let groups = config.norm_num_groups;
        let [half, quarter, eighth, sixteenth] = config.block_out_channels;
        let w = w.with_map_size((2 * CELLS, 2 * CELLS));
        let halving = |name: &str, inputs, outputs| {
            Conv2d::strided(&w.at(name), inputs, outputs, 3, 2, Padding::uniform(1))
        };
        let block = |name: &str, channels| {
            let sizes = ResnetSizes {
                inputs: channels,
                outputs: channels,
                time: None,
                groups,
                eps: EPS,
            };
            ResnetBlock::load(&w.at(name), sizes)
        };
        let norm = |name: &str, channels| GroupNorm::load(&w.at(name), groups, channels, EPS);
        let scene = config.scene_classes().iter().sum();
        Ok(Scorer {
            conv_in: halving("conv_in", 3, half)?,
            downs: [
                halving("down_quarter", half, quarter)?,
                halving("down_eighth", quarter, eighth)?,
                halving("down_sixteenth", eighth, sixteenth)?,
            ],
            quarter: block("quarter", quarter)?,
            eighth: [block("eighth.0", eighth)?, block("eighth.1", eighth)?],
            sixteenth: block("sixteenth", sixteenth)?,
            up: Conv2d::load(&w.at("up"), sixteenth, eighth, 1)?,
            joined: block("joined", eighth)?,
            norm_cells: norm("norm_cells", eighth)?,
            conv_cells: Conv2d::load(&w.at("conv_cells"), eighth, config.cell_channels(), 1)?,
            norm_scene: norm("norm_scene", sixteenth)?,
            conv_scene: Conv2d::load(&w.at("conv_scene"), sixteenth, scene, 1)?,
            config: config.clone(),
        })
    }

    /// From a folder that a run has written.
    ///
    /// # Errors
    /// The folder or its config cannot be read; a tensor is missing, left over or of another shape.
    pub fn open(dir: &Path) -> Result<Scorer> {
        Scorer::from_component(&Component::open(dir, None)?)
    }

    /// From an open folder.
    ///
    /// # Errors
    /// As [`Scorer::open`].
    pub fn from_component(component: &Component) -> Result<Scorer> {
        let config = ScorerConfig::from_json(&component.config()?)
            .map_err(|message| Error::config(&component.config_path(), message))?;
        // Small enough that nobody waits for f32, and then it judges alike on every machine.
        let store = Store::load(component, Mode::Inference(Precision::F32));
        let scorer = Scorer::load(&config, &store.root())?;
        store.finish()?;
        Ok(scorer)
    }

    pub fn config(&self) -> &ScorerConfig {
        &self.config
    }

    /// x `[B, SIZE, SIZE, 3]` in [-1, 1].
    pub fn forward(&self, x: &Tensor) -> Outputs {
        let (cells, scene) = self.maps(x);
        Outputs {
            cells: self.conv_cells.forward(&cells),
            scene: self.conv_scene.forward(&scene),
        }
    }

    /// What both heads look at.
    fn maps(&self, x: &Tensor) -> (Tensor, Tensor) {
        let [down_quarter, down_eighth, down_sixteenth] = &self.downs;
        let x = down_quarter.forward(&self.conv_in.forward(x));
        let mut x = down_eighth.forward(&self.quarter.forward(&x, None));
        for block in &self.eighth {
            x = block.forward(&x, None);
        }
        let scene = self.sixteenth.forward(&down_sixteenth.forward(&x), None);
        let above = self.up.forward(&scene).upsample_nearest2x();
        let cells = self.joined.forward(&x.add(&above), None);
        (
            self.norm_cells.forward_silu(&cells),
            self.norm_scene.forward_silu(&scene),
        )
    }

    /// What each picture of x `[B, SIZE, SIZE, 3]` shows.
    pub fn look(&self, x: &Tensor) -> Vec<Sight> {
        let outputs = no_grad(|| self.forward(x));
        let cells = outputs.cells.len() / x.dim(0);
        let scene = outputs.scene.len() / x.dim(0);
        outputs
            .cells
            .as_slice()
            .chunks_exact(cells)
            .zip(outputs.scene.as_slice().chunks_exact(scene))
            .map(|(cells, scene)| Sight::read(&self.config, cells, scene))
            .collect()
    }

    /// The features of each picture of x `[B, SIZE, SIZE, 3]`, before the last layers: the means over all places,
    /// [`Scorer::feature_len`] numbers a picture.
    pub fn features(&self, x: &Tensor) -> Vec<f32> {
        let (cells, scene) = no_grad(|| self.maps(x));
        let mut features = Vec::with_capacity(x.dim(0) * self.feature_len());
        for sample in 0..x.dim(0) {
            for map in [&cells, &scene] {
                let (places, channels) = (map.dim(1) * map.dim(2), map.channels());
                let values = &map.as_slice()[sample * places * channels..][..places * channels];
                let mut means = vec![0.0; channels];
                for place in values.chunks_exact(channels) {
                    for (mean, &value) in means.iter_mut().zip(place) {
                        *mean += value / places as f32;
                    }
                }
                features.extend(means);
            }
        }
        features
    }

    /// How many features a picture has.
    pub fn feature_len(&self) -> usize {
        self.config.block_out_channels[2] + self.config.block_out_channels[3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_survives_json_and_other_classes_are_refused() {
        let config =
            ScorerConfig::of_all_scenes([8, 8, 16, 16], 8, vec!["car".into(), "cat".into()]);
        let json = config.to_json();
        assert_eq!(ScorerConfig::from_json(&json).unwrap(), config);
        for (field, value) in [
            ("settings", json!(["sea"])),
            ("nouns", json!([])),
            ("norm_num_groups", json!(3)),
            ("block_out_channels", json!([8, 8])),
        ] {
            let mut wrong = json.clone();
            wrong[field] = value;
            let message = ScorerConfig::from_json(&wrong).unwrap_err();
            assert!(
                message.contains(field) || field == "norm_num_groups",
                "{message}"
            );
        }
    }
}
