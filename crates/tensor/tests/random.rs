//! The generator against PyTorch's, bit for bit. The cases come from `random/cases.json`, which
//! `fixtures/make_random.py` writes.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use velatura_tensor::random::TorchGenerator;

#[derive(Deserialize)]
struct Case {
    seed: u64,
    draws: Vec<Draw>,
}

#[derive(Deserialize)]
struct Draw {
    kind: String,
    size: usize,
    bound: Option<u32>,
    tensor: String,
    sha256: String,
}

/// The folder of this topic's fixtures; `None` when `VELATURA_FIXTURES` names a folder without the topic.
fn fixtures(topic: &str) -> Option<PathBuf> {
    let given = std::env::var_os("VELATURA_FIXTURES");
    let root = given.clone().map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data"),
        PathBuf::from,
    );
    let folder = root.join(topic);
    if given.is_some() && !folder.is_dir() {
        println!("no `{topic}` in {}: skipped", root.display());
        return None;
    }
    Some(folder)
}

/// The draw's numbers as the bytes that PyTorch holds them in.
fn draw(generator: &mut TorchGenerator, draw: &Draw) -> Vec<[u8; 4]> {
    let floats = |values: Vec<f32>| values.into_iter().map(f32::to_le_bytes).collect();
    match draw.kind.as_str() {
        "randn" => floats(generator.randn(draw.size)),
        "rand" => floats(generator.uniform(draw.size)),
        "randint" => {
            let values = generator.randint(draw.bound.expect("a bound"), draw.size);
            values.into_iter().map(u32::to_le_bytes).collect()
        }
        other => panic!("unknown kind of draw `{other}`"),
    }
}

#[test]
fn numbers_are_pytorchs_bit_for_bit() {
    let Some(folder) = fixtures("random") else {
        return;
    };
    let cases: Vec<Case> =
        serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    assert!(!cases.is_empty());
    let bytes = std::fs::read(folder.join("random.safetensors")).unwrap();
    let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for case in &cases {
        let mut generator = TorchGenerator::new(case.seed);
        for (index, wanted) in case.draws.iter().enumerate() {
            let place = format!(
                "seed {}, draw {index} ({} {})",
                case.seed, wanted.kind, wanted.size
            );
            let found = draw(&mut generator, wanted);
            let expected = stored.tensor(&wanted.tensor).unwrap();
            let (expected, _) = expected.data().as_chunks::<4>();
            // Long draws are stored as a beginning and an end of equal length.
            let (first, last) = expected.split_at(expected.len() / 2);
            assert_eq!(&found[..first.len()], first, "{place}: first numbers");
            assert_eq!(
                &found[found.len() - last.len()..],
                last,
                "{place}: last numbers"
            );
            let digest: String = Sha256::digest(found.as_flattened())
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(digest, wanted.sha256, "{place}: all numbers");
        }
    }
    println!("{} cases", cases.len());
}

#[test]
fn a_stored_state_goes_on_where_it_was() {
    let mut generator = TorchGenerator::new(7);
    // An odd, short draw leaves a spare normal; 1000 more leave a position inside the state.
    generator.randn(3);
    generator.uniform(1000);
    let json = serde_json::to_string(&generator.state()).unwrap();
    let mut restored = TorchGenerator::from_state(&serde_json::from_str(&json).unwrap()).unwrap();
    assert_eq!(restored, generator);
    assert_eq!(restored.randn(5), generator.randn(5));
    assert_eq!(restored.randn(50), generator.randn(50));
}
