//! What `[data]` must fulfil beyond its types.

use super::{Config, Data, DataKind, Part, Scenes, Source};

/// `Err` with the message unless `ok`.
fn ensure(ok: bool, message: impl Into<String>) -> Result<(), String> {
    if ok { Ok(()) } else { Err(message.into()) }
}

impl Config {
    /// The first field of `[data]` that cannot be, in words for the person.
    pub(super) fn check_data(&self) -> Result<(), String> {
        let (data, part) = (&self.data, self.model.part);
        let side_ok = |side: usize| (8..=8192).contains(&side) && side.is_multiple_of(8);
        ensure(
            side_ok(data.size),
            format!(
                "[data] size: expected a multiple of 8 from 8 to 8192, found {}",
                data.size
            ),
        )?;
        if let Some(crop) = data.crop {
            ensure(
                side_ok(crop) && crop <= data.size,
                format!(
                    "[data] crop: expected a multiple of 8 of at most size = {}, found {crop}",
                    data.size
                ),
            )?;
            ensure(
                part == Part::Vae,
                "[data] crop: only a VAE (part = \"vae\") trains on crops",
            )?;
        }
        if let Some(step) = data.bucket_step {
            ensure(
                (8..=data.size).contains(&step)
                    && step.is_multiple_of(8)
                    && data.size.is_multiple_of(step),
                format!(
                    "[data] bucket_step: expected a multiple of 8 that divides size = {}, found {step}",
                    data.size
                ),
            )?;
            ensure(
                part.learns_latents(),
                "[data] bucket_step: a VAE (part = \"vae\") trains on squares, and so does a scorer; leave it out",
            )?;
            ensure(
                self.prior.is_none(),
                "[data] bucket_step: with [prior] the pictures of a step share one shape; leave one of both out",
            )?;
        }
        ensure(
            (0.0..=1.0).contains(&data.caption_dropout),
            format!(
                "[data] caption_dropout: expected 0 to 1, found {}",
                data.caption_dropout
            ),
        )?;
        ensure(
            (1..=64).contains(&data.workers),
            format!("[data] workers: expected 1 to 64, found {}", data.workers),
        )?;
        match data.kind {
            Some(_) => {
                ensure(
                    data.sources.is_empty(),
                    "[data] kind: expected either one source in [data] or several in [[data.sources]], found both",
                )?;
                data.sources()
                    .iter()
                    .try_for_each(|source| check_source(source, "[data]", part))
            }
            None => check_sources(data, part),
        }
    }
}

/// Several sources, and nothing about them in `[data]` itself.
fn check_sources(data: &Data, part: Part) -> Result<(), String> {
    ensure(
        !data.sources.is_empty(),
        "[data] kind: missing; expected \"folder\", \"webdataset\", \"parquet\" or \"scenes\", or several sources in \
         [[data.sources]]",
    )?;
    for (given, name) in [
        (data.path.is_some(), "path"),
        (data.caption.is_some(), "caption"),
        (data.image_column.is_some(), "image_column"),
        (data.caption_column.is_some(), "caption_column"),
        (data.count.is_some(), "count"),
        (data.seed != 0, "seed"),
        (data.sprites.is_some(), "sprites"),
        (data.scenes != Scenes::default(), "scenes"),
    ] {
        ensure(
            !given,
            format!("[data] {name}: where there are [[data.sources]] each of them has its own"),
        )?;
    }
    for (number, source) in data.sources.iter().enumerate() {
        let place = format!("[[data.sources]] number {},", number + 1);
        ensure(
            source.weight.is_finite() && source.weight > 0.0,
            format!(
                "{place} weight: expected a number above 0, found {}; a source that is not wanted is left out",
                source.weight
            ),
        )?;
        check_source(source, &place, part)?;
    }
    Ok(())
}

/// One source, which messages call `place`.
fn check_source(source: &Source, place: &str, part: Part) -> Result<(), String> {
    let kind = source.kind;
    let drawn = kind == DataKind::Scenes;
    for (given, name, belongs) in [
        (source.path.is_some(), "path", !drawn),
        (source.caption.is_some(), "caption", !drawn),
        (
            source.image_column.is_some(),
            "image_column",
            kind == DataKind::Parquet,
        ),
        (
            source.caption_column.is_some(),
            "caption_column",
            kind == DataKind::Parquet,
        ),
        (source.count.is_some(), "count", drawn),
        (source.sprites.is_some(), "sprites", drawn),
    ] {
        ensure(
            !given || belongs,
            format!(
                "{place} {name}: kind = \"{}\" does not have it",
                kind.name()
            ),
        )?;
    }
    if !drawn {
        return ensure(
            source.path.is_some(),
            format!(
                "{place} path: missing; kind = \"{}\" needs the place of its files",
                kind.name()
            ),
        );
    }
    ensure(
        source
            .count
            .is_none_or(|count| (1..=100_000_000).contains(&count)),
        format!("{place} count: expected 1 to 100 million"),
    )?;
    ensure(
        source.count.is_some() || !part.learns_latents(),
        format!(
            "{place} count: missing; all parts but \"vae\" and \"scorer\" draw and encode a fixed number of scenes"
        ),
    )
}
