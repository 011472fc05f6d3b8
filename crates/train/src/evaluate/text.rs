//! The figures as a table for people.

use std::fmt;

use super::prompts::Prompts;
use super::proof::{DRAWINGS, FALSE_POSITIVES, RECONSTRUCTIONS};
use super::tally::{Share, Tally};
use crate::scorer::Aspect;

impl fmt::Display for Prompts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} prompts × {} seeds at {}×{}, {} steps of {}, guidance {}",
            self.model,
            self.prompts,
            self.seeds,
            self.size[0],
            self.size[1],
            self.steps,
            self.sampler,
            self.guidance
        )?;
        writeln!(f, "\nWhat the pictures show, in % with 95 % intervals")?;
        let heads = ["seen combinations", "unseen combinations"];
        writeln!(f, "{:20}{:>30}{:>30}", "", heads[0], heads[1])?;
        for aspect in Aspect::ALL {
            let (seen, unseen) = (self.seen.of(aspect), self.unseen.of(aspect));
            if seen.of + unseen.of > 0 {
                let name = aspect.name();
                writeln!(f, "{name:20}{:>30}{:>30}", share(seen), share(unseen))?;
            }
        }
        if !self.excluded_in_training {
            writeln!(
                f,
                "Unseen are the combinations that are held out by their names. The config does not say that this model \
                 was trained without them ([data.scenes] held_out = \"exclude\")."
            )?;
        }
        writeln!(
            f,
            "\nWhat the scorer is worth on {} scenes that it never saw, in %",
            self.proof.pictures
        )?;
        writeln!(
            f,
            "{:20}{:>15}{:>15}{:>15}{:>15}",
            "", "drawings", "reconstructed", "shuffled", "noise"
        )?;
        let nothing = Tally::default();
        let columns = [
            &self.proof.drawings,
            self.proof.reconstructions.as_ref().unwrap_or(&nothing),
            &self.proof.shuffled,
            &self.proof.noise,
        ];
        for aspect in Aspect::ALL {
            if self.proof.drawings.of(aspect).of > 0 {
                write!(f, "{:20}", aspect.name())?;
                for tally in columns {
                    let value = tally.of(aspect).value();
                    let text = value.map_or("–".to_owned(), |v| format!("{:.1}", 100.0 * v));
                    write!(f, "{text:>15}")?;
                }
                writeln!(f)?;
            }
        }
        let percent = |mark: f64| format!("{:.0} %", 100.0 * mark);
        let marks = [
            format!("≥ {}", percent(DRAWINGS)),
            format!("≥ {}", percent(RECONSTRUCTIONS)),
            format!("≤ {}", percent(FALSE_POSITIVES)),
            format!("≤ {}", percent(FALSE_POSITIVES)),
        ];
        write!(f, "{:20}", "wanted")?;
        for mark in marks {
            write!(f, "{mark:>15}")?;
        }
        writeln!(f)?;
        if self.shortcomings.is_empty() {
            return write!(f, "The scorer is proved.");
        }
        write!(
            f,
            "The scorer falls short, and what it says of these is to be taken with care:"
        )?;
        for shortcoming in &self.shortcomings {
            write!(f, "\n  {shortcoming}")?;
        }
        Ok(())
    }
}

/// `95.2 (92.1–97.3) of 400`
pub(super) fn share(share: Share) -> String {
    match (share.value(), share.interval()) {
        (Some(value), Some([low, high])) => format!(
            "{:.1} ({:.1}–{:.1}) of {}",
            100.0 * value,
            100.0 * low,
            100.0 * high,
            share.of
        ),
        _ => "not asked".to_owned(),
    }
}
