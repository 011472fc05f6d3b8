//! Whole runs on every kind of source, on several at once, in buckets and mirrored: they go on as if nothing had happened,
//! and no stale cache is used.

mod common;

use std::fs;
use std::path::Path;

use common::data::{all_kinds, cut, noisy, png, write_parquet, write_tar};
use common::{config, prepare, run, weights};
use velatura::checkpoint::TensorFile;
use velatura_train::Ending;

const VAE: &str = r#"
[run]
dir = "DIR"
seed = 3
steps = 6
batch_size = 3
save_every = 2
sample_every = 0
export = "f32"
[data]
size = 32
crop = 16
flip = true
random_crop = true
workers = 2
DATA
[model]
part = "vae"
[vae]
in_channels = 3
out_channels = 3
latent_channels = 4
block_out_channels = [4, 8]
down_block_types = ["DownEncoderBlock2D", "DownEncoderBlock2D"]
up_block_types = ["UpDecoderBlock2D", "UpDecoderBlock2D"]
layers_per_block = 1
norm_num_groups = 2
"#;

/// The kinds of files in `dir`, as `[data]` names them, and last all of them and scenes as well.
fn kinds(dir: &Path) -> [(&'static str, String); 4] {
    let dir = dir.display();
    let each = [
        format!("kind = \"folder\"\npath = \"{dir}/pictures\"\n"),
        format!("kind = \"webdataset\"\npath = \"{dir}/shards-{{0..1}}.tar\"\n"),
        format!("kind = \"parquet\"\npath = \"{dir}/table.parquet\"\n"),
    ];
    let sources = each
        .iter()
        .map(|source| format!("[[data.sources]]\n{source}"));
    let mixed = sources.collect::<String>()
        + "weight = 2.5\n[[data.sources]]\nkind = \"scenes\"\ncount = 4\nweight = 0.5\n";
    let [folder, archives, table] = each;
    [
        ("folder", folder),
        ("webdataset", archives),
        ("parquet", table),
        ("mixed", mixed),
    ]
}

/// Runs `text` once at a stretch and once with a stop after `steps` whose checkpoint is lost, and compares what the
/// checkpoint `last` has of each of the `parts` and of everything else.
fn goes_on_as_if_nothing_had_happened(
    dir: &Path,
    name: &str,
    text: &str,
    last: &str,
    parts: &[&str],
) {
    let [whole, killed] = ["whole", "killed"].map(|run| format!("{name}-{run}"));
    assert_eq!(
        run(&config(dir, &whole, text), false, None).unwrap().ending,
        Ending::Finished
    );
    let file = config(dir, &killed, text);
    assert_eq!(run(&file, false, Some(3)).unwrap().step, 3);
    fs::remove_dir_all(dir.join(&killed).join("checkpoints/step-000003")).unwrap();
    run(&file, true, None).unwrap();
    let [whole, killed] = [whole, killed].map(|run| dir.join(run).join("checkpoints").join(last));
    for part in parts {
        assert_eq!(
            weights(&whole.join(part)),
            weights(&killed.join(part)),
            "{name}: {part}"
        );
    }
    let training = |run: &Path| fs::read(run.join("training.safetensors")).unwrap();
    assert!(training(&whole) == training(&killed), "{name}");
}

#[test]
fn an_autoencoder_goes_on_with_any_source() {
    let dir = tempfile::tempdir().unwrap();
    all_kinds(dir.path(), 10);
    let mut results = Vec::new();
    for (name, data) in kinds(dir.path()) {
        let text = VAE.replace("DATA", &data);
        goes_on_as_if_nothing_had_happened(dir.path(), name, &text, "step-000006", &["vae"]);
        results.push(weights(&dir.path().join(format!("{name}-whole/model/vae"))));
    }
    // The same pictures in the same order: it does not matter how they are kept.
    assert!(results[0] == results[1] && results[0] == results[2] && results[0] != results[3]);
}

/// `[data]` of the shared config for a UNet, with `data` in place of its scenes.
fn with_data(text: &str, data: &str) -> String {
    let start = text.find("kind = \"scenes\"").unwrap();
    let end = text.find("[model]").unwrap();
    let cache = text
        .lines()
        .find(|line| line.starts_with("cache = "))
        .unwrap();
    // Tables of arrays come after what belongs to `[data]` itself.
    format!(
        "{}size = 32\ncaption_dropout = 0.2\n{cache}\nworkers = 2\n{data}{}",
        &text[..start],
        &text[end..]
    )
}

#[test]
fn a_denoiser_goes_on_with_any_source_in_buckets_and_mirrored() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = prepare(dir.path());
    let text = text.replace("sample_every = 8", "sample_every = 0");
    all_kinds(dir.path(), 10);
    for (name, data) in kinds(dir.path()) {
        let data = format!("bucket_step = 8\nflip = true\nrandom_crop = true\n{data}");
        let text = with_data(&text, &data);
        goes_on_as_if_nothing_had_happened(
            dir.path(),
            name,
            &text,
            "step-000008",
            &["unet", "text_encoder"],
        );
    }
    // Four sources, of which the three of files have the same pictures: each is there in one of several shapes, and
    // those whose captions allow it a second time for their mirror image.
    let caches = fs::read_dir(dir.path().join("cache")).unwrap().flatten();
    let mut rows = Vec::new();
    for cache in caches {
        let shard = TensorFile::open(&cache.path().join("00000.safetensors")).unwrap();
        let names: Vec<&str> = shard.names().collect();
        let all = names
            .iter()
            .map(|name| shard.tensor(name).unwrap().shape[0]);
        rows.push((names.len(), all.sum::<usize>()));
    }
    rows.sort_unstable();
    // Pictures 0, 3, 6 and 9 speak of left; scenes are square.
    assert_eq!(rows[1..], [(3, 10 + 6); 3]);
    assert_eq!(rows[0].0, 1);
}

#[test]
fn what_speaks_of_left_and_right_is_not_mirrored() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unet) = prepare(dir.path());
    let unet = unet
        .replace("steps = 8", "steps = 4")
        .replace("sample_every = 8", "sample_every = 0");
    all_kinds(dir.path(), 6);
    let mut number = 0;
    let mut trained = |flip: bool, caption: &str| {
        number += 1;
        let data = format!(
            "flip = {flip}\nkind = \"webdataset\"\npath = \"{}/*.tar\"\ncaption = \"{caption}\"\n",
            dir.path().display()
        );
        let vae = VAE.replace("flip = true\n", "").replace("DATA", &data);
        let [vae, unet] = [("vae", vae), ("unet", with_data(&unet, &data))].map(|(part, text)| {
            let name = format!("{part}-{number}");
            run(&config(dir.path(), &name, &text), false, None).unwrap();
            let last = if part == "vae" {
                "step-000006"
            } else {
                "step-000004"
            };
            weights(
                &dir.path()
                    .join(name)
                    .join("checkpoints")
                    .join(last)
                    .join(part),
            )
        });
        (vae, unet)
    };
    let (vae, unet) = trained(false, "a thing on the left");
    let (mirrored_vae, mirrored_unet) = trained(true, "a thing on the left");
    assert!(vae == mirrored_vae && unet == mirrored_unet);
    let (vae, unet) = trained(false, "a thing");
    let (mirrored_vae, mirrored_unet) = trained(true, "a thing");
    assert!(vae != mirrored_vae && unet != mirrored_unet);
}

#[test]
fn what_pictures_are_made_of_decides_on_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = prepare(dir.path());
    let text = text.replace("steps = 8", "steps = 1");
    let at = |name: &str| dir.path().join(name);
    let caches = || fs::read_dir(at("cache")).unwrap().count();
    let mut number = 0;
    let mut train = |data: &str| {
        number += 1;
        run(
            &config(
                dir.path(),
                &format!("run-{number}"),
                &with_data(&text, data),
            ),
            false,
            None,
        )
        .unwrap();
        caches()
    };
    let [picture, other] = [1, 2].map(|n| png(&noisy(n, 40, 33)));
    write_tar(&at("a.tar"), &[("x.png", &picture), ("x.txt", b"one")]);
    let data = |name: &str| format!("kind = \"webdataset\"\npath = \"{}\"\n", at(name).display());
    assert_eq!(train(&data("a.tar")), 1);
    fs::rename(at("a.tar"), at("b.tar")).unwrap();
    assert_eq!(train(&data("b.tar")), 1);
    for (expected, more) in [
        (2, "flip = true\n"),
        (3, "random_crop = true\n"),
        (4, "bucket_step = 16\n"),
    ] {
        assert_eq!(
            train(&format!("{more}{}", data("b.tar"))),
            expected,
            "{more}"
        );
    }
    write_tar(&at("b.tar"), &[("x.png", &picture), ("x.txt", b"another")]);
    assert_eq!(train(&data("b.tar")), 5);
    write_tar(&at("b.tar"), &[("x.png", &other), ("x.txt", b"another")]);
    assert_eq!(train(&data("b.tar")), 6);
    write_parquet(&at("c.parquet"), &[(Some(picture), Some("one"))], 1);
    let table = format!(
        "kind = \"parquet\"\npath = \"{}\"\n",
        at("c.parquet").display()
    );
    assert_eq!(train(&table), 7);
    // Weights are not what latents depend on.
    let both = |weight: f32| {
        format!(
            "[[data.sources]]\nweight = {weight:?}\n{}[[data.sources]]\n{table}",
            data("b.tar")
        )
    };
    assert_eq!((train(&both(1.0)), train(&both(7.5))), (7, 7));
}

#[test]
fn texts_of_a_frozen_encoder_are_encoded_once() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = prepare(dir.path());
    run(&config(dir.path(), "base", &text), false, None).unwrap();
    let base = dir.path().join("base/model");
    let start = text.find("[unet]").unwrap();
    let end = text.find("[optimizer]").unwrap();
    let text = format!(
        "{}train_text_encoder = false\nbase = \"{}\"\n{}",
        &text[..start],
        base.display(),
        &text[end..]
    );
    let text = text.replace("sample_every = 8", "sample_every = 0");
    let texts = || -> Vec<_> {
        let folders = fs::read_dir(dir.path().join("cache")).unwrap().flatten();
        let folders = folders.map(|folder| folder.path());
        folders
            .filter(|path| path.to_string_lossy().contains("text-"))
            .collect()
    };
    let trained = |name: &str, text: &str| {
        run(&config(dir.path(), name, text), false, None).unwrap();
        weights(&dir.path().join(name).join("checkpoints/step-000008/unet"))
    };
    let plain = trained(
        "plain",
        &text.replace("workers = 2", "workers = 2\ncache_text = false"),
    );
    assert!(texts().is_empty());
    let first = trained("first", &text);
    let [folder] = &texts()[..] else {
        panic!("{:?}", texts())
    };
    let files = || {
        fs::read_dir(folder)
            .unwrap()
            .flatten()
            .map(|file| file.path())
    };
    let stamps = || {
        files()
            .map(|file| fs::metadata(file).unwrap().modified().unwrap())
            .collect::<Vec<_>>()
    };
    let made = stamps();
    assert!(!made.is_empty());
    // With all texts there, and with one missing and one damaged, the same weights come out.
    assert!(trained("again", &text) == first && stamps() == made);
    let some: Vec<_> = files().take(2).collect();
    fs::remove_file(&some[0]).unwrap();
    cut(&some[1], 50);
    assert!(trained("mended", &text) == first);
    assert_eq!(files().count(), made.len());
    // Without the cache texts are encoded side by side, which may change their last bits and no more.
    let distance = plain.iter().map(|(name, a)| {
        let floats = |bits: &[u32]| {
            bits.iter()
                .map(|&bits| f32::from_bits(bits))
                .collect::<Vec<_>>()
        };
        common::fixtures::distance(&floats(a), &floats(&first[name]))
    });
    assert!(distance.fold(0.0, f64::max) < 1e-3);
    // Another encoder has another cache.
    let file = base.join("text_encoder/model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    trained("other", &text);
    assert_eq!(texts().len(), 2);
}

#[test]
fn sources_with_flaws_are_survived_and_useless_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    all_kinds(dir.path(), 10);
    let rotten: Vec<(Option<Vec<u8>>, Option<&str>)> =
        vec![(Some(vec![1, 2, 3]), Some("rotten")); 5];
    write_parquet(&at("rotten.parquet"), &rotten, 2);
    let length = fs::metadata(at("shards-1.tar")).unwrap().len() as usize;
    cut(&at("shards-1.tar"), length / 2);
    let [.., (_, mixed)] = kinds(dir.path());
    let text = VAE.replace("DATA", &mixed);
    assert_eq!(
        run(&config(dir.path(), "flaws", &text), false, None)
            .unwrap()
            .ending,
        Ending::Finished
    );
    let message = |name: &str, text: &str| {
        let error = run(&config(dir.path(), name, text), false, None)
            .unwrap_err()
            .to_string();
        // A paragraph for a person, without a trace of a panic or a missing name.
        assert!(!error.contains('\n') && error.len() > 20, "{error}");
        error
    };
    let error = message("rotten", &text.replace("table.parquet", "rotten.parquet"));
    assert!(
        error.contains("rotten.parquet") && error.contains("nothing is left"),
        "{error}"
    );
    let error = message("gone", &text.replace("table.parquet", "gone.parquet"));
    assert!(error.contains("gone.parquet"), "{error}");
    fs::write(at("shards-1.tar"), "no archive").unwrap();
    let error = message(
        "archive",
        &VAE.replace(
            "DATA",
            &format!(
                "kind = \"webdataset\"\npath = \"{}\"\n",
                at("shards-1.tar").display()
            ),
        ),
    );
    assert!(
        error.contains("shards-1.tar") && error.contains("nothing is left"),
        "{error}"
    );
}
