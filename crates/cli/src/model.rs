//! From `--model`, `--variant`, `--lora`, `--embedding`, `--precision`, `--threads` and `--cache` to an open model.

use anyhow::{Result, bail};
use velatura::Error;
use velatura::checkpoint::{LearnedWord, LoraFile, ModelFolder};
use velatura::pipeline::{Model, PrecisionChoice};
use velatura::weights::PackedCache;
use velatura_kernels::pool;
use velatura_tensor::device::Device;

use crate::args::{ModelArgs, PrecisionArg};

/// Opens the model that was asked for, or the embedded one, and sets the threads. Reads configs, not weights.
pub fn open(args: &ModelArgs) -> Result<Model> {
    if let Some(threads) = args.threads {
        pool::set_threads(usize::from(threads));
    }
    let folder = match &args.model {
        Some(dir) => ModelFolder::open(dir)?,
        None if velatura_models::DEFAULT.is_empty() => bail!(
            "this program was built without an embedded model, because the repository had no models/default; \
             name a model with --model DIR"
        ),
        None => {
            if let Some(variant) = &args.variant {
                return Err(Error::request(
                    "--variant",
                    "--model with it",
                    format!("{variant} alone"),
                )
                .into());
            }
            ModelFolder::from_static(velatura_models::DEFAULT_NAME, velatura_models::DEFAULT)?
        }
    };
    let mut model = Model::open(folder, args.variant.as_deref())?;
    for lora in &args.lora {
        model = model.with_lora(LoraFile::open(&lora.file)?, lora.weight);
    }
    for file in &args.embedding {
        model = model.with_word(LearnedWord::open(file)?);
    }
    if let Some(dir) = &args.cache {
        model = model.with_cache(PackedCache::new(dir, |text| eprintln!("note: {text}")));
    }
    Ok(model)
}

/// The numbers to compute with, as asked for on that device.
pub fn precision(args: &ModelArgs) -> Result<PrecisionChoice> {
    match (args.device, args.precision) {
        (Device::Cuda(_), PrecisionArg::Int8) => {
            bail!("--precision int8 is for the processor; with --device cuda take bf16 or f32")
        }
        (Device::Cuda(_), PrecisionArg::Auto) => Ok(PrecisionChoice::Bf16),
        (_, precision) => Ok(precision.into()),
    }
}

impl From<PrecisionArg> for PrecisionChoice {
    fn from(arg: PrecisionArg) -> PrecisionChoice {
        match arg {
            PrecisionArg::Auto => PrecisionChoice::Auto,
            PrecisionArg::F32 => PrecisionChoice::F32,
            PrecisionArg::Bf16 => PrecisionChoice::Bf16,
            PrecisionArg::Int8 => PrecisionChoice::Int8,
        }
    }
}
