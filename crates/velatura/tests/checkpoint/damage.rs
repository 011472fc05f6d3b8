//! Files that are cut short, changed or made up.

use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};
use velatura::checkpoint::{Component, TensorFile};

use crate::{DIFFUSERS, assert_says, f32_file, file, folder, message};

#[test]
fn damaged_files_are_explained() {
    let good = f32_file(&[("a", &[2], &[1.0, 2.0]), ("b", &[1], &[3.0])]);
    let open = |bytes: &[u8]| {
        let dir = folder(&[(DIFFUSERS, bytes.to_vec())]);
        message(Component::open(dir.path(), None))
    };
    // Cut anywhere, it is never taken for whole, and never a panic.
    for length in 0..good.len() {
        assert_says(&open(&good[..length]), &[DIFFUSERS, "cut short"]);
    }
    let mut longer = good.clone();
    longer.push(0);
    assert_says(&open(&longer), &["12 bytes", "13"]);
    assert_says(
        &open(b"PK\x03\x04\x14\x00\x08\x08\x08\x08archive"),
        &["not a safetensors file", "convert"],
    );

    let entry = |shape: Value, offsets: Value| json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
    let with = |header: Value| open(&file(&header, &[0; 8]));
    assert_says(
        &with(json!({"a": entry(json!([3]), json!([0, 8]))})),
        &["`a`", "12 bytes", "0..8"],
    );
    assert_says(
        &with(json!({"a": entry(json!([2]), json!([8, 0]))})),
        &["`a`", "8..0"],
    );
    assert_says(
        &with(json!({"a": entry(json!([2]), json!([4, 12]))})),
        &["`a`", "from byte 0"],
    );
    assert_says(
        &with(
            json!({"a": entry(json!([1]), json!([0, 4])), "b": entry(json!([1]), json!([0, 4]))}),
        ),
        &["`b`", "from byte 4"],
    );
    assert_says(
        &with(json!({"a": entry(json!([u64::MAX, u64::MAX]), json!([0, 8]))})),
        &["`a`", "fits into memory"],
    );
    assert_says(
        &with(json!({"a": entry(json!([-1]), json!([0, 8]))})),
        &["`a`", "-1"],
    );
    assert_says(
        &with(json!({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}})),
        &["`a`", "F99"],
    );
    assert_says(
        &with(json!({"a": {"dtype": "F32", "shape": [2]}})),
        &["`a`", "data_offsets"],
    );
    assert_says(&with(json!([1, 2])), &["header", "one entry per tensor"]);
    let twice = br#"{"a": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}, "a": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let mut bytes = (twice.len() as u64).to_le_bytes().to_vec();
    bytes.extend(twice);
    bytes.extend([0; 8]);
    assert_says(&open(&bytes), &["`a` occurs twice"]);

    // Eight tensors of 2^61 bytes: their sum exceeds 64 bits.
    let step = 1u64 << 61;
    let mut huge = serde_json::Map::new();
    for i in 0..8u64 {
        let end = if i == 7 { u64::MAX } else { (i + 1) * step };
        let shape = if i == 7 { step - 1 } else { step };
        let entry = json!({"dtype": "U8", "shape": [shape], "data_offsets": [i * step, end]});
        huge.insert(format!("t{i}"), entry);
    }
    assert!(with(Value::Object(huge)).contains("t0"));
}

proptest! {
    /// Whatever the bytes are: an error or tensors that lie within the file, and no panic.
    #[test]
    fn no_header_makes_a_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..64),
        place in 0usize..200,
        value in any::<u8>(),
        kind in 0..3,
        offsets in any::<[u64; 4]>(),
        shape in proptest::collection::vec(any::<u64>(), 0..4),
    ) {
        let bytes = match kind {
            0 => noise,
            1 => {
                let mut bytes = f32_file(&[("a", &[2], &[1.0, 2.0]), ("b", &[1], &[3.0])]);
                let place = place % bytes.len();
                bytes[place] = value;
                bytes
            }
            _ => file(&json!({
                "a": {"dtype": "F32", "shape": shape, "data_offsets": [offsets[0] % 16, offsets[1] % 16]},
                "b": {"dtype": "U8", "shape": [offsets[3]], "data_offsets": [offsets[2], offsets[3]]},
            }), &noise),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        fs::write(&path, bytes).unwrap();
        if let Ok(file) = TensorFile::open(&path) {
            for name in file.names() {
                let view = file.tensor(name).unwrap();
                let _ = view.to_f32();
            }
        }
    }
}
