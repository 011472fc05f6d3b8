//! A folder of pictures with captions: `name.txt` beside `name.png`, `metadata.jsonl` or `metadata.csv`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Item, Pictures, Skipped, captions, hex, summary};
use crate::error::{Error, Result};
use crate::picture::{self, is_picture};

/// Pictures in a folder and the folders below it, in the order of their names.
///
/// Captions come from `metadata.jsonl` or `metadata.csv` in the folder itself or any below it, otherwise from `name.txt`
/// beside `name.png`; see [`captions`].
pub struct FolderDataset {
    dir: PathBuf,
    entries: Vec<Entry>,
    skipped: Vec<Skipped>,
}

struct Entry {
    /// Relative to the dataset's folder.
    file: PathBuf,
    captions: Vec<String>,
}

impl FolderDataset {
    /// Looks through `dir`. Files that are not pictures by their header, and with `captions_needed` pictures without a
    /// caption, are passed over and named by [`FolderDataset::skipped`].
    ///
    /// # Errors
    /// The folder is missing, a metadata file has a line that cannot be understood, or nothing is left.
    pub fn scan(dir: &Path, captions_needed: bool) -> Result<FolderDataset> {
        if !dir.is_dir() {
            let found = if dir.exists() { "a file" } else { "nothing" };
            return Err(Error::data(
                dir.display(),
                format!("expected a folder of pictures, found {found}; check [data] path"),
            ));
        }
        let mut pictures = Vec::new();
        let mut listed = BTreeMap::new();
        walk(dir, Path::new(""), &mut pictures, &mut listed)?;

        let mut dataset = FolderDataset {
            dir: dir.to_path_buf(),
            entries: Vec::new(),
            skipped: Vec::new(),
        };
        for file in listed.keys().filter(|file| !dir.join(file).is_file()) {
            dataset.skip(
                file,
                "the folder's metadata names it, but there is no such file",
            );
        }
        pictures.sort();
        let found = pictures.len();
        for file in pictures {
            if let Err(reason) = picture::dimensions(&dir.join(&file)) {
                dataset.skip(&file, reason);
                continue;
            }
            let captions = match listed.remove(&file) {
                Some(captions) => captions,
                None => match captions::beside(&dir.join(&file)) {
                    Ok(captions) => captions,
                    Err(reason) => {
                        dataset.skip(&file, reason);
                        continue;
                    }
                },
            };
            if captions.is_empty() && captions_needed {
                dataset.skip(
                    &file,
                    "no caption: neither a .txt file beside it nor a line in metadata.jsonl or metadata.csv",
                );
                continue;
            }
            dataset.entries.push(Entry { file, captions });
        }
        if dataset.entries.is_empty() {
            let message = match (found, dataset.skipped.is_empty()) {
                (0, true) => format!(
                    "no pictures found (endings: {})",
                    picture::EXTENSIONS.join(", ")
                ),
                _ => format!(
                    "nothing is left to learn from; {}",
                    summary(&dataset.skipped)
                ),
            };
            return Err(Error::data(dir.display(), message));
        }
        Ok(dataset)
    }

    fn skip(&mut self, file: &Path, reason: impl Into<String>) {
        self.skipped.push(Skipped {
            file: file.display().to_string(),
            reason: reason.into(),
        });
    }
}

impl Pictures for FolderDataset {
    fn len(&self) -> Option<u64> {
        Some(self.entries.len() as u64)
    }

    fn item(&self, index: u64) -> Result<Item, Skipped> {
        let entry = &self.entries[index as usize];
        match picture::decode(&self.dir.join(&entry.file)) {
            Ok(picture) => Ok(Item {
                picture,
                captions: entry.captions.clone(),
            }),
            Err(reason) => Err(Skipped {
                file: entry.file.display().to_string(),
                reason,
            }),
        }
    }

    fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    fn place(&self) -> String {
        self.dir.display().to_string()
    }

    fn fingerprint(&self) -> Result<String> {
        let mut all = Sha256::new();
        for entry in &self.entries {
            let path = self.dir.join(&entry.file);
            let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
            all.update(entry.file.as_os_str().as_encoded_bytes());
            all.update([0]);
            all.update(Sha256::digest(&bytes));
            for caption in &entry.captions {
                all.update(caption.as_bytes());
                all.update([0]);
            }
            all.update([1]);
        }
        Ok(hex(&all.finalize()))
    }
}

/// Collects pictures and the captions of metadata files, both by path relative to `root`.
fn walk(
    root: &Path,
    below: &Path,
    pictures: &mut Vec<PathBuf>,
    listed: &mut BTreeMap<PathBuf, Vec<String>>,
) -> Result<()> {
    let dir = root.join(below);
    for entry in fs::read_dir(&dir).map_err(Error::io("read the folder", &dir))? {
        let entry = entry.map_err(Error::io("read the folder", &dir))?;
        let name = entry.file_name();
        let relative = below.join(&name);
        let path = entry.path();
        // `is_dir` follows links, as people who link data sets together expect; hidden names are the system's.
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        } else if path.is_dir() {
            walk(root, &relative, pictures, listed)?;
        } else if captions::is_list(&name) {
            captions::read_list(&path, below, listed)?;
        } else if is_picture(&path) {
            pictures.push(relative);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Dataset;
    use super::*;
    use crate::config::{DataKind, Source};
    use image::{Rgb, RgbImage};

    fn picture(path: &Path, value: u8) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_pixel(12, 10, Rgb([value, 0, 0]))
            .save(path)
            .unwrap();
    }

    #[test]
    fn captions_come_from_text_files_and_from_metadata() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        picture(&at("a.png"), 1);
        fs::write(at("a.txt"), "\u{feff}a red thing\n\n a thing, red \n").unwrap();
        picture(&at("deep/er/b.jpg"), 2);
        picture(&at("deep/c.webp"), 3);
        let lines = "{\"file_name\": \"er/b.jpg\", \"text\": \"bee\", \"size\": 3}\n{\"file_name\": \"./c.webp\", \"text\": [\"sea\", \"see\"]}\n";
        fs::write(at("deep/metadata.jsonl"), lines).unwrap();
        let dataset = FolderDataset::scan(dir.path(), true).unwrap();
        assert!(dataset.skipped().is_empty(), "{:?}", dataset.skipped());
        let captions: Vec<Vec<String>> =
            (0..3).map(|i| dataset.item(i).unwrap().captions).collect();
        assert_eq!(
            captions,
            [
                vec!["a red thing", "a thing, red"],
                vec!["sea", "see"],
                vec!["bee"]
            ]
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        picture(&at("good.png"), 1);
        fs::write(at("good.txt"), "fine").unwrap();
        picture(&at("mute.png"), 1);
        fs::write(at("text.png"), "I am no picture").unwrap();
        fs::write(at("empty.jpg"), "").unwrap();
        picture(&at("latin.png"), 1);
        fs::write(at("latin.txt"), b"caf\xe9").unwrap();
        fs::write(
            at("metadata.jsonl"),
            "{\"file_name\": \"gone.png\", \"text\": \"where?\"}",
        )
        .unwrap();
        let dataset = FolderDataset::scan(dir.path(), true).unwrap();
        assert_eq!(dataset.len(), Some(1));
        let names: Vec<&str> = dataset
            .skipped()
            .iter()
            .map(|skipped| skipped.file.as_str())
            .collect();
        let expected = ["gone.png", "empty.jpg", "latin.png", "mute.png", "text.png"];
        assert_eq!(names, expected);
        let summary = summary(dataset.skipped());
        for part in [
            "empty.jpg (it is empty)",
            "latin.png (latin.txt: expected text in UTF-8, found other bytes from byte 3 on",
        ] {
            assert!(summary.contains(part), "{summary}");
        }
        assert!(!summary.contains('\n'), "{summary}");
        // A VAE needs no captions.
        assert_eq!(
            FolderDataset::scan(dir.path(), false).unwrap().len(),
            Some(2)
        );
    }

    #[test]
    fn a_file_cut_short_is_found_when_it_is_decoded() {
        let dir = tempfile::tempdir().unwrap();
        let noisy = RgbImage::from_fn(64, 64, |x, y| {
            Rgb([(x * y) as u8, (x * 7) as u8, (y * 13) as u8])
        });
        for name in ["a.png", "b.png"] {
            noisy.save(dir.path().join(name)).unwrap();
        }
        let bytes = fs::read(dir.path().join("a.png")).unwrap();
        fs::write(dir.path().join("a.png"), &bytes[..bytes.len() / 2]).unwrap();
        let source = Source {
            path: Some(dir.path().to_path_buf()),
            ..Source::new(DataKind::Folder)
        };
        let dataset = Dataset::open(&source, 64, false).unwrap();
        let mut broken = Vec::new();
        let item = dataset
            .usable_item(0, &mut |skipped| broken.push(skipped.file))
            .unwrap();
        assert_eq!((item.picture, broken), (noisy, vec!["a.png".to_string()]));

        let bytes = fs::read(dir.path().join("b.png")).unwrap();
        fs::write(dir.path().join("b.png"), &bytes[..bytes.len() / 2]).unwrap();
        let error = dataset.usable_item(1, &mut |_| ()).unwrap_err().to_string();
        assert!(error.contains("nothing is left"), "{error}");
    }

    #[test]
    fn useless_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let message = |dataset: Result<FolderDataset>| dataset.err().unwrap().to_string();
        assert!(
            message(FolderDataset::scan(&dir.path().join("no"), true)).contains("found nothing")
        );
        assert!(message(FolderDataset::scan(dir.path(), true)).contains("no pictures found"));
        picture(&dir.path().join("a.png"), 1);
        assert!(message(FolderDataset::scan(dir.path(), true)).contains("no caption"));
        fs::write(dir.path().join("metadata.jsonl"), "\n{\"file_name\": 3}\n").unwrap();
        assert!(message(FolderDataset::scan(dir.path(), true)).contains("metadata.jsonl, line 2"));
        fs::write(
            dir.path().join("metadata.jsonl"),
            "{\"file_name\": \"../a.png\", \"text\": \"x\"}",
        )
        .unwrap();
        assert!(message(FolderDataset::scan(dir.path(), true)).contains("inside the folder"));
    }

    #[test]
    fn the_fingerprint_follows_contents_and_captions() {
        let dir = tempfile::tempdir().unwrap();
        picture(&dir.path().join("a.png"), 1);
        let print = || {
            FolderDataset::scan(dir.path(), false)
                .unwrap()
                .fingerprint()
                .unwrap()
        };
        let first = print();
        assert_eq!(first, print());
        fs::write(dir.path().join("a.txt"), "a caption").unwrap();
        let second = print();
        picture(&dir.path().join("a.png"), 2);
        assert!(first != second && second != print());
    }
}
