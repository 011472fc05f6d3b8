//! The names of samplers and spacings.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// How the steps from noise to sample are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sampler {
    /// Ho et al. 2020: the noising process backwards, with noise at every step.
    Ddpm,
    /// Song et al. 2020: as few steps as wanted, with no noise at η = 0.
    Ddim,
    /// Liu et al. 2022: linear multistep; Stable Diffusion 1's own.
    Pndm,
    /// Karras et al. 2022 with first-order steps.
    Euler,
    /// Euler steps that overshoot and add the noise back.
    EulerAncestral,
    /// Karras et al. 2022, algorithm 1: second order, two evaluations per step.
    Heun,
    /// Lu et al. 2022: DPM-Solver++, second order, multistep.
    DpmPp2m,
}

/// How the noise levels are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spacing {
    /// As the training timesteps are.
    Normal,
    /// Evenly in σ^(1/7): more steps where there is little noise.
    Karras,
    /// Evenly in ln σ.
    Exponential,
}

/// One row of a table of names.
struct Row {
    name: &'static str,
    label: &'static str,
    class: &'static str,
    /// Further names that people use; upper case, spaces, hyphens and underscores do not matter.
    aliases: &'static [&'static str],
}

impl Sampler {
    /// All of them, in the order of the table.
    pub const ALL: [Sampler; 7] = [
        Sampler::Ddpm,
        Sampler::Ddim,
        Sampler::Pndm,
        Sampler::Euler,
        Sampler::EulerAncestral,
        Sampler::Heun,
        Sampler::DpmPp2m,
    ];

    #[rustfmt::skip]
    const fn row(self) -> Row {
        match self {
            Sampler::Ddpm => Row { name: "ddpm", label: "DDPM", class: "DDPMScheduler", aliases: &[] },
            Sampler::Ddim => Row { name: "ddim", label: "DDIM", class: "DDIMScheduler", aliases: &[] },
            Sampler::Pndm => Row { name: "pndm", label: "PLMS", class: "PNDMScheduler", aliases: &["plms"] },
            Sampler::Euler => Row { name: "euler", label: "Euler", class: "EulerDiscreteScheduler", aliases: &["euler-discrete"] },
            Sampler::EulerAncestral => Row { name: "euler-a", label: "Euler a", class: "EulerAncestralDiscreteScheduler", aliases: &["euler-ancestral", "euler-ancestral-discrete"] },
            Sampler::Heun => Row { name: "heun", label: "Heun", class: "HeunDiscreteScheduler", aliases: &["heun-discrete"] },
            Sampler::DpmPp2m => Row { name: "dpm++2m", label: "DPM++ 2M", class: "DPMSolverMultistepScheduler", aliases: &["dpmpp-2m", "dpm-solver++", "dpm-solver-multistep"] },
        }
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The name that AUTOMATIC1111's interface shows.
    pub fn label(self) -> &'static str {
        self.row().label
    }

    /// The class in diffusers, `_class_name` of a config.
    pub fn diffusers_class(self) -> &'static str {
        self.row().class
    }

    /// The sampler of a diffusers class.
    pub fn of_diffusers_class(class: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|sampler| sampler.diffusers_class() == class)
    }

    /// Whether the sampler can walk σs that are spaced so. The first three count in training timesteps.
    pub fn supports(self, spacing: Spacing) -> bool {
        let counts_in_timesteps = matches!(self, Sampler::Ddpm | Sampler::Ddim | Sampler::Pndm);
        spacing == Spacing::Normal || !counts_in_timesteps
    }
}

impl Spacing {
    /// All of them, in the order of the table.
    pub const ALL: [Spacing; 3] = [Spacing::Normal, Spacing::Karras, Spacing::Exponential];

    #[rustfmt::skip]
    const fn row(self) -> Row {
        match self {
            Spacing::Normal => Row { name: "normal", label: "Normal", class: "", aliases: &["linear", "uniform", "default"] },
            Spacing::Karras => Row { name: "karras", label: "Karras", class: "use_karras_sigmas", aliases: &[] },
            Spacing::Exponential => Row { name: "exponential", label: "Exponential", class: "use_exponential_sigmas", aliases: &[] },
        }
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The name that AUTOMATIC1111's interface shows.
    pub fn label(self) -> &'static str {
        self.row().label
    }
}

impl Row {
    fn answers_to(&self, name: &str) -> bool {
        let plain = |name: &str| -> String {
            let name = name.to_lowercase().replace("++", "pp");
            name.chars()
                .filter(|c| !matches!(c, ' ' | '-' | '_'))
                .collect()
        };
        let own = [self.name, self.label, self.class];
        let mut names = own.iter().chain(self.aliases).filter(|own| !own.is_empty());
        names.any(|own| plain(own) == plain(name))
    }
}

/// What stands in an error for a name that nobody has: the name, and the known one that is spelled most like it.
fn with_nearest(name: &str, known: &[&'static str]) -> String {
    let likeness = |known: &&&str| strsim::jaro_winkler(&name.to_lowercase(), known);
    let nearest = known
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|known| likeness(known) > 0.5);
    match nearest {
        Some(nearest) => format!("{name}; the nearest is {nearest}"),
        None => name.to_string(),
    }
}

impl FromStr for Sampler {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|sampler| sampler.row().answers_to(name))
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::name);
                let expected = format!("one of {}", names.join(", "));
                Error::request("sampler", expected, with_nearest(name, &names))
            })
    }
}

impl FromStr for Spacing {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|spacing| spacing.row().answers_to(name))
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::name);
                let expected = format!("one of {}", names.join(", "));
                Error::request("schedule", expected, with_nearest(name, &names))
            })
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Spacing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_sampler() {
        for sampler in Sampler::ALL {
            let row = sampler.row();
            let mut names = vec![row.name, row.label, row.class];
            names.extend(row.aliases);
            for name in names {
                assert_eq!(name.parse::<Sampler>().unwrap(), sampler, "{name}");
                let shouted = name.to_uppercase().replace('-', "_");
                assert_eq!(shouted.parse::<Sampler>().unwrap(), sampler, "{shouted}");
                let owners = Sampler::ALL.map(Sampler::row);
                let owners = owners.iter().filter(|row| row.answers_to(name)).count();
                assert_eq!(owners, 1, "{name} is ambiguous");
            }
            assert_eq!(Sampler::of_diffusers_class(row.class), Some(sampler));
            assert_eq!(sampler.to_string(), row.name);
        }
        for spacing in Spacing::ALL {
            assert_eq!(spacing.name().parse::<Spacing>().unwrap(), spacing);
            assert_eq!(spacing.label().parse::<Spacing>().unwrap(), spacing);
        }
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let message = "lcm".parse::<Sampler>().unwrap_err().to_string();
        assert!(
            message.contains("dpm++2m") && message.contains("lcm"),
            "{message}"
        );
        let message = "Eulr".parse::<Sampler>().unwrap_err().to_string();
        assert!(message.ends_with("the nearest is euler"), "{message}");
        assert!("".parse::<Sampler>().is_err() && "".parse::<Spacing>().is_err());
    }
}
