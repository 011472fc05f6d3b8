//! Painting that begins with a picture: image to image (Meng et al., "SDEdit: Guided Image Synthesis and Editing with
//! Stochastic Differential Equations", 2022, algorithm 1) and inpainting with a model that knows nothing of masks.
//! The order in which random numbers are drawn is that of diffusers' `StableDiffusionImg2ImgPipeline` and
//! `StableDiffusionInpaintPipeline`.

use std::sync::Arc;

use velatura_tensor::Tensor;
use velatura_tensor::random::TorchGenerator;

use super::masked::MaskedContent;
use super::request::Request;
use super::trace::Trace;
use super::txt2img::Painter;
use crate::diffusion::{Known, SamplerSchedule};
use crate::image::{Image, Mask, Region};
use crate::metadata::Inpainting;
use crate::{Error, Result};

/// The strength where nobody says one: diffusers' own, for a whole picture and for a part of it.
const STRENGTH: f64 = 0.8;
const INPAINT_STRENGTH: f64 = 1.0;

/// The widest soft edge of a mask, in pixels.
const MAX_BLUR: f32 = 64.0;

/// The picture to begin with, and how much of it is to stay.
#[derive(Clone, Debug, PartialEq)]
pub struct Init {
    /// The picture.
    pub image: Arc<Image>,
    /// Where it is repainted; none is everywhere.
    pub mask: Option<Arc<Mask>>,
    /// The share of the steps that is taken, from the noisy end: above 0, at most 1.
    pub strength: f64,
    /// What the masked part holds before.
    pub masked_content: MaskedContent,
    /// Pixels over which the edge of the mask is softened.
    pub mask_blur: f32,
    /// What picture and mask are a part of, where only the field around the mask is repainted.
    pub whole: Option<Arc<Whole>>,
}

/// A picture of which only a field is repainted, in a resolution of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    /// The picture.
    pub image: Image,
    /// What is repainted.
    pub mask: Mask,
    /// Pixels that are seen around it.
    pub padding: usize,
    /// The field.
    pub region: Region,
}

/// Where the sampler begins.
pub(super) struct Start {
    /// The first x, `[1, h, w, C]`.
    pub x: Tensor,
    /// The evaluation to begin with.
    pub begin: usize,
    /// What stays.
    pub known: Option<Known>,
    /// The generator behind all noise so far.
    pub generator: TorchGenerator,
}

impl Init {
    /// What `request` begins with; nothing where it has no picture.
    ///
    /// # Errors
    /// [`Error::Request`] for a mask or a strength without a picture, a mask of another size, an impossible strength.
    pub(super) fn of(request: &Request) -> Result<Option<Init>> {
        let Some(image) = &request.init else {
            let lonely = match (&request.mask, request.strength) {
                (Some(_), _) => "mask",
                (None, Some(_)) => "strength",
                (None, None) => return without_mask(request).map(|()| None),
            };
            let expected = "a picture to begin with beside it (init)";
            return Err(Error::request(lonely, expected, "none"));
        };
        if request.mask.is_none() {
            without_mask(request)?;
        }
        if let Some(mask) = &request.mask
            && (mask.width(), mask.height()) != (image.width(), image.height())
        {
            return Err(Error::request(
                "mask",
                format!("the size of init, {}×{}", image.width(), image.height()),
                format!("{}×{}", mask.width(), mask.height()),
            ));
        }
        let strength = request.strength.unwrap_or(match request.mask {
            None => STRENGTH,
            Some(_) => INPAINT_STRENGTH,
        });
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(Error::request(
                "strength",
                "a number above 0 and up to 1",
                strength,
            ));
        }
        let mask_blur = request.mask_blur.unwrap_or(0.0);
        if !(0.0..=MAX_BLUR).contains(&mask_blur) {
            let expected = format!("a number from 0 to {MAX_BLUR}");
            return Err(Error::request("mask_blur", expected, mask_blur));
        }
        Ok(Some(Init {
            image: Arc::new(image.clone()),
            mask: request.mask.clone().map(Arc::new),
            strength,
            masked_content: request.masked_content.unwrap_or_default(),
            mask_blur,
            whole: None,
        }))
    }

    /// Width and height in pixels.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.image.width(), self.image.height())
    }

    /// The same in the size of what is painted: scaled, or with `padding` the field around the mask.
    ///
    /// # Errors
    /// [`Error::Request`] for an empty mask that shall say where to crop.
    pub(super) fn fitted(
        mut self,
        width: usize,
        height: usize,
        padding: Option<usize>,
    ) -> Result<Init> {
        if let (Some(padding), Some(mask)) = (padding, &self.mask) {
            let region = mask.region(padding, width, height);
            let region = region.ok_or_else(|| {
                let expected = "something painted, for padding_mask_crop to crop to";
                Error::request("mask", expected, "nothing")
            })?;
            let whole = Whole {
                image: self.image.as_ref().clone(),
                mask: mask.as_ref().clone(),
                padding,
                region,
            };
            self.image = Arc::new(whole.image.framed(region, width, height));
            self.mask = Some(Arc::new(whole.mask.framed(region, width, height)));
            self.whole = Some(Arc::new(whole));
        } else if self.size() != (width, height) {
            self.image = Arc::new(self.image.resized(width, height));
            self.mask = self.mask.map(|mask| Arc::new(mask.resized(width, height)));
        }
        Ok(self)
    }

    /// What the recipe says of the masked part.
    pub(super) fn inpainting(&self) -> Option<Inpainting> {
        self.mask.as_ref().map(|_| Inpainting {
            masked_content: self.masked_content.name().to_string(),
            mask_blur: self.mask_blur,
            padding_mask_crop: self.whole.as_ref().map(|whole| whole.padding),
        })
    }

    /// The picture that was asked for, from what was painted: back in its place, and everything outside the mask as it was.
    pub(super) fn finish(&self, painted: Image) -> Image {
        let Some(mask) = &self.mask else {
            return painted;
        };
        match &self.whole {
            None => painted.within(mask, &self.image, self.mask_blur),
            Some(whole) => {
                let mut picture = whole.image.clone();
                picture.put_back(whole.region, &painted);
                picture.within(&whole.mask, &whole.image, self.mask_blur)
            }
        }
    }
}

/// Refuses what only a mask gives a meaning.
fn without_mask(request: &Request) -> Result<()> {
    let lonely = [
        ("masked_content", request.masked_content.is_some()),
        ("mask_blur", request.mask_blur.is_some()),
        ("padding_mask_crop", request.padding_mask_crop.is_some()),
    ];
    match lonely.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(Error::request(*field, "a mask beside it", "none")),
        None => Ok(()),
    }
}

impl Painter<'_> {
    /// The start of the walk from `init`, which has the size of the result.
    ///
    /// # Errors
    /// [`Error::Request`] as [`SamplerSchedule::begin`]; [`Error::NotFinite`] from the encoder.
    pub(super) fn start_from(
        &self,
        init: &Init,
        seed: u64,
        schedule: &SamplerSchedule,
        trace: Option<&mut Trace>,
    ) -> Result<Start> {
        let begin = schedule.begin(init.strength)?;
        let mut generator = TorchGenerator::new(seed);
        let x0 = match &init.mask {
            Some(mask) if init.masked_content == MaskedContent::Fill => {
                self.encode_picture(&init.image.filled(mask), &mut generator)?
            }
            _ => self.encode_picture(&init.image, &mut generator)?,
        };
        let noise = self.noise_like(&x0, &mut generator);
        if let Some(trace) = trace {
            trace.image("init_latents", &x0);
            trace.image("noise", &noise);
        }
        let Some(mask) = &init.mask else {
            // From a whole picture diffusers always goes on; a part of it may be repainted from pure noise.
            return Ok(Start {
                x: schedule.noised(begin, &x0, &noise),
                begin,
                known: None,
                generator,
            });
        };
        let mask = self.latent_mask(mask, &x0);
        let x0 = init.masked_content.latents(x0, &noise, &mask);
        let x = if init.strength == 1.0 {
            schedule.start(&noise)
        } else {
            schedule.noised(begin, &x0, &noise)
        };
        // diffusers encodes the masked picture too, for models that want to see it; that draws numbers.
        generator.randn(x0.len());
        Ok(Start {
            x,
            begin,
            known: Some(Known { mask, x0, noise }),
            generator,
        })
    }

    /// A sample of what the encoder sees in a picture, scaled for the UNet: `[1, h, w, C]`.
    fn encode_picture(&self, image: &Image, generator: &mut TorchGenerator) -> Result<Tensor> {
        let x = image.to_tensor();
        let distribution = self.look(&x)?;
        let noise = self.noise_like(&distribution.mean, generator);
        Ok(self.vae_config.scale(&distribution.sample(&noise)))
    }

    /// Standard normal noise of the shape of `x: [1, h, w, C]`, drawn channel by channel.
    fn noise_like(&self, x: &Tensor, generator: &mut TorchGenerator) -> Tensor {
        let (height, width, channels) = (x.dim(1), x.dim(2), x.dim(3));
        let values = generator.randn(x.len());
        Tensor::from_vec(values, &[1, channels, height, width]).nchw_to_nhwc()
    }

    /// The mask at the latents' size, in the shape of `x: [1, h, w, C]`: the upper left pixel of each latent's field,
    /// as `torch.nn.functional.interpolate` picks it.
    fn latent_mask(&self, mask: &Mask, x: &Tensor) -> Tensor {
        let (height, width, channels) = (x.dim(1), x.dim(2), x.dim(3));
        let scale = self.vae_config.factor();
        let mut values = Vec::with_capacity(x.len());
        for row in 0..height {
            for column in 0..width {
                let painted = mask.is_painted(column * scale, row * scale);
                values.extend(std::iter::repeat_n(f32::from(u8::from(painted)), channels));
            }
        }
        Tensor::from_vec(values, x.shape())
    }
}
