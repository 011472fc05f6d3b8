//! What the network should say of a scene.

use velatura_scenes::{COLOURS, Truth};

use super::net::{CELLS, ScorerConfig};
use super::sight::middle;

/// A thing's centre in the grid and what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Column and row of the cell with the centre.
    pub cell: [usize; 2],
    /// The centre, across and down, in cells.
    pub centre: [f32; 2],
    /// Width and height in cells.
    pub size: [f32; 2],
    pub noun: usize,
    pub colour: usize,
}

/// What is to be said of one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub points: Vec<Point>,
    /// Classes of landscape, hour and weather.
    pub scene: [usize; 3],
}

impl Target {
    /// Of a picture that shows nothing: noise.
    pub fn nothing(config: &ScorerConfig) -> Target {
        Target {
            points: Vec::new(),
            scene: config.scene_classes().map(|classes| classes - 1),
        }
    }

    /// Of a scene, with its things or without them.
    pub fn of(config: &ScorerConfig, truth: &Truth, with_things: bool) -> Target {
        fn class<T: PartialEq>(all: &[T], one: &T) -> usize {
            all.iter().position(|x| x == one).unwrap_or(all.len())
        }
        let objects = truth.objects.iter().filter(|_| with_things);
        let points = objects.flat_map(|object| {
            let noun = class(&config.nouns, &object.noun);
            let colour = object
                .colour
                .map_or(COLOURS.len(), |colour| class(&COLOURS, &colour));
            object.boxes.iter().map(move |b| {
                let (centre, size) = middle(b, truth.size as f32);
                let centre = centre.map(|x| x * CELLS as f32);
                Point {
                    cell: centre.map(|x| (x as usize).min(CELLS - 1)),
                    centre,
                    size: size.map(|x| x * CELLS as f32),
                    noun,
                    colour,
                }
            })
        });
        Target {
            points: points.collect(),
            // An hour or a weather that there is not has the class of nothing to be seen.
            scene: [
                class(&config.settings, &truth.setting),
                truth
                    .time
                    .map_or(config.times.len(), |time| class(&config.times, &time)),
                truth.weather.map_or(config.weathers.len(), |weather| {
                    class(&config.weathers, &weather)
                }),
            ],
        }
    }
}
