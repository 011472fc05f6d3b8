//! Captioned scenes drawn from a seed, with known ground truth.
//!
//! A scene is a landscape at an hour in some weather, with one or two kinds of things in it, drawn
//! as a flat illustration with soft shade. Everything about it is known, so its captions are exact
//! and a program can check what a model paints for them.
//!
//! ```
//! use velatura_scenes::{SceneConfig, SceneGenerator};
//! let generator = SceneGenerator::new(SceneConfig { size: 64, ..SceneConfig::default() })?;
//! let scene = generator.scene(1, 0);
//! let picture = scene.render();
//! assert_eq!(picture.dimensions(), (64, 64));
//! println!("{}: {:?}", scene.captions[0], scene.truth.objects);
//! # Ok::<(), velatura_scenes::SceneError>(())
//! ```

mod arrange;
mod backdrop;
mod canvas;
mod caption;
mod catalogue;
mod colour;
mod config;
mod error;
mod figure;
mod folder;
mod held_out;
mod objects;
mod plan;
mod random;
mod scene;
mod sprites;
mod synonyms;
mod truth;
mod words;

pub use colour::{COLOURS, Colour, dominant, name_pixel};
pub use config::SceneConfig;
pub use error::SceneError;
pub use folder::Progress;
pub use held_out::HeldOut;
pub use plan::SceneGenerator;
pub use scene::Scene;
pub use sprites::{Sprite, SpriteSet};
pub use truth::{Object, PixelBox, Place, Position, Setting, Size, Style, Time, Truth, Weather};

/// Every word that a caption of the scenes drawn in code can contain, sorted.
pub fn vocabulary() -> Vec<String> {
    caption::vocabulary(&catalogue::kinds(None))
}
