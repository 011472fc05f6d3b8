//! The loss of an autoencoder's run, opened or made: with a perceptual distance and a discriminator where the config
//! asks for them.

use velatura::checkpoint::Component;
use velatura_tensor::Parameter;

use crate::config::{self, Config};
use crate::discriminator::{Discriminator, Sizes};
use crate::error::{Error, Result};
use crate::lpips::Lpips;
use crate::models;
use crate::run_folder::RunFolder;
use crate::vae_loss::VaeLoss;

/// The discriminator's folder in a checkpoint.
pub(crate) const DISCRIMINATOR: &str = "discriminator";

/// The discriminator in [`VaeLoss`], as a learner.
pub(crate) struct Adversary {
    /// The step with which it begins.
    pub start: u64,
    pub parameters: Vec<Parameter>,
    pub settings: config::Optimizer,
}

/// The loss that the config asks for, on pictures of this side, and the discriminator's part in it.
pub(crate) fn loss(
    config: &Config,
    run: &RunFolder,
    side: usize,
) -> Result<(VaeLoss, Option<Adversary>)> {
    let large_enough = |smallest: usize, table: &str| {
        if side >= smallest {
            return Ok(());
        }
        let message = format!(
            "[data] size, crop: expected at least {smallest} pixels for [{table}], found {side}"
        );
        Err(Error::config(run.config_file(), message))
    };
    let lpips = match &config.lpips {
        None => None,
        Some(lpips) => {
            large_enough(Lpips::SMALLEST_SIDE, "lpips")?;
            Some((
                Lpips::load(&lpips.path, models::products(config))?,
                lpips.weight,
            ))
        }
    };
    let (discriminator, adversary) = match &config.discriminator {
        None => (None, None),
        Some(wanted) => {
            let sizes = Sizes {
                ndf: wanted.ndf,
                num_layers: wanted.num_layers,
            };
            large_enough(sizes.smallest_side(), "discriminator")?;
            let component = run
                .checkpoint()
                .map(|checkpoint| Component::open(&checkpoint.join(DISCRIMINATOR), None))
                .transpose()?;
            let store = models::store(config, DISCRIMINATOR, component.as_ref());
            let discriminator = Discriminator::load(sizes, &store.root())?;
            store.finish()?;
            let adversary = Adversary {
                start: wanted.start,
                parameters: store.parameters(),
                settings: config::Optimizer {
                    learning_rate: (wanted.learning_rate).unwrap_or(config.optimizer.learning_rate),
                    betas: wanted.betas,
                    weight_decay: 0.0,
                    ..config.optimizer.clone()
                },
            };
            (Some((discriminator, wanted.weight)), Some(adversary))
        }
    };
    let settings = config.loss.clone();
    let loss = VaeLoss {
        settings,
        lpips,
        discriminator,
    };
    Ok((loss, adversary))
}
