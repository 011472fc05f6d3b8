//! The model that is compiled into the program, so that the first picture needs nothing else: the files of
//! `models/default` in the repository, a folder in diffusers' layout which `velatura train` wrote.

/// The name that pictures and messages give the embedded model.
pub const DEFAULT_NAME: &str = "velatura-default";

/// The files of the embedded model: their paths inside its folder, with `/`, and their content. Empty when the
/// repository had no `models/default` at build time.
pub const DEFAULT: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/default.rs"));

/// The files of the embedded scorer, which judges what models paint of scenes: `models/scorer`. Empty when the
/// repository had none at build time.
pub const SCORER: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/scorer.rs"));
