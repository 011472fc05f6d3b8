//! What can go wrong, each with the file, the field, what was expected and what was found.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SceneError {
    /// A value of [`crate::SceneConfig`] that no scene can be drawn with.
    #[error("scene config: `{field}` must be {expected}, but it is {found}")]
    Config {
        field: &'static str,
        expected: String,
        found: String,
    },

    /// A line of `sprites.jsonl` that doesn't say what it must.
    #[error("{file}, line {line}: `{field}` must be {expected}, but {found}", file = .file.display())]
    SpriteField {
        file: PathBuf,
        line: usize,
        field: String,
        expected: String,
        found: String,
    },

    /// A sprite's picture that can't be used.
    #[error("{file}, line {line}: the picture {picture} can't be used: {reason}", file = .file.display(), picture = .picture.display())]
    SpritePicture {
        file: PathBuf,
        line: usize,
        picture: PathBuf,
        reason: String,
    },

    /// No folder of sprites where there should be one.
    #[error(
        "there is no {file}; a folder of sprites can be made by configs/make_sprites.py, and docs/training.md says what it needs",
        file = .file.display()
    )]
    NoSpriteFolder { file: PathBuf },

    /// A sprite folder with nothing to draw in it.
    #[error("{file}: no sprite with `core: true` in {lines} lines; a scene needs named sprites (`name`, `plural`, `place`)", file = .file.display())]
    NoSprites { file: PathBuf, lines: usize },

    /// A file that can't be read.
    #[error("can't read {path}: {source}", path = .path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },

    /// A file that can't be written.
    #[error("can't write {path}: {source}", path = .path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },

    /// A picture that can't be encoded.
    #[error("can't write the picture {path}: {reason}", path = .path.display())]
    Encode { path: PathBuf, reason: String },

    /// The output folder has something in it already.
    #[error("the folder {path} exists and is not empty; name another, or remove it first", path = .path.display())]
    OutputExists { path: PathBuf },

    /// The caller's progress callback asked to stop.
    #[error("stopped after {done} of {count} scenes; nothing was kept")]
    Cancelled { done: u64, count: u64 },
}
