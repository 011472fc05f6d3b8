//! A network that says what a drawn scene shows: its landscape, hour and weather, and which things of which colour
//! stand where. It judges what a model paints, so it is trained on scenes alone and knows no model.
//!
//! Things are found as points (Zhou, Wang and Krähenbühl 2019, arXiv:1904.07850): of each cell of a coarse grid it
//! says whether a thing's centre lies there, and which, of which colour and how large.

mod degrade;
mod loss;
mod net;
pub mod question;
mod sight;
mod source;
mod step;
mod target;

pub(crate) use self::degrade::Pixels;
pub use self::net::{Outputs, Scorer, ScorerConfig};
pub use self::question::{Aspect, Question, judge};
pub use self::sight::{Sight, Thing};
pub use self::source::open_vae;
pub(crate) use self::source::{reconstruct, scaled, scaled_batch};
pub(crate) use self::step::{ScorerObjective, train};

use image::RgbImage;

/// What `scorer` sees in a picture of any size.
pub fn look(scorer: &Scorer, picture: RgbImage) -> Sight {
    let mut sights = scorer.look(&scaled_batch(vec![picture]));
    sights.pop().unwrap_or_default()
}
