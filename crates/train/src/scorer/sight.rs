//! What is seen in a picture: by the network, or as it truly is.

use velatura_scenes::{COLOURS, Colour, PixelBox, Setting, Time, Truth, Weather};

use super::net::{CELLS, PLACE, ScorerConfig};

/// A thing in a picture. Lengths are in sides of the picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Thing {
    /// None where it is there but nobody could say what it is.
    pub noun: Option<String>,
    pub colour: Option<Colour>,
    /// Centre, across and down.
    pub centre: [f32; 2],
    /// Width and height.
    pub size: [f32; 2],
    /// How sure it is that something is there, 0 to 1.
    pub certainty: f32,
}

/// What a picture shows; none where that cannot be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sight {
    pub setting: Option<Setting>,
    pub time: Option<Time>,
    pub weather: Option<Weather>,
    pub things: Vec<Thing>,
}

/// A cell holds a centre from here on.
const CERTAIN: f32 = 0.35;
/// A class is named where it is likelier than all others together.
const LIKELY: f32 = 0.5;
/// A thing has a colour where that one is at least so likely, and likelier than the others. That it has no single one is no
/// rival: where a picture's colours are half and half, the captions of scenes draw the line by a measured share, but who
/// asks for an orange cat is content with one whose paws are white.
const COLOURED: f32 = 0.2;
/// Two centres nearer than this share of the larger thing's size are one thing.
const ONE_THING: f32 = 0.3;

impl Sight {
    /// The scene as it is: what a perfect eye sees.
    pub fn of(truth: &Truth) -> Sight {
        let side = truth.size as f32;
        let things = truth.objects.iter().flat_map(|object| {
            object.boxes.iter().map(move |b| {
                let (centre, size) = middle(b, side);
                Thing {
                    noun: Some(object.noun.clone()),
                    colour: object.colour,
                    centre,
                    size,
                    certainty: 1.0,
                }
            })
        });
        Sight {
            setting: Some(truth.setting),
            time: truth.time,
            weather: truth.weather,
            things: things.collect(),
        }
    }

    /// From the outputs of a picture: cells `[CELLS, CELLS, cell_channels]`, scene `[places, Σ scene_classes]`.
    pub(super) fn read(config: &ScorerConfig, cells: &[f32], scene: &[f32]) -> Sight {
        let [settings, times, weathers] = config.scene_classes();
        let means = mean_logits(scene, settings + times + weathers);
        let (setting, rest) = means.split_at(settings);
        let (time, weather) = rest.split_at(times);
        Sight {
            setting: likely(setting).and_then(|class| config.settings.get(class).copied()),
            time: likely(time).and_then(|class| config.times.get(class).copied()),
            weather: likely(weather).and_then(|class| config.weathers.get(class).copied()),
            things: things(config, cells),
        }
    }
}

/// Centre and size of a box in sides of the picture.
pub(super) fn middle(b: &PixelBox, side: f32) -> ([f32; 2], [f32; 2]) {
    let [x0, y0, x1, y1] = [b.x0, b.y0, b.x1, b.y1].map(|pixel| pixel as f32 / side);
    ([(x0 + x1) / 2.0, (y0 + y1) / 2.0], [x1 - x0, y1 - y0])
}

/// The mean over all places.
pub(super) fn mean_logits(scene: &[f32], classes: usize) -> Vec<f32> {
    let places = scene.len() / classes;
    let mut means = vec![0.0; classes];
    for place in scene.chunks_exact(classes) {
        for (mean, &logit) in means.iter_mut().zip(place) {
            *mean += logit / places as f32;
        }
    }
    means
}

/// e^x over their sum.
pub(super) fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f32> = logits.iter().map(|&x| (x - most).exp()).collect();
    let sum: f32 = exps.iter().sum();
    exps.into_iter().map(|e| e / sum).collect()
}

pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The class that is likelier than all others together.
fn likely(logits: &[f32]) -> Option<usize> {
    softmax(logits).iter().position(|&p| p > LIKELY)
}

/// The likeliest of the colours, from the logits of all and of having no single one.
fn colour(logits: &[f32]) -> Option<Colour> {
    let likelihoods = softmax(logits);
    let named = COLOURS.into_iter().zip(likelihoods);
    let (colour, likelihood) = named.max_by(|a, b| a.1.total_cmp(&b.1))?;
    (likelihood >= COLOURED).then_some(colour)
}

/// The cells that are surer than their neighbours, the surest first, without those that another one's thing covers.
fn things(config: &ScorerConfig, cells: &[f32]) -> Vec<Thing> {
    let channels = config.cell_channels();
    let cell = |row: usize, column: usize| &cells[(row * CELLS + column) * channels..][..channels];
    let mut found = Vec::new();
    for row in 0..CELLS {
        for column in 0..CELLS {
            let here = cell(row, column);
            let certainty = sigmoid(here[0]);
            let around = (row.saturating_sub(1)..(row + 2).min(CELLS)).flat_map(|r| {
                (column.saturating_sub(1)..(column + 2).min(CELLS)).map(move |c| (r, c))
            });
            let peak = around
                .filter(|&place| place != (row, column))
                .all(|(r, c)| cell(r, c)[0] <= here[0]);
            if peak && certainty >= CERTAIN {
                found.push(thing(config, here, [column, row], certainty));
            }
        }
    }
    found.sort_by(|a, b| b.certainty.total_cmp(&a.certainty));
    let mut kept: Vec<Thing> = Vec::new();
    for thing in found {
        let covered = kept.iter().any(|other| {
            (0..2).all(|axis| {
                let size = thing.size[axis].max(other.size[axis]);
                (thing.centre[axis] - other.centre[axis]).abs() < ONE_THING * size
            })
        });
        if !covered {
            kept.push(thing);
        }
    }
    kept
}

fn thing(config: &ScorerConfig, cell: &[f32], at: [usize; 2], certainty: f32) -> Thing {
    let (place, classes) = cell.split_at(PLACE);
    let (nouns, colours) = classes.split_at(config.nouns.len());
    let in_sides = |cells: f32| cells / CELLS as f32;
    Thing {
        noun: likely(nouns).map(|class| config.nouns[class].clone()),
        colour: colour(colours),
        centre: [0, 1].map(|axis| in_sides(at[axis] as f32 + 0.5 + place[1 + axis])),
        // No thing is larger than the picture, whatever a network says.
        size: [3, 4].map(|channel| in_sides(place[channel].min((CELLS as f32).ln()).exp())),
        certainty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_neighbouring_peaks_on_one_thing_are_one_and_apart_they_are_two() {
        let config = ScorerConfig::of_all_scenes([8; 4], 8, vec!["car".into(), "cat".into()]);
        let channels = config.cell_channels();
        let seen = |columns: [usize; 2], cells_wide: f32| {
            let mut cells = vec![0.0; CELLS * CELLS * channels];
            for cell in cells.chunks_exact_mut(channels) {
                cell[0] = -9.0;
            }
            for (i, column) in columns.into_iter().enumerate() {
                let cell = &mut cells[(8 * CELLS + column) * channels..][..channels];
                cell[0] = 3.0 - i as f32;
                cell[3] = cells_wide.ln();
                cell[4] = cells_wide.ln();
                cell[PLACE + 1] = 5.0;
                cell[PLACE + 2 + Colour::Blue as usize] = 9.0;
            }
            things(&config, &cells)
        };
        assert_eq!(seen([4, 6], 8.0).len(), 1);
        let two = seen([4, 10], 5.0);
        assert_eq!(two.len(), 2);
        assert_eq!(two[0].noun.as_deref(), Some("cat"));
        assert_eq!(two[0].colour, Some(Colour::Blue));
        assert!((two[0].centre[0] - 4.5 / 16.0).abs() < 1e-6);
        assert!((two[0].size[1] - 5.0 / 16.0).abs() < 1e-6);
    }

    #[test]
    fn a_colour_has_to_beat_the_other_colours_but_not_the_lack_of_one() {
        // The logarithms of likelihoods are logits.
        let seen = |orange: f32, white: f32| {
            let mut likelihoods = [1e-6; ScorerConfig::COLOURS];
            likelihoods[Colour::Orange as usize] = orange;
            likelihoods[Colour::White as usize] = white;
            likelihoods[COLOURS.len()] = 1.0 - orange - white;
            colour(&likelihoods.map(f32::ln))
        };
        assert_eq!(seen(0.3, 0.1), Some(Colour::Orange));
        assert_eq!(seen(0.3, 0.35), Some(Colour::White));
        assert_eq!(seen(0.1, 0.15), None);
    }

    /// A network that is never wrong about a cell is never wrong about a scene: what is read of its outputs answers the
    /// scene's own question.
    #[test]
    fn what_a_perfect_network_says_is_read_rightly() {
        use crate::scorer::target::Target;
        use crate::scorer::{Question, judge};
        let generator = velatura_scenes::SceneGenerator::new(velatura_scenes::SceneConfig {
            size: 64,
            pair_share: 0.5,
            count_share: 0.25,
            trio_share: 0.1,
            ..Default::default()
        })
        .unwrap();
        let nouns = generator.nouns().iter().map(|x| x.to_string()).collect();
        let config = ScorerConfig::of_all_scenes([8; 4], 8, nouns);
        let classes = config.scene_classes();
        for index in 0..400 {
            let scene = generator.scene(3, index);
            let target = Target::of(&config, &scene.truth, true);
            let mut cells = vec![-9.0; CELLS * CELLS * config.cell_channels()];
            for point in &target.points {
                let [column, row] = point.cell;
                let at = (row * CELLS + column) * config.cell_channels();
                let cell = &mut cells[at..][..config.cell_channels()];
                cell[0] = 9.0;
                cell[1] = point.centre[0] - column as f32 - 0.5;
                cell[2] = point.centre[1] - row as f32 - 0.5;
                cell[3] = point.size[0].ln();
                cell[4] = point.size[1].ln();
                cell[PLACE + point.noun] = 9.0;
                cell[PLACE + config.nouns.len() + point.colour] = 9.0;
            }
            let mut logits = Vec::new();
            for (count, class) in classes.into_iter().zip(target.scene) {
                logits.extend((0..count).map(|i| if i == class { 9.0 } else { 0.0 }));
            }
            let sight = Sight::read(&config, &cells, &logits);
            let question = Question::of(&scene.truth, &scene.captions[0]);
            for (aspect, right) in judge(&sight, &question) {
                assert!(
                    right,
                    "scene {index}: {aspect:?} of {question:?} in {sight:?}"
                );
            }
        }
    }
}
