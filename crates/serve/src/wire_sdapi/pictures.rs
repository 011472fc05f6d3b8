//! The picture to begin with, its mask, and how the masked part is repainted.

use velatura::pipeline::{MaskedContent, Request};

use super::fields::Fields;
use crate::app;
use crate::problem::Problem;

/// Pixels over which the web UI softens a mask's edge where nobody says.
const BLUR: f64 = 4.0;

/// Takes what `img2img` has beyond `txt2img`. Where nothing is said, a masked part begins with the colours around it and is
/// painted alone, as in the web UI.
///
/// # Errors
/// 422 with the field.
pub(super) fn read(fields: &mut Fields, request: &mut Request) -> Result<(), Problem> {
    request.init = Some(init(fields)?);
    let mask = fields.text("mask")?.filter(|mask| !mask.is_empty());
    let blur = blur(fields)?;
    let content = content(fields)?;
    let alone = fields.flag("inpaint_full_res")?.unwrap_or(true);
    let padding = fields.count("inpaint_full_res_padding")?.unwrap_or(0);
    let invert = fields.flag("inpainting_mask_invert")?.unwrap_or(false);
    let rounded = fields.flag("mask_round")?.unwrap_or(true);
    // Without a mask none of these does anything.
    let Some(mask) = mask else { return Ok(()) };
    if !rounded {
        let found = "false: soft masks are not supported";
        return Err(Problem::field("mask_round", "true", found));
    }
    let mask = app::mask("mask", &mask)?;
    request.mask = Some(if invert { mask.inverted() } else { mask });
    request.mask_blur = Some(blur as f32);
    request.masked_content = Some(content);
    request.padding_mask_crop = alone.then_some(padding);
    Ok(())
}

fn init(fields: &mut Fields) -> Result<velatura::image::Image, Problem> {
    const ONE: &str = "a list with one picture in base64";
    let list = fields.take("init_images").unwrap_or_default();
    match list.as_array().map(Vec::as_slice) {
        Some([serde_json::Value::String(text)]) => app::picture("init_images", text),
        Some(list) => {
            let found = format!("a list of {}", list.len());
            Err(Problem::field("init_images", ONE, found))
        }
        None => Err(Problem::field("init_images", ONE, "no list")),
    }
}

/// `inpainting_fill`: 0 the colours around, 1 what is there, 2 noise, 3 nothing.
fn content(fields: &mut Fields) -> Result<MaskedContent, Problem> {
    let number = fields.count("inpainting_fill")?.unwrap_or(0);
    MaskedContent::ALL.get(number).copied().ok_or_else(|| {
        let names = MaskedContent::ALL.iter().enumerate();
        let names: Vec<String> = names
            .map(|(number, content)| format!("{number} ({})", content.label()))
            .collect();
        Problem::field("inpainting_fill", names.join(", "), number)
    })
}

/// One number for both directions, or one for each if they are alike.
fn blur(fields: &mut Fields) -> Result<f64, Problem> {
    let both = fields.number("mask_blur")?;
    let (x, y) = (fields.number("mask_blur_x")?, fields.number("mask_blur_y")?);
    let radius = both.or(x).or(y).unwrap_or(BLUR);
    if [x, y].iter().flatten().any(|&other| other != radius) {
        let found = format!("{both:?}, {x:?} and {y:?}");
        let expected = "the same blur in both directions";
        return Err(Problem::field("mask_blur_y", expected, found));
    }
    Ok(radius)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use velatura::image::{Image, Mask};

    use super::*;

    /// An `img2img` request with these fields beside a picture and a mask of it.
    fn asked(more: Value) -> Result<Request, Problem> {
        use base64::Engine;
        let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let picture = Image::new(2, 1, vec![7; 6]).encode_png(&[]).unwrap();
        let mask = Mask::new(2, 1, vec![true, false]).encode_png().unwrap();
        let mut body = json!({"init_images": [base64(&picture)], "mask": base64(&mask)});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let mut request = Request::default();
        read(&mut Fields(body.as_object().unwrap().clone()), &mut request)?;
        Ok(request)
    }

    #[test]
    fn a_mask_means_what_it_means_in_the_web_ui() {
        let bare = asked(json!({})).unwrap();
        assert_eq!(bare.masked_content, Some(MaskedContent::Fill));
        assert_eq!(
            (bare.mask_blur, bare.padding_mask_crop),
            (Some(4.0), Some(0))
        );
        assert_eq!(bare.mask.unwrap().painted(), [true, false]);
        let more = asked(json!({
            "inpainting_fill": 2, "inpaint_full_res": true, "inpaint_full_res_padding": 32,
            "mask_blur_x": 8, "mask_blur_y": 8, "inpainting_mask_invert": 1
        }));
        let more = more.unwrap();
        assert_eq!(more.masked_content, Some(MaskedContent::LatentNoise));
        assert_eq!(
            (more.mask_blur, more.padding_mask_crop),
            (Some(8.0), Some(32))
        );
        assert_eq!(more.mask.unwrap().painted(), [false, true]);
        let whole = asked(json!({"inpaint_full_res": 0, "inpainting_fill": 1, "mask_blur": 0}));
        let whole = whole.unwrap();
        assert_eq!(
            (whole.mask_blur, whole.padding_mask_crop),
            (Some(0.0), None)
        );

        let without = asked(json!({"mask": null, "inpainting_fill": 3})).unwrap();
        assert_eq!(without.mask, None);
        assert_eq!((without.mask_blur, without.masked_content), (None, None));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let field = |more| asked(more).err().unwrap().field.unwrap();
        assert_eq!(field(json!({"init_images": []})), "init_images");
        assert_eq!(field(json!({"init_images": ["*"]})), "init_images");
        assert_eq!(field(json!({"mask": "*"})), "mask");
        assert_eq!(field(json!({"mask_round": false})), "mask_round");
        assert_eq!(
            field(json!({"mask_blur_x": 1, "mask_blur_y": 2})),
            "mask_blur_y"
        );
        assert_eq!(field(json!({"inpainting_fill": 4})), "inpainting_fill");
        assert_eq!(
            field(json!({"inpainting_mask_invert": 2})),
            "inpainting_mask_invert"
        );
    }
}
