//! The configs that come with the program.

use std::path::Path;

use velatura_train::Config;

#[test]
fn every_ready_config_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        Config::from_file(&path).unwrap();
        count += 1;
    }
    assert!(count >= 5, "{count} configs");
}
