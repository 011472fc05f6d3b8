//! Small previews for next to nothing. A decoder is nearly linear when looked at from afar: the mean colour of the
//! pixels under a latent is close to a weighted sum of the latent's channels. The field passes a table of such weights
//! around for Stable Diffusion's own autoencoder; here they are found by least squares from pictures that were decoded
//! anyway, so that every autoencoder has them.

use velatura_tensor::Tensor;

use crate::image::Image;

/// Added to the diagonal, relative to the number of samples: channels that hardly vary get no wild weights.
const RIDGE: f64 = 1e-4;

/// Weights from latents to colours, and what they are found from.
#[derive(Clone, Debug)]
pub struct Preview {
    /// Channels of the latents and one for the constant.
    inputs: usize,
    /// Σ zᵢ·zⱼ over all latents seen, z with a 1 at its end.
    squares: Vec<f64>,
    /// Σ zᵢ·colour, for red, green and blue.
    products: [Vec<f64>; 3],
    weights: Option<[Vec<f64>; 3]>,
}

impl Preview {
    /// Nothing seen yet.
    pub fn new(latent_channels: usize) -> Preview {
        let inputs = latent_channels + 1;
        Preview {
            inputs,
            squares: vec![0.0; inputs * inputs],
            products: [(); 3].map(|()| vec![0.0; inputs]),
            weights: None,
        }
    }

    /// Learns from latents `[1, h, w, C]` and the picture that they were decoded to. What is not finite is passed over.
    ///
    /// # Panics
    /// When the channels are not those of [`Preview::new`], or the picture's sides no multiple of the latents'.
    pub fn learn(&mut self, latents: &Tensor, image: &Image) {
        let (height, width, n) = (latents.dim(1), latents.dim(2), self.inputs);
        assert_eq!(latents.channels() + 1, n, "channels");
        if !latents.is_finite() {
            return;
        }
        let small = shrunk(image, width, height);
        let mut z = vec![1.0; n];
        for (latent, colour) in latents.as_slice().chunks_exact(n - 1).zip(&small) {
            for (z, latent) in z.iter_mut().zip(latent) {
                *z = f64::from(*latent);
            }
            for i in 0..n {
                for j in 0..n {
                    self.squares[i * n + j] += z[i] * z[j];
                }
                for (products, colour) in self.products.iter_mut().zip(colour) {
                    products[i] += z[i] * colour;
                }
            }
        }
        let mut squares = self.squares.clone();
        let count = squares[n * n - 1];
        for i in 0..n {
            squares[i * n + i] += RIDGE * count;
        }
        self.weights = solve(&squares, &self.products, n);
    }

    /// One pixel per latent of `[1, h, w, C]`; none before there was anything to learn from.
    pub fn of(&self, latents: &Tensor) -> Option<Image> {
        let weights = self.weights.as_ref()?;
        let pixels = latents
            .as_slice()
            .chunks_exact(self.inputs - 1)
            .flat_map(|latent| {
                weights.each_ref().map(|weights| {
                    let (constant, weights) = weights.split_last().unwrap_or((&0.0, &[]));
                    let sum: f64 = latent
                        .iter()
                        .zip(weights)
                        .map(|(z, w)| f64::from(*z) * w)
                        .sum();
                    // NaN becomes 0.
                    (sum + constant).round().clamp(0.0, 255.0) as u8
                })
            })
            .collect();
        Some(Image::new(latents.dim(2), latents.dim(1), pixels))
    }
}

/// The mean colour of each of `width`×`height` fields.
fn shrunk(image: &Image, width: usize, height: usize) -> Vec<[f64; 3]> {
    let (fx, fy) = (image.width() / width, image.height() / height);
    assert_eq!(
        (fx * width, fy * height),
        (image.width(), image.height()),
        "whole fields"
    );
    let mut sums = vec![[0.0; 3]; width * height];
    for (row, line) in image.pixels().chunks_exact(image.width() * 3).enumerate() {
        for (column, pixel) in line.chunks_exact(3).enumerate() {
            let sum = &mut sums[row / fy * width + column / fx];
            for (sum, value) in sum.iter_mut().zip(pixel) {
                *sum += f64::from(*value) / (fx * fy) as f64;
            }
        }
    }
    sums
}

/// Solves A·x = b for three b by Gauss' elimination with pivots; none when A is singular. A: `[n, n]`.
fn solve(a: &[f64], b: &[Vec<f64>; 3], n: usize) -> Option<[Vec<f64>; 3]> {
    let mut a = a.to_vec();
    let mut b = b.clone();
    for column in 0..n {
        let pivot = (column..n)
            .max_by(|&i, &j| a[i * n + column].abs().total_cmp(&a[j * n + column].abs()))?;
        if a[pivot * n + column].abs() < 1e-12 {
            return None;
        }
        for j in 0..n {
            a.swap(column * n + j, pivot * n + j);
        }
        b.iter_mut().for_each(|b| b.swap(column, pivot));
        for row in (0..n).filter(|&row| row != column) {
            let factor = a[row * n + column] / a[column * n + column];
            for j in column..n {
                a[row * n + j] -= factor * a[column * n + j];
            }
            for b in &mut b {
                b[row] -= factor * b[column];
            }
        }
    }
    for (i, divisor) in (0..n).map(|i| (i, a[i * n + i])) {
        b.iter_mut().for_each(|b| b[i] /= divisor);
    }
    Some(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_decoder_is_found_again() {
        // Red is 100 + 20·z₀, green 50 − 10·z₁, blue 30·z₀ + 5·z₁ + 90, four pixels for each latent.
        let z: Vec<f32> = (0..32)
            .map(|i| ((i * 37) % 17) as f32 / 8.0 - 1.0)
            .collect();
        let colour = |z: &[f32]| {
            [
                100.0 + 20.0 * z[0],
                50.0 - 10.0 * z[1],
                90.0 + 30.0 * z[0] + 5.0 * z[1],
            ]
            .map(|v| v.round() as u8)
        };
        let latents = Tensor::from_vec(z.clone(), &[1, 4, 4, 2]);
        let mut pixels = Vec::new();
        for y in 0..8 {
            for x in 0..8 {
                let at = (y / 2 * 4 + x / 2) * 2;
                pixels.extend(colour(&z[at..at + 2]));
            }
        }
        let mut preview = Preview::new(2);
        assert!(preview.of(&latents).is_none());
        preview.learn(&latents, &Image::new(8, 8, pixels));
        let found = preview.of(&latents).unwrap();
        assert_eq!((found.width(), found.height()), (4, 4));
        for (found, z) in found.pixels().chunks_exact(3).zip(z.chunks_exact(2)) {
            for (found, expected) in found.iter().zip(colour(z)) {
                assert!(found.abs_diff(expected) <= 1, "{found} is not {expected}");
            }
        }
    }
}
