//! Whether a picture may be mirrored, judged by what its captions say.

/// Words of captions that a mirror would make untrue: sides, hands, senses of rotation, and everything about writing,
/// which reads the wrong way round afterwards.
const TELLING: &str = "\
    left leftmost leftward leftwards lefthand lefthanded right rightmost rightward rightwards righthand righthanded \
    clockwise anticlockwise counterclockwise mirrored reversed flipped \
    text texts letter letters lettering writing writings written handwriting handwritten word words number numbers \
    inscription inscribed logo watermark sign signs signature signpost label says saying reads spelling map";

/// Whether none of the captions speaks of something that a mirror would change. Words count whole and in any case:
/// "bright" is not "right", "left-hand" is "left".
pub fn may_be_mirrored(captions: &[String]) -> bool {
    captions.iter().all(|caption| {
        caption
            .split(|c: char| !c.is_alphanumeric())
            .map(str::to_lowercase)
            .all(|word| !TELLING.split(' ').any(|telling| telling == word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_that_tell_left_from_right_forbid_it() {
        for caption in [
            "a cat to the left of a dog",
            "Right: a house",
            "a left-handed player",
            "the leftmost of three cups",
            "a wheel that turns clockwise",
            "a counter-clockwise spiral",
            "a mirrored room",
            "a shop with a SIGN that says \"open\"",
            "a page with handwritten text",
        ] {
            assert!(!may_be_mirrored(&[caption.into()]), "{caption}");
            // One of several is enough.
            assert!(!may_be_mirrored(&["a cat".into(), caption.into()]));
        }
    }

    #[test]
    fn parts_of_other_words_do_not() {
        for caption in [
            "a bright day",
            "an upright piano in a cleft",
            "a copyrighted texture",
            "a designer with a swordfish",
            "",
        ] {
            assert!(may_be_mirrored(&[caption.into()]), "{caption}");
        }
        assert!(may_be_mirrored(&[]));
    }
}
