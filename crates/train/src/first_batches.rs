//! What the first steps of a run are fed, as a picture, for a person to look at before the night is over: cut, mirrored
//! and, of latents, decoded again.

use std::io::Write;
use std::path::Path;

use image::RgbImage;
use velatura::checkpoint::write_atomically;

use crate::error::Result;
use crate::inspection::Inspection;
use crate::objective::Objective;
use crate::picture::{grid, stacked, write_png};

/// The picture, a row or more for each step.
pub(crate) const SHEET: &str = "first-batches.png";
/// Its captions, a line for each picture.
pub(crate) const CAPTIONS: &str = "first-batches.txt";

/// As many pictures are shown, or a few more: a batch is shown whole, unless it has more than that by itself.
const PICTURES: usize = 12;
/// In a row of the sheet.
const COLUMNS: usize = 6;

/// Writes the two files into the run folder, from as many of the first steps of `steps` as it takes. Returns whether
/// there was anything to see.
///
/// # Errors
/// The pictures cannot be read, the files not written.
pub(crate) fn write<O: Objective>(objective: &O, run: &Path, steps: u64) -> Result<bool> {
    let batches = objective.batches();
    let (mut rows, mut lines, mut shown): (Vec<RgbImage>, Vec<String>, usize) = Default::default();
    for step in 1..=steps {
        let batch = batches(step)?;
        let Inspection {
            pictures, texts, ..
        } = objective.inspect(&batch, PICTURES);
        if pictures.is_empty() {
            return Ok(false);
        }
        let text = |text: &String| match text.as_str() {
            "" => format!("step {step}: (no caption)"),
            text => format!("step {step}: {text}"),
        };
        lines.extend(texts.iter().take(pictures.len()).map(text));
        rows.push(grid(&pictures, COLUMNS));
        shown += pictures.len();
        if shown >= PICTURES {
            break;
        }
    }
    write_png(&stacked(&rows), &run.join(SHEET))?;
    if !lines.is_empty() {
        let text = lines.join("\n") + "\n";
        write_atomically(&run.join(CAPTIONS), |out| out.write_all(text.as_bytes()))?;
    }
    Ok(true)
}
