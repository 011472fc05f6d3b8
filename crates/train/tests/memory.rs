//! Reading archives and tables takes the memory of a picture, whatever the size of the data. A test binary of its own,
//! as other tests would take memory beside it.

#![cfg(target_os = "linux")]

mod common;

use std::fs;

use common::data::{png, write_parquet, write_tar};
use velatura_train::config::{DataKind, Source};
use velatura_train::dataset::Dataset;

/// Memory of this process that belongs to no file, in bytes.
fn anonymous_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

#[test]
fn memory_does_not_grow_with_what_has_been_read() {
    let dir = tempfile::tempdir().unwrap();
    // 96 pictures of 128 KB.
    let pictures: Vec<Vec<u8>> = (0..96u64)
        .map(|n| {
            let mut state = n + 1;
            let noise = image::RgbImage::from_fn(208, 208, |_, _| {
                image::Rgb(std::array::from_fn(|_| {
                    state = (state * 1_664_525 + 1_013_904_223) % (1 << 32);
                    (state >> 21) as u8
                }))
            });
            png(&noise)
        })
        .collect();
    let names: Vec<String> = (0..96).map(|n| format!("{n:03}.png")).collect();
    let members: Vec<(&str, &[u8])> = names
        .iter()
        .zip(&pictures)
        .map(|(name, bytes)| (name.as_str(), &bytes[..]))
        .collect();
    write_tar(&dir.path().join("a.tar"), &members);
    let rows: Vec<_> = pictures
        .into_iter()
        .map(|bytes| (Some(bytes), Some("noise")))
        .collect();
    write_parquet(&dir.path().join("a.parquet"), &rows, 96);
    drop(rows);
    let read = |dataset: &Dataset, count: u64| {
        for index in 0..count {
            // All over the place, as a shuffled epoch goes.
            assert!(dataset.item(index * 37 % 96).is_ok());
        }
    };
    for (kind, name) in [
        (DataKind::WebDataset, "a.tar"),
        (DataKind::Parquet, "a.parquet"),
    ] {
        let source = Source {
            path: Some(dir.path().join(name)),
            ..Source::new(kind)
        };
        let dataset = Dataset::open(&source, 32, false).unwrap();
        read(&dataset, 40);
        let before = anonymous_memory();
        // More than 40 MB of files, more than 40 MB of pixels.
        read(&dataset, 320);
        let grown = anonymous_memory().saturating_sub(before);
        assert!(grown < 4 << 20, "{name}: {grown} bytes more");
    }
}
