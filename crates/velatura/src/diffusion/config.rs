//! `scheduler_config.json`, as diffusers reads it.
//!
//! One file serves every sampler. A field that is missing or null takes the default of the scheduler class that
//! samples, a field that this class does not know is ignored; so the same file can mean different things to two
//! samplers, just as with `from_config` in diffusers. [`SchedulerConfig`] keeps the file, [`Settings`] is what one
//! sampler makes of it.

use serde_json::{Map, Value};

use super::denoiser::PredictionType;
use super::samplers::{Sampler, Spacing};
use super::schedule::BetaSchedule;
use crate::fields::{Field, Fields, check};
use crate::{Error, Result};

/// A scheduler's file.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerConfig {
    /// The sampler that the file names (`_class_name`); DDPM where it names none, as training does.
    pub sampler: Sampler,
    /// The σ spacing that the file asks of its own sampler.
    pub spacing: Spacing,
    /// Timesteps that the model was trained with.
    pub num_train_timesteps: usize,
    value: Value,
}

/// Which training timesteps are visited (Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed",
/// 2023, table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestepSpacing {
    /// From the last to the first, evenly.
    Linspace,
    /// Multiples of a whole stride, from the first.
    Leading,
    /// Multiples of the exact stride, from the last.
    Trailing,
}

/// Where the σs of the samplers that use them end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalSigma {
    /// No noise.
    Zero,
    /// The first training timestep's noise.
    SigmaMin,
}

/// The variance of DDPM's noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variance {
    /// The posterior's, β̃_t.
    FixedSmall,
    /// The same, through its logarithm.
    FixedSmallLog,
    /// β_t.
    FixedLarge,
}

/// A config with nothing left open, for one sampler. Fields are named as in the file.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Settings {
    pub num_train_timesteps: usize,
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: BetaSchedule,
    pub trained_betas: Option<Vec<f64>>,
    pub rescale_betas_zero_snr: bool,
    pub prediction_type: PredictionType,
    pub timestep_spacing: TimestepSpacing,
    pub steps_offset: i64,
    /// `clip_sample_range` where `clip_sample` is true.
    pub clip: Option<f32>,
    pub set_alpha_to_one: bool,
    pub skip_prk_steps: bool,
    pub variance_type: Variance,
    pub spacing: Spacing,
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
    pub final_sigmas_type: FinalSigma,
    pub lower_order_final: bool,
    pub euler_at_final: bool,
    pub lambda_min_clipped: f64,
}

impl SchedulerConfig {
    /// Reads the file's text. Python's `Infinity` and `NaN`, which diffusers writes and JSON does not have, are
    /// understood.
    ///
    /// # Errors
    /// [`Error::Format`] when the text is not JSON, else as [`SchedulerConfig::from_value`].
    pub fn from_json(text: &str) -> Result<Self> {
        let value = serde_json::from_str(&quote_python_numbers(text))
            .map_err(|error| Error::format("", format!("expected a JSON object: {error}")))?;
        Self::from_value(value)
    }

    /// Takes the file's object.
    ///
    /// # Errors
    /// [`Error::Config`], naming the field, when a value cannot be or is not supported by the file's own sampler.
    pub fn from_value(value: Value) -> Result<Self> {
        let fields = Fields::of_any_class(&value)?;
        let sampler = match fields.value("_class_name") {
            None => Sampler::Ddpm,
            Some(name) => name
                .as_str()
                .and_then(Sampler::of_diffusers_class)
                .ok_or_else(|| {
                    let known = Sampler::ALL.map(Sampler::diffusers_class).join(", ");
                    Error::config("_class_name", format!("one of {known}"), name)
                })?,
        };
        let mut config = Self {
            sampler,
            spacing: Spacing::Normal,
            num_train_timesteps: 0,
            value,
        };
        let settings = config.settings(sampler)?;
        config.spacing = settings.spacing;
        config.num_train_timesteps = settings.num_train_timesteps;
        Ok(config)
    }

    /// The file's object, to be saved again.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The config as `StableDiffusionPipeline` changes it before use: it takes `steps_offset` to be 1 and
    /// `clip_sample` false, because its first checkpoints were published with other values by mistake. A field that
    /// the file leaves open is changed for the file's own sampler only, as in diffusers.
    pub fn in_stable_diffusion(&self, sampler: Sampler) -> Self {
        let mut changed = self.clone();
        let own = sampler == self.sampler;
        if let Value::Object(map) = &mut changed.value {
            let mut set = |name: &str, value: Value| {
                if own || map.get(name).is_some_and(|old| !old.is_null()) {
                    map.insert(name.to_owned(), value);
                }
            };
            set("steps_offset", 1.into());
            set("clip_sample", false.into());
        }
        changed
    }

    /// What the file means to `sampler`.
    ///
    /// # Errors
    /// As [`SchedulerConfig::from_value`].
    pub fn settings(&self, sampler: Sampler) -> Result<Settings> {
        use Sampler::*;
        let fields = Fields::of_any_class(&self.value)?;
        let class = Known { fields, sampler };
        class.refuse_what_is_missing_here()?;
        let heun = sampler == Heun;
        let settings = Settings {
            num_train_timesteps: fields.get_or("num_train_timesteps", 1000)?,
            beta_start: fields.get_or("beta_start", if heun { 0.00085 } else { 0.0001 })?,
            beta_end: fields.get_or("beta_end", if heun { 0.012 } else { 0.02 })?,
            beta_schedule: fields.get_or("beta_schedule", BetaSchedule::Linear)?,
            trained_betas: fields
                .value("trained_betas")
                .map(|_| fields.get("trained_betas"))
                .transpose()?,
            rescale_betas_zero_snr: class.get(
                "rescale_betas_zero_snr",
                &[Ddpm, Ddim, Euler, EulerAncestral, DpmPp2m],
                false,
            )?,
            prediction_type: fields.get_or("prediction_type", PredictionType::Epsilon)?,
            timestep_spacing: fields.get_or(
                "timestep_spacing",
                match sampler {
                    Ddpm | Ddim | Pndm => TimestepSpacing::Leading,
                    _ => TimestepSpacing::Linspace,
                },
            )?,
            steps_offset: fields.get_or("steps_offset", 0)?,
            clip: class.clip()?,
            set_alpha_to_one: class.get("set_alpha_to_one", &[Ddim, Pndm], sampler == Ddim)?,
            skip_prk_steps: class.get("skip_prk_steps", &[Pndm], false)?,
            variance_type: class.get("variance_type", &[Ddpm], Variance::FixedSmall)?,
            spacing: class.spacing()?,
            sigma_min: class.sigma("sigma_min")?,
            sigma_max: class.sigma("sigma_max")?,
            final_sigmas_type: class.get(
                "final_sigmas_type",
                &[Euler, DpmPp2m],
                FinalSigma::Zero,
            )?,
            lower_order_final: class.get("lower_order_final", &[DpmPp2m], true)?,
            euler_at_final: class.get("euler_at_final", &[DpmPp2m], false)?,
            lambda_min_clipped: class.get("lambda_min_clipped", &[DpmPp2m], f64::NEG_INFINITY)?,
        };
        settings.check(sampler)?;
        Ok(settings)
    }
}

impl Settings {
    fn check(&self, sampler: Sampler) -> Result<()> {
        let betas = self.trained_betas.as_deref();
        let wrong = betas.and_then(|betas| betas.iter().position(|b| !(*b > 0.0 && *b < 1.0)));
        if let (Some(i), Some(betas)) = (wrong, betas) {
            let field = format!("trained_betas[{i}]");
            return Err(Error::config(field, "a number between 0 and 1", betas[i]));
        }
        check(
            betas.is_none_or(|betas| betas.len() == self.num_train_timesteps),
            "trained_betas",
            || format!("num_train_timesteps = {} values", self.num_train_timesteps),
            || format!("{} values", betas.map_or(0, <[f64]>::len)),
        )?;
        for (field, beta) in [("beta_start", self.beta_start), ("beta_end", self.beta_end)] {
            let ok = beta > 0.0 && beta < 1.0;
            check(ok, field, || "a number between 0 and 1", || beta)?;
        }
        check(
            (2..=1_000_000).contains(&self.num_train_timesteps),
            "num_train_timesteps",
            || "a number from 2 to 1000000",
            || self.num_train_timesteps,
        )?;
        let offset_ok = (0..self.num_train_timesteps as i64).contains(&self.steps_offset);
        check(
            offset_ok,
            "steps_offset",
            || "a number from 0 to num_train_timesteps - 1",
            || self.steps_offset,
        )?;
        check(
            self.prediction_type != PredictionType::Sample || sampler != Sampler::Pndm,
            "prediction_type",
            || "\"epsilon\" or \"v_prediction\" with the sampler pndm; another sampler can use this model",
            || "\"sample\"",
        )
    }
}

/// The fields as one scheduler class knows them.
struct Known<'a> {
    fields: Fields<'a>,
    sampler: Sampler,
}

impl Known<'_> {
    /// A field that only `knowing` samplers read.
    fn get<T: Field>(&self, name: &str, knowing: &[Sampler], default: T) -> Result<T> {
        if knowing.contains(&self.sampler) {
            self.fields.get_or(name, default)
        } else {
            Ok(default)
        }
    }

    fn clip(&self) -> Result<Option<f32>> {
        use Sampler::*;
        let clip = self.get(
            "clip_sample",
            &[Ddpm, Ddim, Heun],
            matches!(self.sampler, Ddpm | Ddim),
        )?;
        let range: f32 = self.fields.get_or("clip_sample_range", 1.0)?;
        check(
            range > 0.0,
            "clip_sample_range",
            || "a positive number",
            || range,
        )?;
        Ok(clip.then_some(range))
    }

    /// Karras et al.'s and the exponential spacing exclude each other.
    fn spacing(&self) -> Result<Spacing> {
        use Sampler::*;
        let asks = |name| self.get(name, &[Euler, Heun, DpmPp2m], false);
        match (asks("use_karras_sigmas")?, asks("use_exponential_sigmas")?) {
            (false, false) => Ok(Spacing::Normal),
            (true, false) => Ok(Spacing::Karras),
            (false, true) => Ok(Spacing::Exponential),
            (true, true) => Err(Error::config(
                "use_exponential_sigmas",
                "false, because use_karras_sigmas is true",
                true,
            )),
        }
    }

    fn sigma(&self, name: &str) -> Result<Option<f64>> {
        if self.sampler != Sampler::Euler || self.fields.value(name).is_none() {
            return Ok(None);
        }
        let sigma: f64 = self.fields.get(name)?;
        check(sigma > 0.0, name, || "a positive number", || sigma)?;
        Ok(Some(sigma))
    }

    /// Settings of diffusers that nothing here implements: better an error than another picture.
    fn refuse_what_is_missing_here(&self) -> Result<()> {
        use Sampler::*;
        let no = || vec![Value::Bool(false)];
        let refused: &[(&str, &[Sampler], Vec<Value>)] = &[
            ("thresholding", &[Ddpm, Ddim, DpmPp2m], no()),
            ("use_beta_sigmas", &[Euler, Heun, DpmPp2m], no()),
            ("use_lu_lambdas", &[DpmPp2m], no()),
            ("use_flow_sigmas", &[DpmPp2m], no()),
            ("use_dynamic_shifting", &[DpmPp2m], no()),
            ("interpolation_type", &[Euler], vec!["linear".into()]),
            ("timestep_type", &[Euler], vec!["discrete".into()]),
            // "deis" and the other names after the first belong to sibling classes; diffusers reads them as the first.
            (
                "algorithm_type",
                &[DpmPp2m],
                vec!["dpmsolver++".into(), "deis".into()],
            ),
            (
                "solver_type",
                &[DpmPp2m],
                ["midpoint", "logrho", "bh1", "bh2"]
                    .map(Value::from)
                    .to_vec(),
            ),
            ("solver_order", &[DpmPp2m], vec![2.into()]),
            ("variance_type", &[DpmPp2m], vec![]),
        ];
        for (name, knowing, supported) in refused {
            if knowing.contains(&self.sampler) {
                self.fields.only(name, supported)?;
            }
        }
        Ok(())
    }
}

/// Puts Python's `Infinity`, `-Infinity` and `NaN` between quotes, so that the rest can be read as JSON.
fn quote_python_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some(c) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"]
            .into_iter()
            .find(|word| !in_string && rest.starts_with(word));
        if let Some(word) = word {
            out.push('"');
            out.push_str(word);
            out.push('"');
            rest = &rest[word.len()..];
            continue;
        }
        // A backslash protects the next character, a quote above all.
        let taken = match c {
            '\\' if in_string => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => c.len_utf8(),
        };
        in_string ^= c == '"';
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out
}

impl Field for f64 {
    const NAME: &'static str = "a number";
    fn read(value: &Value) -> Option<Self> {
        match value.as_str() {
            Some("-Infinity") => Some(f64::NEG_INFINITY),
            _ => value.as_f64(),
        }
    }
}

impl Field for i64 {
    const NAME: &'static str = "an integer";
    fn read(value: &Value) -> Option<Self> {
        value.as_i64()
    }
}

/// Reads an enum from its names in the file.
macro_rules! named {
    ($type:ty, $expected:literal, $($name:literal => $value:expr),+) => {
        impl Field for $type {
            const NAME: &'static str = $expected;
            fn read(value: &Value) -> Option<Self> {
                match value.as_str()? {
                    $($name => Some($value),)+
                    _ => None,
                }
            }
        }
    };
}

named!(BetaSchedule, "\"linear\", \"scaled_linear\" or \"squaredcos_cap_v2\"",
    "linear" => BetaSchedule::Linear,
    "scaled_linear" => BetaSchedule::ScaledLinear,
    "squaredcos_cap_v2" => BetaSchedule::SquaredCosine);
named!(PredictionType, "\"epsilon\", \"v_prediction\" or \"sample\"",
    "epsilon" => PredictionType::Epsilon,
    "v_prediction" => PredictionType::VPrediction,
    "sample" => PredictionType::Sample);
named!(TimestepSpacing, "\"linspace\", \"leading\" or \"trailing\"",
    "linspace" => TimestepSpacing::Linspace,
    "leading" => TimestepSpacing::Leading,
    "trailing" => TimestepSpacing::Trailing);
named!(FinalSigma, "\"zero\" or \"sigma_min\"",
    "zero" => FinalSigma::Zero,
    "sigma_min" => FinalSigma::SigmaMin);
named!(Variance, "\"fixed_small\", \"fixed_small_log\" or \"fixed_large\" (learned variances are not supported)",
    "fixed_small" => Variance::FixedSmall,
    "fixed_small_log" => Variance::FixedSmallLog,
    "fixed_large" => Variance::FixedLarge);

impl Default for SchedulerConfig {
    /// Stable Diffusion's own noise schedule, for DDPM.
    fn default() -> Self {
        let mut map = Map::new();
        map.insert("_class_name".into(), "DDPMScheduler".into());
        map.insert("num_train_timesteps".into(), 1000.into());
        map.insert("beta_start".into(), 0.00085.into());
        map.insert("beta_end".into(), 0.012.into());
        map.insert("beta_schedule".into(), "scaled_linear".into());
        map.insert("clip_sample".into(), false.into());
        Self {
            sampler: Sampler::Ddpm,
            spacing: Spacing::Normal,
            num_train_timesteps: 1000,
            value: Value::Object(map),
        }
    }
}
