//! What a config must fulfil beyond its types: each refusal names table, field, expected and found.

use super::{Config, DataKind, Part};

impl Config {
    /// The first field that cannot be, in words for the person.
    pub(super) fn check(&self) -> Result<(), String> {
        let ensure = |ok: bool, message: String| if ok { Ok(()) } else { Err(message) };
        let (run, model, optimizer) = (&self.run, &self.model, &self.optimizer);
        ensure(
            run.steps > 0,
            "[run] steps: expected at least 1, found 0".into(),
        )?;
        ensure(
            (1..=4096).contains(&run.batch_size),
            format!(
                "[run] batch_size: expected 1 to 4096, found {}",
                run.batch_size
            ),
        )?;
        ensure(
            (1..=run.batch_size).contains(&run.accumulate),
            format!(
                "[run] accumulate: expected 1 to batch_size = {} parts, found {}",
                run.batch_size, run.accumulate
            ),
        )?;
        ensure(
            run.save_every > 0,
            "[run] save_every: expected at least 1, found 0".into(),
        )?;
        ensure(
            run.log_every > 0,
            "[run] log_every: expected at least 1, found 0".into(),
        )?;
        ensure(
            run.keep > 0,
            "[run] keep: expected at least 1, found 0".into(),
        )?;

        self.check_data()?;
        self.check_tables()?;
        ensure(
            model.tokenizer.is_none()
                || model.base.is_none()
                || (model.part == Part::Unet && model.train_text_encoder),
            "[model] tokenizer: only a base's text encoder that learns (part \"unet\", train_text_encoder = true) can get \
             another vocabulary"
                .into(),
        )?;
        if let Some(prior) = &self.prior {
            ensure(
                model.part.learns_latents(),
                "[prior]: only parts that learn from captions use it".into(),
            )?;
            ensure(
                prior.count == 0 || model.base.is_some(),
                "[prior] count: without [model] base there is no model to paint the pictures"
                    .into(),
            )?;
            ensure(
                prior.count <= 100_000,
                format!(
                    "[prior] count: expected at most 100000, found {}",
                    prior.count
                ),
            )?;
            ensure(
                prior.weight.is_finite() && prior.weight > 0.0,
                format!(
                    "[prior] weight: expected a number above 0, found {}",
                    prior.weight
                ),
            )?;
        }
        let needs = |present: bool, table: &str| {
            ensure(
                present || model.base.is_some(),
                format!(
                    "[{table}]: missing; without [model] base a fresh {table} needs its config"
                ),
            )
        };
        match model.part {
            Part::Vae => {
                needs(self.vae.is_some(), "vae")?;
                for (table, name) in [
                    (&self.unet, "unet"),
                    (&self.text_encoder, "text_encoder"),
                    (&self.scheduler, "scheduler"),
                ] {
                    ensure(
                        table.is_none(),
                        format!("[{name}]: part = \"vae\" does not use it"),
                    )?;
                }
                ensure(
                    model.vae.is_none(),
                    "[model] vae: to go on training a VAE name it as base".into(),
                )?;
            }
            Part::Unet => {
                needs(self.unet.is_some(), "unet")?;
                needs(self.text_encoder.is_some(), "text_encoder")?;
            }
            Part::Scorer => self.check_scorer()?,
            Part::Lora | Part::Embedding => ensure(
                model.base.is_some(),
                "[model] base: missing; an adaptation or a word needs the model that it is for"
                    .into(),
            )?,
        }
        ensure(
            self.scorer.is_none() || model.part == Part::Scorer,
            "[scorer]: only part = \"scorer\" has it".into(),
        )?;
        if model.part.learns_latents() {
            ensure(
                model.vae.is_some() || model.base.is_some(),
                "[model] vae: missing; the UNet learns the latents of a trained VAE".into(),
            )?;
            ensure(
                self.vae.is_none(),
                "[vae]: only part = \"vae\" has it; here the trained VAE is named by [model] vae"
                    .into(),
            )?;
        }
        if let Some(discriminator) = &self.discriminator {
            ensure(
                model.part == Part::Vae,
                "[discriminator]: only part = \"vae\" has it".into(),
            )?;
            discriminator.check()?;
        }
        if let Some(lpips) = &self.lpips {
            ensure(
                model.part == Part::Vae,
                "[lpips]: only part = \"vae\" has it".into(),
            )?;
            lpips.check()?;
        }
        let (part, word) = (model.part == Part::Embedding, self.embedding.is_some());
        ensure(
            part == word,
            "[embedding]: part = \"embedding\" needs it, and no other part has it".into(),
        )?;
        self.check_lora()?;
        if model.base.is_some() {
            for (table, name) in [
                (&self.vae, "vae"),
                (&self.unet, "unet"),
                (&self.text_encoder, "text_encoder"),
            ] {
                ensure(
                    table.is_none(),
                    format!("[{name}]: the config of [model] base holds; remove the table"),
                )?;
            }
        }

        let positive = |value: f64, name: &str| {
            ensure(
                value.is_finite() && value > 0.0,
                format!("[optimizer] {name}: expected a number above 0, found {value}"),
            )
        };
        positive(optimizer.learning_rate, "learning_rate")?;
        positive(optimizer.eps, "eps")?;
        for beta in optimizer.betas {
            ensure(
                (0.0..1.0).contains(&beta),
                format!("[optimizer] betas: expected 0 ≤ β < 1, found {beta}"),
            )?;
        }
        ensure(
            (0.0..1.0).contains(&optimizer.momentum),
            format!(
                "[optimizer] momentum: expected 0 ≤ momentum < 1, found {}",
                optimizer.momentum
            ),
        )?;
        for (value, name) in [
            (optimizer.weight_decay, "weight_decay"),
            (optimizer.max_grad_norm, "max_grad_norm"),
        ] {
            ensure(
                value.is_finite() && value >= 0.0,
                format!("[optimizer] {name}: expected 0 or more, found {value}"),
            )?;
        }
        ensure(
            (0.0..=1.0).contains(&optimizer.final_fraction),
            format!(
                "[optimizer] final_fraction: expected 0 to 1, found {}",
                optimizer.final_fraction
            ),
        )?;
        ensure(
            (0.0..1.0).contains(&self.ema.decay),
            format!(
                "[ema] decay: expected 0 ≤ decay < 1, found {}",
                self.ema.decay
            ),
        )?;
        ensure(
            self.loss.kl_weight.is_finite() && self.loss.kl_weight >= 0.0,
            format!(
                "[loss] kl_weight: expected 0 or more, found {}",
                self.loss.kl_weight
            ),
        )?;
        ensure(
            self.loss
                .min_snr_gamma
                .is_none_or(|gamma| gamma.is_finite() && gamma > 0.0),
            "[loss] min_snr_gamma: expected a number above 0".into(),
        )?;
        let loss = &self.loss;
        for (value, name) in [(loss.huber_c, "huber_c"), (loss.logit_std, "logit_std")] {
            ensure(
                value.is_finite() && value > 0.0,
                format!("[loss] {name}: expected a number above 0, found {value}"),
            )?;
        }
        ensure(
            loss.offset_noise.is_finite() && loss.offset_noise >= 0.0,
            format!(
                "[loss] offset_noise: expected 0 or more, found {}",
                loss.offset_noise
            ),
        )?;
        ensure(
            loss.logit_mean.is_finite(),
            format!(
                "[loss] logit_mean: expected a number, found {}",
                loss.logit_mean
            ),
        )?;
        ensure(
            self.sample.steps > 0,
            "[sample] steps: expected at least 1, found 0".into(),
        )?;
        ensure(
            self.sample.count <= 64 && self.sample.prompts.len() <= 64,
            "[sample] count, prompts: expected at most 64 pictures".into(),
        )?;
        ensure(
            self.sample.guidance_scale.is_finite(),
            format!(
                "[sample] guidance_scale: expected a number, found {}",
                self.sample.guidance_scale
            ),
        )
    }

    fn check_scorer(&self) -> Result<(), String> {
        for (given, name) in [
            (self.vae.is_some(), "vae"),
            (self.unet.is_some(), "unet"),
            (self.text_encoder.is_some(), "text_encoder"),
            (self.scheduler.is_some(), "scheduler"),
        ] {
            if given {
                return Err(format!("[{name}]: part = \"scorer\" does not use it"));
            }
        }
        if self.data.kind != Some(DataKind::Scenes) {
            return Err(
                "[data] kind: a scorer learns from \"scenes\", which it knows all of".into(),
            );
        }
        self.scorer.clone().unwrap_or_default().check()
    }

    fn check_lora(&self) -> Result<(), String> {
        let ensure = |ok: bool, message: String| if ok { Ok(()) } else { Err(message) };
        let Some(lora) = &self.lora else {
            return Ok(());
        };
        ensure(
            self.model.part == Part::Lora,
            "[lora]: only part = \"lora\" has it".into(),
        )?;
        ensure(
            (1..=4096).contains(&lora.rank),
            format!("[lora] rank: expected 1 to 4096, found {}", lora.rank),
        )?;
        ensure(
            lora.alpha
                .is_none_or(|alpha| alpha.is_finite() && alpha > 0.0),
            "[lora] alpha: expected a number above 0".into(),
        )?;
        ensure(
            (0.0..1.0).contains(&lora.dropout),
            format!(
                "[lora] dropout: expected 0 ≤ dropout < 1, found {}",
                lora.dropout
            ),
        )?;
        ensure(
            !lora.targets.is_empty(),
            "[lora] targets: expected at least one layer's name, such as \"to_q\"".into(),
        )
    }
}
