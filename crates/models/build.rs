//! Writes tables of the files in the folders of `models`, for `src/lib.rs` to include. Without such a folder its table is
//! empty, and the program says at run time that it has none of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    for name in ["default", "scorer", "scorer-sprites"] {
        let folder = manifest.join("../../models").join(name);
        println!("cargo::rerun-if-changed={}", folder.display());
        fs::write(out.join(format!("{name}.rs")), table(&folder)?)?;
    }
    Ok(())
}

/// The Rust expression for the files of a folder.
fn table(folder: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    if folder.is_dir() {
        list(folder, &mut files)?;
    }
    files.sort();
    let mut table = String::from("&[\n");
    for file in &files {
        let file = file.canonicalize()?;
        let name = file
            .strip_prefix(folder.canonicalize()?)
            .map_err(io::Error::other)?;
        let name = name.to_string_lossy().replace('\\', "/");
        // `{:?}` of a string is a Rust string literal.
        writeln!(
            table,
            "    ({name:?}, include_bytes!({:?})),",
            file.to_string_lossy()
        )
        .map_err(io::Error::other)?;
    }
    table.push_str("]\n");
    Ok(table)
}

/// All files below `dir`, hidden ones left out.
fn list(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'))
        {
            continue;
        }
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
