//! The plan as a person reads it.

use std::fmt;

use super::Plan;
use super::figures::{Amount, How};
use crate::config::{Config, Part, StateKind};
use crate::progress::duration;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} steps of {} pictures on {} threads, in {}",
            self.config.display(),
            self.steps,
            self.batch_size,
            self.threads,
            self.run.display()
        )?;
        writeln!(f, "\nparameters {:>39} {:>12}", "trained", "frozen")?;
        for part in &self.parameters {
            let [trained, frozen] = [part.trained, part.frozen].map(millions);
            writeln!(f, "  {:36} {trained:>11} {frozen:>12}", part.part)?;
        }
        section(f, "memory", &self.memory, bytes)?;
        total(f, self.memory_bytes, self.memory_available, "available")?;
        if let Some(flops) = self.flops_per_step {
            writeln!(f, "\narithmetic\n  {:.1} GFLOP a step", flops / 1e9)?;
        }
        section(f, "disk", &self.disk, bytes)?;
        total(f, self.disk_bytes, self.disk_free, "free")?;
        match self.seconds {
            Some(seconds) => {
                section(f, "time", &self.time, duration)?;
                writeln!(f, "  {:>10}  in all", duration(seconds))?;
            }
            None => writeln!(
                f,
                "\ntime\n  not measured, because the run does not fit into memory"
            )?,
        }
        if self.obstacles.is_empty() {
            return write!(f, "\nIt fits.");
        }
        for obstacle in &self.obstacles {
            write!(f, "\nIt does not fit: {obstacle}")?;
        }
        Ok(())
    }
}

fn section(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    amounts: &[Amount],
    spell: impl Fn(f64) -> String,
) -> fmt::Result {
    writeln!(f, "\n{name}")?;
    for Amount { what, value, how } in amounts {
        let how = match how {
            How::Computed => "",
            How::Measured => " (measured)",
            How::Estimated => " (estimated)",
        };
        writeln!(f, "  {:>10}  {what}{how}", spell(*value))?;
    }
    Ok(())
}

fn total(f: &mut fmt::Formatter<'_>, sum: f64, limit: Option<u64>, word: &str) -> fmt::Result {
    write!(f, "  {:>10}  in all", bytes(sum))?;
    match limit {
        Some(limit) => writeln!(f, ", of {} {word}", bytes(limit as f64)),
        None => writeln!(f),
    }
}

fn millions(count: usize) -> String {
    match count {
        0 => "–".into(),
        1..100_000 => count.to_string(),
        _ => format!("{:.2} M", count as f64 / 1e6),
    }
}

fn bytes(bytes: f64) -> String {
    match bytes {
        1e9.. => format!("{:.2} GB", bytes / 1e9),
        1e6.. => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.1} kB", bytes / 1e3),
    }
}

/// What to say, and to do, where memory is short.
pub(super) fn memory_obstacle(config: &Config, needed: f64, available: u64) -> String {
    let mut ways = Vec::new();
    if config.run.accumulate < config.run.batch_size {
        ways.push("a larger [run] accumulate");
    }
    if config.model.part.learns_latents() && !config.model.recompute {
        ways.push("[model] recompute = true");
    }
    if config.optimizer.state == StateKind::F32 {
        ways.push("[optimizer] state = \"8bit\"");
    }
    if config.ema.decay > 0.0 {
        ways.push("[ema] decay = 0.0");
    }
    if config.model.part == Part::Unet && config.model.base.is_some() {
        ways.push("part = \"lora\"");
    }
    format!(
        "the run needs about {} of memory, and {} are available. Less take: {}",
        bytes(needed),
        bytes(available as f64),
        if ways.is_empty() {
            "smaller pictures".into()
        } else {
            ways.join(", ")
        }
    )
}

/// What to say, and to do, where the disk is too small.
pub(super) fn disk_obstacle(config: &Config, needed: f64, free: u64) -> String {
    format!(
        "the run folder grows to about {}, and {} are free on the disk of {}. Make room, choose another [run] dir or \
         [data] cache, or set [run] keep below {}",
        bytes(needed),
        bytes(free as f64),
        config.run.dir.display(),
        config.run.keep
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_by_people() {
        assert_eq!(
            [512.0, 2.5e6, 3.21e9].map(bytes),
            ["0.5 kB", "2.5 MB", "3.21 GB"]
        );
        assert_eq!([0, 77, 9_310_000].map(millions), ["–", "77", "9.31 M"]);
    }
}
