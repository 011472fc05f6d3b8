//! How good a model is: how near its autoencoder's pictures are to the originals, how near its pictures are to real
//! ones as sets, and whether they show what was asked for.
//!
//! What a scorer says is worth what the scorer is worth, so it is proved beside every use ([`proof`]).

pub mod distance;
pub mod features;
mod html;
pub mod inception;
pub mod paint;
pub mod prompts;
pub mod proof;
pub mod quality;
pub mod reconstruction;
mod scenes;
mod tally;
mod text;

pub use self::html::write_html;
pub use self::prompts::{Prompts, PromptsOptions, Verdict, prompts};
pub use self::proof::{Proof, prove};
pub use self::reconstruction::{Reconstruction, reconstruction};
pub use self::tally::{Share, Tally};

pub use self::scenes::{held_back_scenes, nouns_of, scenes_known_to, scenes_of};
pub use crate::scorer::open_vae;

use crate::error::Result;

/// Told how far the work is: what is being done, how many are done, and of how many. False stops it.
pub type Report<'a> = &'a mut dyn FnMut(&'static str, usize, usize) -> bool;

/// Tells, and ends the work where that is wanted.
fn tell(report: Report, what: &'static str, done: usize, of: usize) -> Result<()> {
    if report(what, done, of) {
        Ok(())
    } else {
        Err(velatura::Error::Cancelled.into())
    }
}
