//! Buffers for one call's intermediate numbers, kept by each thread for the next call.

use std::cell::RefCell;

/// A cache line of numbers, so that buffers start on one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Gives `f` a buffer of `len` numbers that starts on a cache line. Its contents are left over from
/// earlier use. Calls nest.
pub fn with<T>(len: usize, f: impl FnOnce(&mut [f32]) -> T) -> T {
    let lines = len.div_ceil(16);
    let mut buffer = FREE.with_borrow_mut(|free| take(free, lines));
    if buffer.len() < lines {
        buffer.clear();
        buffer.resize(lines, Line([0.0; 16]));
    }
    // SAFETY: a `Line` is sixteen numbers without padding, and `len` fits into the lines.
    let numbers = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<f32>(), len) };
    let result = f(numbers);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}

/// The smallest free buffer that is large enough, else the largest one (to be grown), else none.
fn take(free: &mut Vec<Vec<Line>>, lines: usize) -> Vec<Line> {
    let best = (0..free.len()).min_by_key(|&i| {
        let len = free[i].len();
        if len >= lines {
            (0, len)
        } else {
            (1, usize::MAX - len)
        }
    });
    best.map_or_else(Vec::new, |i| free.swap_remove(i))
}

#[cfg(test)]
mod tests {
    #[test]
    fn buffers_are_aligned_and_nest() {
        super::with(100, |a| {
            a.fill(1.0);
            super::with(33, |b| {
                b.fill(2.0);
                assert_eq!(b.as_ptr() as usize % 64, 0);
            });
            assert!(a.iter().all(|&x| x == 1.0));
        });
    }
}
