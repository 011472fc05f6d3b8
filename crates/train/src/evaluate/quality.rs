//! How near one picture is to another: PSNR and SSIM.

use image::RgbImage;

/// The peak signal-to-noise ratio in dB of two pictures of one size, over all pixels and channels of 8 bits; infinite
/// where they are equal.
pub fn psnr(a: &RgbImage, b: &RgbImage) -> f64 {
    let squares: f64 = a
        .as_raw()
        .iter()
        .zip(b.as_raw())
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
        .sum();
    let error = squares / a.as_raw().len() as f64;
    10.0 * (255.0f64.powi(2) / error).log10()
}

/// Taps of the window on either side of its middle.
const RADIUS: usize = 5;
const SIGMA: f64 = 1.5;

/// The structural similarity of two pictures of one size (Wang, Bovik, Sheikh and Simoncelli 2004): Gaussian window of
/// 11×11 and deviation 1.5, K₁ = 0.01, K₂ = 0.03, L = 255, the mean over all places where the window fits and over the
/// three channels. What scikit-image gives with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
/// channel_axis=-1, data_range=255`. (torchmetrics counts places at the border, too, where it mirrors the picture.)
///
/// None where the window does not fit.
pub fn ssim(a: &RgbImage, b: &RgbImage) -> Option<f64> {
    let (width, height) = (a.width() as usize, a.height() as usize);
    if width <= 2 * RADIUS || height <= 2 * RADIUS {
        return None;
    }
    let c1 = (0.01f64 * 255.0).powi(2);
    let c2 = (0.03f64 * 255.0).powi(2);
    let mut sum = 0.0;
    let mut count = 0usize;
    for channel in 0..3 {
        let plane = |picture: &RgbImage| -> Vec<f64> {
            let values = picture.as_raw().iter().skip(channel).step_by(3);
            values.map(|&value| f64::from(value)).collect()
        };
        let (x, y) = (plane(a), plane(b));
        let mean = |values: Vec<f64>| windowed(&values, width, height);
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect();
        let squares = [product(&x, &x), product(&y, &y), product(&x, &y)].map(mean);
        let means = [mean(x), mean(y)];
        for i in 0..means[0].len() {
            let (mx, my) = (means[0][i], means[1][i]);
            let variance_x = squares[0][i] - mx * mx;
            let variance_y = squares[1][i] - my * my;
            let covariance = squares[2][i] - mx * my;
            sum += (2.0 * mx * my + c1) * (2.0 * covariance + c2)
                / ((mx * mx + my * my + c1) * (variance_x + variance_y + c2));
            count += 1;
        }
    }
    Some(sum / count as f64)
}

/// The Gaussian mean at every place where the window fits.
fn windowed(values: &[f64], width: usize, height: usize) -> Vec<f64> {
    let mut kernel = [0.0; 2 * RADIUS + 1];
    for (i, weight) in kernel.iter_mut().enumerate() {
        let x = i as f64 - RADIUS as f64;
        *weight = (-x * x / (2.0 * SIGMA * SIGMA)).exp();
    }
    let total: f64 = kernel.iter().sum();
    kernel.iter_mut().for_each(|weight| *weight /= total);

    let columns = width - 2 * RADIUS;
    let mut across = Vec::with_capacity(columns * height);
    for row in values.chunks_exact(width) {
        for window in row.windows(kernel.len()) {
            across.push(window.iter().zip(&kernel).map(|(v, k)| v * k).sum::<f64>());
        }
    }
    let mut out = Vec::with_capacity(columns * (height - 2 * RADIUS));
    for y in 0..height - 2 * RADIUS {
        for x in 0..columns {
            let down = kernel.iter().enumerate();
            out.push(down.map(|(i, k)| k * across[(y + i) * columns + x]).sum());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn a_picture_is_like_itself_and_a_small_one_has_no_window() {
        let picture = RgbImage::from_fn(16, 12, |x, y| Rgb([x as u8 * 9, y as u8 * 7, 100]));
        assert_eq!(psnr(&picture, &picture), f64::INFINITY);
        assert_eq!(ssim(&picture, &picture), Some(1.0));
        let small = RgbImage::new(10, 30);
        assert_eq!(ssim(&small, &small), None);
        let shifted = RgbImage::from_fn(16, 12, |x, y| {
            Rgb(picture.get_pixel(x, y).0.map(|value| value + 1))
        });
        // An error of 1 everywhere.
        assert!((psnr(&picture, &shifted) - 20.0 * 255f64.log10()).abs() < 1e-9);
    }
}
