//! Aspect-ratio buckets: the few shapes that pictures are brought to, so that those of one shape can share a batch.
//!
//! All buckets have about the same area, so that a step takes about the same time and memory, and sides that are
//! multiples of a step, as the trainers of the field do it (NovelAI 2022, "Improvements on Stable Diffusion").

/// The shapes: `[width, height]` in pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Buckets(Vec<[usize; 2]>);

impl Buckets {
    /// One square of this side.
    pub fn square(size: usize) -> Buckets {
        Buckets(vec![[size; 2]])
    }

    /// For every width from `size`/2 to 2·`size` the greatest height that keeps the area within `size`², both multiples
    /// of `step`, and the same lying on its side; from the tallest to the widest.
    pub fn of_area(size: usize, step: usize) -> Buckets {
        let (least, most) = ((size / 2).next_multiple_of(step), 2 * size);
        let mut shapes = Vec::new();
        for width in (least..=most).step_by(step) {
            let height = (size * size / width / step * step).min(most);
            if height >= least {
                shapes.extend([[width, height], [height, width]]);
            }
        }
        shapes.sort_by(|a, b| (a[0] * b[1]).cmp(&(b[0] * a[1])).then(a.cmp(b)));
        shapes.dedup();
        Buckets(shapes)
    }

    /// All of them; a bucket's number is its position here.
    pub fn shapes(&self) -> &[[usize; 2]] {
        &self.0
    }

    /// The number of the bucket whose aspect ratio is nearest to that of a picture of this size; of two alike the one
    /// with the larger area.
    pub fn nearest(&self, width: u32, height: u32) -> usize {
        let wanted = (f64::from(width) / f64::from(height)).ln();
        let distance = |[width, height]: [usize; 2]| {
            let aspect = (width as f64 / height as f64).ln();
            ((aspect - wanted).abs(), -((width * height) as f64))
        };
        let mut best = 0;
        for number in 1..self.0.len() {
            if distance(self.0[number]) < distance(self.0[best]) {
                best = number;
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_are_those_of_the_field() {
        let buckets = Buckets::of_area(512, 64);
        let shapes = buckets.shapes();
        for expected in [
            [512, 512],
            [384, 640],
            [640, 384],
            [768, 320],
            [256, 1024],
            [576, 448],
        ] {
            assert!(shapes.contains(&expected), "{expected:?} in {shapes:?}");
        }
        for &[width, height] in shapes {
            assert!(width * height <= 512 * 512 && width % 64 == 0 && height % 64 == 0);
            assert!(width.min(height) >= 256 && width.max(height) <= 1024);
            // Half a step more in both directions would not fit: no area is wasted.
            assert!((width + 64) * (height + 64) > 512 * 512, "{width}x{height}");
        }
        assert_eq!(Buckets::of_area(512, 512), Buckets::square(512));
    }

    #[test]
    fn a_picture_goes_to_the_shape_that_is_nearest_to_its_own() {
        let buckets = Buckets::of_area(512, 64);
        let of = |width, height| buckets.shapes()[buckets.nearest(width, height)];
        assert_eq!(of(777, 777), [512, 512]);
        assert_eq!(of(3000, 2000), [640, 384]);
        assert_eq!(of(2000, 3000), [384, 640]);
        assert_eq!(of(1, 100), [256, 1024]);
        assert_eq!(of(4, 3), [576, 448]);
    }
}
