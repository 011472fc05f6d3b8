//! Both halves of CLIP against transformers (`fixtures/make_clip.py`).

mod support;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use velatura::clip::ClipModel;
use velatura::image::Image;
use velatura_tensor::{Precision, Tensor};

/// ‖a − b‖ / ‖b‖
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    let size: f64 = b.iter().map(|&b| square(b)).sum();
    (difference / size).sqrt()
}

#[test]
fn embeddings_and_scores_are_transformers() {
    let Some(dir) = support::topic("clip") else {
        return;
    };
    let expected = support::Expected::open(&dir.join("expected.safetensors"));
    let model = ClipModel::open(&dir, Precision::F32).unwrap();

    // Pillow rounds to 8 bits between both directions of scaling: one step of 255 where deviations are 0.26.
    let picture = Image::read(&dir.join("picture.png")).unwrap();
    let prepared = model.prepare(&picture);
    let wanted = expected.tensor("pixel_values");
    assert_eq!(prepared.shape(), wanted.shape());
    let most = prepared
        .as_slice()
        .iter()
        .zip(wanted.as_slice())
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(most < 2.0 / 255.0 / 0.26, "{most}");

    let pictures = Tensor::concat_batch(&[&wanted, &expected.tensor("random")]);
    let images = model.embed_pictures(&pictures);
    let wanted_images = expected.plain("image_embeds");
    let error = distance(images.as_slice(), wanted_images.as_slice());
    // Three layers in f32, each sum in another order.
    assert!(error < 1e-5, "pictures: {error}");

    // As far as its own preparation goes, which differs by that rounding.
    let own = model.embed_pictures(&prepared);
    let width = own.channels();
    let wanted_image = &wanted_images.as_slice()[..width];
    let preparation = distance(prepared.as_slice(), wanted.as_slice());
    let off = distance(own.as_slice(), wanted_image);
    assert!(preparation < 0.01, "{preparation}");
    assert!(off < 5.0 * preparation, "{off} from {preparation}");

    let texts = support::json(&dir.join("texts.json"));
    let wanted_texts = expected.plain("text_embeds");
    for (i, text) in texts.as_array().unwrap().iter().enumerate() {
        let text = text.as_str().unwrap();
        let wanted = &wanted_texts.as_slice()[i * width..][..width];
        let found = model.embed_text(text).unwrap();
        let error = distance(found.as_slice(), wanted);
        assert!(error < 1e-5, "{text:?}: {error}");

        let cosine: f32 = wanted_image.iter().zip(wanted).map(|(a, b)| a * b).sum();
        let score = model.score(&picture, text).unwrap();
        // Of unit vectors the cosines differ by no more than the vectors do.
        let bound = 100.0 * (off + 2e-5) as f32;
        let wanted = 100.0 * cosine.max(0.0);
        assert!((score - wanted).abs() < bound, "{score} and {wanted}");
    }
}

/// Published checkpoints, OpenAI's among them, were saved by a transformers that counted the positions as weights.
#[test]
fn checkpoints_of_older_transformers_load() {
    let Some(dir) = support::topic("clip") else {
        return;
    };
    let old = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(&dir).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), old.path().join(file.file_name())).unwrap();
    }
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let weights = SafeTensors::deserialize(&bytes).unwrap();
    let ids: Vec<u8> = (0..5_i64).flat_map(i64::to_le_bytes).collect();
    let ids = TensorView::new(Dtype::I64, vec![1, 5], &ids).unwrap();
    let mut tensors = weights.tensors();
    for half in ["text_model", "vision_model"] {
        tensors.push((format!("{half}.embeddings.position_ids"), ids.clone()));
    }
    let path = old.path().join("model.safetensors");
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
    let score = |dir: &std::path::Path| {
        let picture = Image::read(&dir.join("picture.png")).unwrap();
        let model = ClipModel::open(dir, Precision::F32).unwrap();
        model.score(&picture, "a red boat").unwrap()
    };
    assert_eq!(score(old.path()), score(&dir));
}

#[test]
fn what_is_no_clip_model_is_refused() {
    let Some(dir) = support::topic("models") else {
        return;
    };
    let Some(case) = support::folders(&dir).into_iter().next() else {
        return;
    };
    let error = ClipModel::open(&case.join("text_encoder"), Precision::F32).err();
    assert!(error.unwrap().to_string().contains("text_encoder"));
}
