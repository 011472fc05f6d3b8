//! Weights that were kept packed paint the same pictures, and whatever is wrong with a file, it is made again.

mod support;

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use support::topic;
use velatura::checkpoint::{LoraFile, ModelFolder};
use velatura::image::Image;
use velatura::pipeline::{Model, PrecisionChoice, Request};
use velatura::weights::PackedCache;

thread_local! {
    static NOTES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps parts of any size in `dir`.
fn cache(dir: &Path) -> PackedCache {
    PackedCache::new(dir, |text| {
        NOTES.with_borrow_mut(|notes| notes.push(text.into()))
    })
    .from_size(0)
}

/// How many notes contain `words` since the last call; there must be no others.
fn noted(words: &str) -> usize {
    let notes = NOTES.take();
    assert!(notes.iter().all(|note| note.contains(words)), "{notes:?}");
    notes.len()
}

fn open(dir: &Path) -> Model {
    Model::open(ModelFolder::open(dir).unwrap(), None).unwrap()
}

fn paint(model: Model, precision: PrecisionChoice) -> Image {
    let request = Request {
        prompt: "a red car".into(),
        steps: Some(2),
        seed: Some(3),
        width: Some(64),
        height: Some(64),
        ..Request::default()
    };
    let plan = model.plan(&request).unwrap();
    let pipeline = model.load(precision).unwrap();
    let painted = pipeline.paint(&plan, None, &mut |_| ControlFlow::Continue(()));
    painted.unwrap().image
}

/// The files in a folder, sorted.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// A tiny model that a test may change.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => fs::write(target, fs::read(path).unwrap()).unwrap(),
        }
    }
}

const KEPT: &str = "are kept in";

#[test]
fn pictures_are_the_same_to_the_last_bit() {
    let Some(models) = topic("models") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let model = || open(&models.join("sd15"));
    let mut parts = 0;
    for precision in [
        PrecisionChoice::F32,
        PrecisionChoice::Bf16,
        PrecisionChoice::Int8,
    ] {
        let expected = paint(model(), precision);
        let first = paint(model().with_cache(cache(dir.path())), precision);
        // In 8 bits the parts beside the UNet are those of another format.
        parts += noted(KEPT);
        assert_eq!(
            files(dir.path()).len(),
            parts,
            "a file for each part, and no other"
        );
        let second = paint(model().with_cache(cache(dir.path())), precision);
        assert_eq!(noted(KEPT), 0, "all was there");
        assert!(first == expected && second == expected, "{precision:?}");
    }
    assert!(parts >= 7, "{parts}");
}

#[test]
fn an_edited_checkpoint_is_another_one() {
    let Some(models) = topic("models") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (model, kept) = (dir.path().join("model"), dir.path().join("kept"));
    copy(&models.join("sd15"), &model);
    let before = paint(open(&model).with_cache(cache(&kept)), PrecisionChoice::F32);
    let weights = model.join("unet/diffusion_pytorch_model.safetensors");
    let time = fs::metadata(&weights).unwrap().modified().unwrap();
    let mut bytes = fs::read(&weights).unwrap();
    // Ten numbers somewhere, at the same length and time.
    let middle = bytes.len() / 8 * 4;
    for byte in &mut bytes[middle..middle + 40] {
        *byte ^= 1;
    }
    fs::write(&weights, bytes).unwrap();
    let file = fs::File::options().write(true).open(&weights).unwrap();
    file.set_modified(time).unwrap();
    assert_eq!(noted(KEPT), 3);
    let after = paint(open(&model).with_cache(cache(&kept)), PrecisionChoice::F32);
    assert_eq!(noted(KEPT), 1, "the UNet, and no other part");
    assert_eq!(files(&kept).len(), 4);
    assert!(after == paint(open(&model), PrecisionChoice::F32));
    assert!(after != before, "the edit can be seen");
}

#[test]
fn a_damaged_file_is_made_again() {
    let Some(models) = topic("models") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let model = || open(&models.join("sd15")).with_cache(cache(dir.path()));
    let expected = paint(model(), PrecisionChoice::F32);
    assert_eq!(noted(KEPT), 3);
    let kept = files(dir.path());
    let unet = kept
        .iter()
        .find(|path| path.to_string_lossy().contains("unet"));
    let unet = unet.unwrap();
    let whole = fs::read(unet).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        bytes
    };
    let text = kept.iter().find(|path| path != &unet).unwrap();
    for bytes in [
        flipped(0),
        flipped(10),
        flipped(100),
        // The first weight's first number.
        flipped(2 << 20),
        flipped(whole.len() - 1),
        whole[..whole.len() - 1].to_vec(),
        whole[..1000].to_vec(),
        Vec::new(),
        fs::read(text).unwrap(),
    ] {
        // Renamed, as programs do: what is mapped is not written to.
        let mut new = tempfile::NamedTempFile::new_in(dir.path()).unwrap();
        new.write_all(&bytes).unwrap();
        new.persist(unet).unwrap();
        assert!(paint(model(), PrecisionChoice::F32) == expected);
        assert_eq!(noted(KEPT), 1);
        assert!(fs::read(unet).unwrap() == whole, "it is as it was");
        assert_eq!(files(dir.path()), kept);
    }
}

#[test]
fn weights_that_are_changed_as_they_are_read_are_not_kept() {
    let (Some(models), Some(loras)) = (topic("models"), topic("lora")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let model = || open(&models.join("sd15"));
    let plain = paint(model(), PrecisionChoice::F32);
    let lora = || {
        let file = loras.join("diffusers/pytorch_lora_weights.safetensors");
        model().with_lora(LoraFile::open(&file).unwrap(), 1.0)
    };
    let adapted = paint(lora(), PrecisionChoice::F32);
    assert!(adapted != plain);
    // With it first, without it, with it again.
    assert!(paint(lora().with_cache(cache(dir.path())), PrecisionChoice::F32) == adapted);
    assert_eq!(noted(KEPT), 1, "the autoencoder");
    assert!(paint(model().with_cache(cache(dir.path())), PrecisionChoice::F32) == plain);
    assert_eq!(noted(KEPT), 2);
    assert!(paint(lora().with_cache(cache(dir.path())), PrecisionChoice::F32) == adapted);
    assert_eq!(noted(KEPT), 0);
}

#[test]
fn a_folder_that_cannot_be_is_noted_and_no_error() {
    let Some(models) = topic("models") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let model = || open(&models.join("sd15"));
    let expected = paint(model(), PrecisionChoice::F32);
    let image = paint(
        model().with_cache(cache(&file.join("below"))),
        PrecisionChoice::F32,
    );
    assert!(image == expected);
    assert_eq!(noted("were not kept in"), 3);
    // Nor is a small model kept at all.
    let small = PackedCache::new(dir.path().join("small"), |_| panic!("nothing to say"));
    assert!(paint(model().with_cache(small), PrecisionChoice::F32) == expected);
    assert_eq!(files(dir.path()), [file]);
}
