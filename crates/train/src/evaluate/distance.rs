//! How near the pictures of one set are to those of another, by their features.

use nalgebra::{DMatrix, SymmetricEigen};

/// Features of a set of pictures, one row each.
#[derive(Clone, Debug)]
pub struct Features {
    rows: DMatrix<f64>,
}

impl Features {
    /// `values` holds `width` numbers for each picture.
    ///
    /// # Panics
    /// When it does not divide into rows.
    pub fn new(values: &[f32], width: usize) -> Features {
        assert!(
            width > 0 && values.len().is_multiple_of(width),
            "{} numbers in rows of {width}",
            values.len()
        );
        let numbers = values.iter().map(|&x| f64::from(x));
        Features {
            rows: DMatrix::from_row_iterator(values.len() / width, width, numbers),
        }
    }

    /// How many pictures.
    pub fn len(&self) -> usize {
        self.rows.nrows()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers a picture.
    pub fn width(&self) -> usize {
        self.rows.ncols()
    }

    /// The rows from `start` on, `count` of them.
    fn part(&self, start: usize, count: usize) -> DMatrix<f64> {
        self.rows.rows(start, count).into_owned()
    }

    /// Mean and covariance, divided by n − 1.
    fn moments(&self) -> (DMatrix<f64>, DMatrix<f64>) {
        let mean = self.rows.row_mean();
        let mut centred = self.rows.clone();
        for mut row in centred.row_iter_mut() {
            row -= &mean;
        }
        let covariance = centred.transpose() * &centred / (self.len() as f64 - 1.0);
        (
            DMatrix::from_row_slice(1, self.width(), mean.as_slice()),
            covariance,
        )
    }

    /// For each picture the Euclidean distance to the nearest of `others`.
    pub fn nearest(&self, others: &Features) -> Vec<f64> {
        let squares = |features: &Features| -> Vec<f64> {
            features
                .rows
                .row_iter()
                .map(|row| row.norm_squared())
                .collect()
        };
        let (own, theirs) = (squares(self), squares(others));
        let products = &self.rows * others.rows.transpose();
        (0..self.len())
            .map(|i| {
                let all = (0..others.len()).map(|j| own[i] + theirs[j] - 2.0 * products[(i, j)]);
                all.fold(f64::INFINITY, f64::min).max(0.0).sqrt()
            })
            .collect()
    }
}

/// The Fréchet distance of two sets (Heusel et al. 2017, arXiv:1706.08500): |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½).
///
/// The trace of the root is that of (Σ₁^½ Σ₂ Σ₁^½)^½, whose matrix is symmetric and has no negative eigenvalues, so
/// that nothing is lost where a covariance is singular. None where a set has fewer than two pictures, or the widths
/// differ.
pub fn frechet(a: &Features, b: &Features) -> Option<f64> {
    if a.len() < 2 || b.len() < 2 || a.width() != b.width() {
        return None;
    }
    let ((mean_a, cov_a), (mean_b, cov_b)) = (a.moments(), b.moments());
    let difference = (mean_a - mean_b).norm_squared();
    let traces = cov_a.trace() + cov_b.trace();
    let root = square_root(cov_a);
    let product = &root * cov_b * &root;
    // Rounding leaves it a little unsymmetric.
    let product = (&product + product.transpose()) * 0.5;
    let eigenvalues = SymmetricEigen::new(product).eigenvalues;
    let trace: f64 = eigenvalues.iter().map(|value| value.max(0.0).sqrt()).sum();
    Some((difference + traces - 2.0 * trace).max(0.0))
}

/// The root of a symmetric matrix without negative eigenvalues.
fn square_root(matrix: DMatrix<f64>) -> DMatrix<f64> {
    let SymmetricEigen {
        eigenvectors,
        eigenvalues,
    } = SymmetricEigen::new(matrix);
    let roots = eigenvalues.map(|value| value.max(0.0).sqrt());
    let scaled = &eigenvectors * DMatrix::from_diagonal(&roots);
    scaled * eigenvectors.transpose()
}

/// The kernel distance of two sets (Bińkowski et al. 2018, arXiv:1801.01401): the unbiased estimate of the squared
/// maximum mean discrepancy with the kernel (x·y / d + 1)³.
///
/// Mean and standard deviation over `subsets` pairs of up to `size` pictures, taken from both sets in turn (the sets
/// come in no particular order). None where a set has fewer than two pictures, or the widths differ.
pub fn kernel(a: &Features, b: &Features, subsets: usize, size: usize) -> Option<(f64, f64)> {
    let size = size.min(a.len()).min(b.len());
    if size < 2 || subsets == 0 || a.width() != b.width() {
        return None;
    }
    let start = |features: &Features, subset: usize| {
        let room = features.len() - size;
        room * subset / (subsets - 1).max(1)
    };
    let estimates: Vec<f64> = (0..subsets)
        .map(|subset| {
            let x = a.part(start(a, subset), size);
            let y = b.part(start(b, subset), size);
            discrepancy(&x, &y)
        })
        .collect();
    let count = estimates.len() as f64;
    let mean = estimates.iter().sum::<f64>() / count;
    let variance = estimates.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / count;
    Some((mean, variance.sqrt()))
}

fn discrepancy(x: &DMatrix<f64>, y: &DMatrix<f64>) -> f64 {
    let width = x.ncols() as f64;
    let kernel = |a: &DMatrix<f64>, b: &DMatrix<f64>| {
        (a * b.transpose()).map(|product| (product / width + 1.0).powi(3))
    };
    let (m, n) = (x.nrows() as f64, y.nrows() as f64);
    let within = |k: DMatrix<f64>, n: f64| (k.sum() - k.trace()) / (n * (n - 1.0));
    within(kernel(x, x), m) + within(kernel(y, y), n) - 2.0 * kernel(x, y).sum() / (m * n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, normals};

    #[test]
    fn equal_sets_have_no_distance_and_a_shift_has_its_square() {
        let values = normals(1, Purpose::Noise, 1, 60 * 4);
        let a = Features::new(&values, 4);
        assert!(frechet(&a, &a).unwrap() < 1e-9);
        let shifted: Vec<f32> = values.iter().map(|x| x + 1.5).collect();
        let b = Features::new(&shifted, 4);
        assert!((frechet(&a, &b).unwrap() - 4.0 * 1.5 * 1.5).abs() < 1e-5);
        // Fewer pictures than features: both covariances are singular.
        let few = Features::new(&values[..3 * 8], 8);
        assert!(frechet(&few, &few).unwrap() < 1e-6);
        assert!(kernel(&a, &b, 1, 60).unwrap().0 > 1.0);
        assert_eq!(frechet(&a, &few), None);
        assert_eq!(a.nearest(&a), vec![0.0; 60]);
    }
}
