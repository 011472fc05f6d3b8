//! The model that is compiled into the program, so that the first picture needs nothing else: the files of
//! `models/default` in the repository, a folder in diffusers' layout which `velatura train` wrote.

/// The name that pictures and messages give the embedded model.
pub const DEFAULT_NAME: &str = "velatura-default";

/// The files of the embedded model: their paths inside its folder, with `/`, and their content. Empty when the
/// repository had no `models/default` at build time.
pub const DEFAULT: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/default.rs"));

/// The files of the embedded scorers, which judge what models paint of scenes: `models/scorer` for those drawn in code,
/// `models/scorer-sprites` for those of the embedded model. Empty where the repository had none at build time.
pub const SCORERS: [&[(&str, &[u8])]; 2] = [
    include!(concat!(env!("OUT_DIR"), "/scorer.rs")),
    include!(concat!(env!("OUT_DIR"), "/scorer-sprites.rs")),
];
