//! Sources of pictures: those that the libraries of the field write, and such with every flaw that files have.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::data::{cut, noisy, png, write_numbers, write_parquet, write_tar};
use common::fixtures::topic;
use serde_json::Value;
use velatura_train::config::{DataKind, Source};
use velatura_train::dataset::Dataset;

fn source(kind: DataKind, path: impl Into<PathBuf>) -> Source {
    Source {
        path: Some(path.into()),
        ..Source::new(kind)
    }
}

fn open(source: &Source) -> Dataset {
    Dataset::open(source, 32, true).unwrap_or_else(|error| panic!("{error}"))
}

/// What is said of a source that cannot be used at all.
fn refused(source: &Source) -> String {
    Dataset::open(source, 32, true)
        .err()
        .expect("an error")
        .to_string()
}

#[test]
fn what_the_libraries_of_the_field_write_is_read() {
    let Some(dir) = topic("datasets") else { return };
    let text = fs::read_to_string(dir.join("expected.json")).unwrap();
    let expected: Vec<Value> = serde_json::from_str(&text).unwrap();
    let lists = Source {
        image_column: Some("picture".into()),
        caption_column: Some("captions".into()),
        ..source(DataKind::Parquet, dir.join("hub_lists.parquet"))
    };
    for (source, captions) in [
        (source(DataKind::Parquet, dir.join("hub.parquet")), 1),
        (lists, 2),
        (source(DataKind::Parquet, dir.join("plain.parquet")), 1),
        (source(DataKind::WebDataset, dir.join("shards")), 2),
        (
            source(
                DataKind::WebDataset,
                dir.join("shards/{000000..000002}.tar"),
            ),
            2,
        ),
    ] {
        let dataset = open(&source);
        assert_eq!(dataset.len(), Some(10), "{source:?}");
        assert!(dataset.skipped().is_empty(), "{:?}", dataset.skipped());
        // From the last to the first: every picture is found without those before it.
        for (index, expected) in expected.iter().enumerate().rev() {
            let item = dataset.item(index as u64).unwrap();
            let [width, height] = [0, 1].map(|i| expected["size"][i].as_u64().unwrap() as u32);
            assert_eq!(item.picture.dimensions(), (width, height));
            let said: Vec<&str> = expected["captions"].as_array().unwrap()[..captions]
                .iter()
                .map(|caption| caption.as_str().unwrap())
                .collect();
            assert_eq!(item.captions, said);
            // Decoders of JPEG may differ by the last bits of a value.
            let sum: i64 = item
                .picture
                .as_raw()
                .iter()
                .map(|&value| i64::from(value))
                .sum();
            let off = (sum - expected["sum"].as_i64().unwrap()).abs();
            assert!(
                off <= i64::from(2 * 3 * width * height),
                "picture {index}: off by {off}"
            );
        }
    }
}

#[test]
fn flaws_of_archives_are_named_and_the_rest_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let [first, second] = [1, 2].map(|n| png(&noisy(n, 20, 12)));
    write_tar(
        &at("good.tar"),
        &[
            // In any order, and beside what is other people's business.
            ("a.txt", b"one"),
            ("b.json", b"{\"caption\": \"two\"}"),
            ("b.seg.png", b"a mask"),
            ("b.png", &second),
            ("a.png", &first),
            ("a.cls", b"7"),
            ("._a.png", b"a Mac was here"),
            ("a.jpg", b"second picture of its sample"),
            ("mute.png", &first),
            ("lonely.txt", b"no picture"),
            ("rotten.png", b"no picture either"),
            ("rotten.txt", b"rotten"),
            ("half.png", &first[..first.len() / 2]),
            ("half.txt", b"half"),
            ("latin.png", &first),
            ("latin.txt", b"caf\xe9"),
            ("blank.png", &first),
            ("blank.txt", b" \n"),
            ("odd.png", &first),
            ("odd.json", b"{no JSON"),
        ],
    );
    write_tar(&at("none.tar"), &[("a.txt", b"only words")]);
    fs::write(at("zero.tar"), "").unwrap();
    fs::write(at("text.tar"), "I am no archive. ".repeat(100)).unwrap();
    fs::write(at("packed.tar"), [&[0x1f, 0x8b][..], &[7; 2000]].concat()).unwrap();
    let dataset = open(&source(DataKind::WebDataset, dir.path()));
    assert_eq!(dataset.len(), Some(7));
    let said: Vec<String> = dataset
        .skipped()
        .iter()
        .map(|skipped| skipped.to_string())
        .collect();
    for expected in [
        "good.tar:a.jpg (this sample has had one already",
        "good.tar:mute (no caption",
        "good.tar:lonely (no picture",
        "none.tar (no pictures in it",
        "zero.tar (no pictures in it",
        "text.tar (not a tar archive",
        "expected a plain tar archive",
    ] {
        assert!(
            said.iter().any(|said| said.contains(expected)),
            "{expected} in {said:#?}"
        );
    }
    let mut used = Vec::new();
    let mut broken = Vec::new();
    for index in 0..7 {
        match dataset.item(index) {
            Ok(item) => used.extend(item.captions),
            Err(skipped) => broken.push(skipped.to_string()),
        }
    }
    assert_eq!(used, ["one", "two"]);
    for (broken, expected) in broken
        .iter()
        .zip(["rotten", "half", "latin", "blank", "odd"])
    {
        assert!(
            broken.contains(&format!("good.tar:{expected} (")),
            "{broken}"
        );
    }

    // Cut short within a member, within a header, and between two members.
    let whole: Vec<(String, Vec<u8>)> = (0..4)
        .map(|n| (format!("{n}.png"), png(&noisy(n, 30, 30))))
        .collect();
    let members: Vec<(&str, &[u8])> = whole
        .iter()
        .map(|(name, bytes)| (name.as_str(), &bytes[..]))
        .collect();
    let one = 512 + whole[0].1.len().next_multiple_of(512);
    for (length, left) in [
        (one + 512 + 100, 1),
        (one + 100, 1),
        (2 * one + 512 + 8, 2),
        (one, 1),
    ] {
        let path = at("cut.tar");
        write_tar(&path, &members);
        cut(&path, length);
        let dataset = Dataset::open(&source(DataKind::WebDataset, &path), 32, false).unwrap();
        assert_eq!((dataset.len(), dataset.skipped().len()), (Some(left), 1));
        assert!(dataset.item(left - 1).is_ok());
        assert!(
            dataset.skipped()[0].file.contains("cut.tar"),
            "{:?}",
            dataset.skipped()
        );
    }

    // Where nothing is left, that is an error.
    for name in ["none.tar", "zero.tar", "text.tar", "packed.tar"] {
        let error = refused(&source(DataKind::WebDataset, at(name)));
        assert!(
            error.contains(name) && error.contains("nothing is left"),
            "{error}"
        );
    }
    let error = refused(&source(DataKind::WebDataset, at("{good,gone}.tar")));
    assert!(error.contains("gone.tar"), "{error}");
}

#[test]
fn flaws_of_tables_are_named_and_the_rest_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let picture = |n: u32| png(&noisy(n, 20, 12));
    let mut rows: Vec<_> = (0..20)
        .map(|n| (Some(picture(n)), Some("a caption")))
        .collect();
    rows[3].0 = None;
    rows[4].1 = None;
    rows[17].0 = Some(b"no picture".to_vec());
    write_parquet(&at("a.parquet"), &rows, 7);
    write_parquet(&at("b.parquet"), &rows[..2], 7);
    let dataset = open(&source(DataKind::Parquet, dir.path()));
    assert_eq!(dataset.len(), Some(22));
    for index in (0..22).rev() {
        match (dataset.item(index), index) {
            (Err(skipped), 3 | 4 | 17) => {
                assert!(
                    skipped.file.ends_with(&format!("a.parquet, row {index}")),
                    "{skipped}"
                );
            }
            (item, 20 | 21) => assert_eq!(item.unwrap().picture, noisy(index as u32 - 20, 20, 12)),
            (item, _) => assert_eq!(item.unwrap().picture, noisy(index as u32, 20, 12)),
        }
    }

    let file = |name: &str| source(DataKind::Parquet, at(name));
    let named = Source {
        image_column: Some("photo".into()),
        ..file("a.parquet")
    };
    let error = refused(&named);
    assert!(
        error.contains("a.parquet: image_column: expected a column \"photo\", found image, text"),
        "{error}"
    );
    let named = Source {
        caption_column: Some("caption".into()),
        ..file("a.parquet")
    };
    assert!(refused(&named).contains("caption_column: expected a column \"caption\""));
    write_numbers(&at("numbers.parquet"), "image");
    let error = Dataset::open(&file("numbers.parquet"), 32, false)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("numbers.parquet") && error.contains("INT64"),
        "{error}"
    );
    assert!(refused(&file("numbers.parquet")).contains("\"text\""));
    write_parquet(&at("empty.parquet"), &[], 7);
    assert!(refused(&file("empty.parquet")).contains("rows, found 0"));
    let length = fs::metadata(at("a.parquet")).unwrap().len() as usize;
    for length in [length - 20, length / 2, 3, 0] {
        fs::copy(at("a.parquet"), at("short.parquet")).unwrap();
        cut(&at("short.parquet"), length);
        let error = refused(&file("short.parquet"));
        assert!(
            error.contains("short.parquet: expected a whole Parquet file"),
            "{error}"
        );
    }
    assert!(refused(&file("gone.parquet")).contains("gone.parquet"));
    // Damage in the middle costs the rows that it hits, at most.
    let mut bytes = fs::read(at("a.parquet")).unwrap();
    for byte in &mut bytes[400..700] {
        *byte = !*byte;
    }
    fs::write(at("damaged.parquet"), bytes).unwrap();
    let damaged = open(&file("damaged.parquet"));
    let usable = (0..20).filter(|&index| damaged.item(index).is_ok()).count();
    assert!((12..17).contains(&usable), "{usable}");
    let whole = fs::read(at("a.parquet")).unwrap();
    for start in (0..whole.len() - 16).step_by(whole.len() / 60) {
        let mut bytes = whole.clone();
        bytes[start..start + 16].fill(0xe7);
        fs::write(at("damaged.parquet"), bytes).unwrap();
        // Whatever it is, it is an error or a picture.
        if let Ok(damaged) = Dataset::open(&file("damaged.parquet"), 32, true) {
            let usable = (0..damaged.len().unwrap()).filter(|&index| damaged.item(index).is_ok());
            assert!(usable.count() <= 17);
        }
    }

    // One caption for all stands in for what is missing.
    let captioned = Source {
        caption: Some("a thing".into()),
        ..file("a.parquet")
    };
    assert_eq!(open(&captioned).item(4).unwrap().captions, ["a thing"]);
}

#[test]
fn the_fingerprint_goes_by_content_not_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let picture = png(&noisy(1, 16, 16));
    let print = |path: &Path, kind| open(&source(kind, path)).fingerprint().unwrap();
    let [a, b, c] = ["a.tar", "b.tar", "c.tar"].map(|name| dir.path().join(name));
    write_tar(&a, &[("x.png", &picture), ("x.txt", b"one")]);
    fs::copy(&a, &b).unwrap();
    write_tar(&c, &[("x.png", &picture), ("x.txt", b"two")]);
    assert_eq!(
        print(&a, DataKind::WebDataset),
        print(&b, DataKind::WebDataset)
    );
    assert_ne!(
        print(&a, DataKind::WebDataset),
        print(&c, DataKind::WebDataset)
    );
    let [a, b] = ["a.parquet", "b.parquet"].map(|name| dir.path().join(name));
    write_parquet(&a, &[(Some(picture.clone()), Some("one"))], 1);
    write_parquet(&b, &[(Some(picture), Some("two"))], 1);
    assert_ne!(print(&a, DataKind::Parquet), print(&b, DataKind::Parquet));
}
