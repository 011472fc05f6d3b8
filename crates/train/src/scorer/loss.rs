//! The loss and its gradient with respect to the outputs, written down side by side: none of it needs the tape.

use velatura_tensor::Tensor;

use super::net::{CELLS, Outputs, PLACE, ScorerConfig};
use super::sight::{mean_logits, sigmoid, softmax};
use super::target::{Point, Target};
use crate::objective::Losses;

/// Cells around a centre that are a little right, too: the deviation of a Gaussian, in cells.
const SPREAD: f32 = 0.7;
/// From this height of the Gaussian on, a cell says what the thing is: the centre's and its four neighbours.
const SPEAKS: f32 = 0.3;
/// Place and size count a tenth of what things and colours do, as in the paper.
const PLACE_WEIGHT: f32 = 0.2;
/// Beyond so many cells (or so much of a logarithm) an error counts linearly.
const PLACE_BEND: f32 = 0.2;

/// The loss of a batch's outputs. What things are and where is averaged over all things, the landscape over pictures.
pub fn loss(config: &ScorerConfig, outputs: &Outputs, targets: &[Target]) -> Losses {
    let mut cells_slope = vec![0.0; outputs.cells.len()];
    let mut scene_slope = vec![0.0; outputs.scene.len()];
    let (cells_each, scene_each) = (
        cells_slope.len() / targets.len(),
        scene_slope.len() / targets.len(),
    );
    let things = targets
        .iter()
        .map(|target| target.points.len())
        .sum::<usize>();
    let per_thing = 1.0 / things.max(1) as f32;
    let per_picture = 1.0 / targets.len() as f32;
    let mut sums = [0.0f32; 5];
    for (sample, target) in targets.iter().enumerate() {
        let logits = &outputs.cells.as_slice()[sample * cells_each..][..cells_each];
        let slope = &mut cells_slope[sample * cells_each..][..cells_each];
        let [found, noun, colour, place] = cells(config, logits, target, per_thing, slope);
        let logits = &outputs.scene.as_slice()[sample * scene_each..][..scene_each];
        let slope = &mut scene_slope[sample * scene_each..][..scene_each];
        let scene = scene(config, logits, target, per_picture, slope);
        for (sum, term) in sums.iter_mut().zip([found, noun, colour, place, scene]) {
            *sum += term;
        }
    }
    let constant = |slope: Vec<f32>, like: &Tensor| Tensor::from_vec(slope, like.shape());
    let slope = outputs
        .cells
        .mul(&constant(cells_slope, &outputs.cells))
        .sum()
        .add(
            &outputs
                .scene
                .mul(&constant(scene_slope, &outputs.scene))
                .sum(),
        );
    let names = ["found", "noun", "colour", "place", "scene"];
    Losses {
        loss: sums.iter().sum(),
        slope,
        parts: names.into_iter().zip(sums).collect(),
    }
}

/// The terms of one picture's cells, and their slopes, both times `share`.
fn cells(
    config: &ScorerConfig,
    logits: &[f32],
    target: &Target,
    share: f32,
    slope: &mut [f32],
) -> [f32; 4] {
    let channels = config.cell_channels();
    let nouns = config.nouns.len();
    let mut terms = [0.0; 4];
    for row in 0..CELLS {
        for column in 0..CELLS {
            let at = (row * CELLS + column) * channels;
            let (logits, slope) = (&logits[at..][..channels], &mut slope[at..][..channels]);
            let nearest = nearest(target, [column, row]);
            let height = nearest.map_or(0.0, |(height, _)| height);
            let (value, derivative) = found(logits[0], height);
            terms[0] += share * value;
            slope[0] = share * derivative;
            let Some((height, point)) = nearest.filter(|(height, _)| *height >= SPEAKS) else {
                continue;
            };
            let weight = share * height;
            let classes = PLACE..PLACE + nouns;
            // A thing that the scorer has no name for is there all the same.
            if point.noun < nouns {
                let (from, to) = (&logits[classes.clone()], &mut slope[classes.clone()]);
                terms[1] += cross_entropy(from, point.noun, weight, to);
            }
            let (from, to) = (&logits[classes.end..], &mut slope[classes.end..]);
            terms[2] += cross_entropy(from, point.colour, weight, to);
            let wanted = [
                point.centre[0] - column as f32 - 0.5,
                point.centre[1] - row as f32 - 0.5,
                point.size[0].ln(),
                point.size[1].ln(),
            ];
            for (channel, wanted) in wanted.into_iter().enumerate() {
                let (value, derivative) = smooth_l1(logits[1 + channel] - wanted);
                terms[3] += weight * PLACE_WEIGHT * value;
                slope[1 + channel] = weight * PLACE_WEIGHT * derivative;
            }
        }
    }
    terms
}

/// The point whose Gaussian is highest at `cell`, and how high.
fn nearest(target: &Target, cell: [usize; 2]) -> Option<(f32, &Point)> {
    let height = |point: &Point| {
        let squares = (0..2).map(|axis| (point.cell[axis] as f32 - cell[axis] as f32).powi(2));
        (-squares.sum::<f32>() / (2.0 * SPREAD * SPREAD)).exp()
    };
    let points = target.points.iter().map(|point| (height(point), point));
    points.max_by(|a, b| a.0.total_cmp(&b.0))
}

/// The focal loss of CenterNet (arXiv:1904.07850, equation 1, α = 2, β = 4) of a logit, where the Gaussian is `height`
/// high, and its derivative.
fn found(logit: f32, height: f32) -> (f32, f32) {
    let p = sigmoid(logit);
    // ln p and ln (1 - p), which stay finite where p does not show them any more.
    let (log_p, log_q) = (-softplus(-logit), -softplus(logit));
    let q = 1.0 - p;
    if height >= 1.0 {
        let value = -q * q * log_p;
        (value, 2.0 * p * q * q * log_p - q * q * q)
    } else {
        let weight = (1.0 - height).powi(4);
        let value = -weight * p * p * log_q;
        (value, weight * (p * p * p - 2.0 * p * p * q * log_q))
    }
}

/// ln (1 + eˣ)
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// weight · −ln softmax(logits)[class], and its slope.
fn cross_entropy(logits: &[f32], class: usize, weight: f32, slope: &mut [f32]) -> f32 {
    let p = softmax(logits);
    for (i, (slope, &p)) in slope.iter_mut().zip(&p).enumerate() {
        *slope += weight * (p - if i == class { 1.0 } else { 0.0 });
    }
    -weight * p[class].max(f32::MIN_POSITIVE).ln()
}

fn smooth_l1(error: f32) -> (f32, f32) {
    if error.abs() < PLACE_BEND {
        (0.5 * error * error / PLACE_BEND, error / PLACE_BEND)
    } else {
        (error.abs() - 0.5 * PLACE_BEND, error.signum())
    }
}

/// The cross-entropies of landscape, hour and weather, and their slope at every place, both times `share`.
fn scene(
    config: &ScorerConfig,
    logits: &[f32],
    target: &Target,
    share: f32,
    slope: &mut [f32],
) -> f32 {
    let classes: usize = config.scene_classes().iter().sum();
    let means = mean_logits(logits, classes);
    let mut mean_slope = vec![0.0; classes];
    let (mut loss, mut start) = (0.0, 0);
    for (count, class) in config.scene_classes().into_iter().zip(target.scene) {
        let part = start..start + count;
        let to = &mut mean_slope[part.clone()];
        loss += cross_entropy(&means[part], class, share, to);
        start += count;
    }
    let places = (slope.len() / classes) as f32;
    for place in slope.chunks_exact_mut(classes) {
        for (slope, &mean) in place.iter_mut().zip(&mean_slope) {
            *slope = mean / places;
        }
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, normals};
    use velatura_tensor::Parameter;

    /// The slopes are the differences of the loss.
    #[test]
    fn slopes_are_derivatives() {
        let config =
            ScorerConfig::of_all_scenes([8; 4], 8, vec!["car".into(), "cat".into(), "tree".into()]);
        let point = |cell: [usize; 2], noun, colour| Point {
            cell,
            centre: [cell[0] as f32 + 0.3, cell[1] as f32 + 0.9],
            size: [3.0, 5.0],
            noun,
            colour,
        };
        let targets = [
            Target {
                points: vec![point([3, 4], 1, 5), point([12, 5], 0, 11)],
                scene: [2, 1, 0],
            },
            Target::nothing(&config),
        ];
        let scene_channels: usize = config.scene_classes().iter().sum();
        let shapes = [
            [2, CELLS, CELLS, config.cell_channels()],
            [2, CELLS / 2, CELLS / 2, scene_channels],
        ];
        let values = shapes.map(|shape| {
            let count = shape.iter().product();
            normals(1, Purpose::Noise, shape[3] as u64, count)
        });
        let outputs = |values: &[Vec<f32>; 2]| {
            let leaf =
                |i: usize| Parameter::new("x", Tensor::from_vec(values[i].clone(), &shapes[i]));
            (leaf(0), leaf(1))
        };
        let (cells, scene) = outputs(&values);
        let of = |cells: &Parameter, scene: &Parameter| {
            let outputs = Outputs {
                cells: cells.value(),
                scene: scene.value(),
            };
            loss(&config, &outputs, &targets)
        };
        let whole = of(&cells, &scene);
        let parts: f32 = whole.parts.iter().map(|part| part.1).sum();
        assert!((parts - whole.loss).abs() < 1e-4 * whole.loss);
        let gradients = whole.slope.backward();
        let step = 1e-2;
        // Every channel of a centre's cell, of a neighbour, of a far cell, and of a place of the scene.
        let channels = config.cell_channels();
        let wanted = [
            4 * CELLS + 3,
            4 * CELLS + 4,
            5 * CELLS + 12,
            200,
            CELLS * CELLS + 7,
        ];
        let cells_at = wanted
            .iter()
            .flat_map(|cell| (0..channels).map(move |c| (0, cell * channels + c)));
        let scene_at = (0..scene_channels).map(|c| (1, 9 * scene_channels + c));
        for (which, at) in cells_at.chain(scene_at) {
            let shifted = |by: f32| {
                let mut values = values.clone();
                values[which][at] += by;
                let (cells, scene) = outputs(&values);
                // The term alone would do; the whole loses four digits, which the tolerance allows for.
                f64::from(of(&cells, &scene).loss)
            };
            let numeric = (shifted(step) - shifted(-step)) / f64::from(2.0 * step);
            let parameter = [&cells, &scene][which];
            let slope = f64::from(gradients.get(parameter).unwrap().as_slice()[at]);
            // Rounding of a loss of some 60 in f32, over a difference of 0.02; and the third derivative.
            assert!(
                (numeric - slope).abs() < 2e-3 + 0.01 * slope.abs(),
                "{which} {at}: {numeric} and {slope}"
            );
        }
    }
}
