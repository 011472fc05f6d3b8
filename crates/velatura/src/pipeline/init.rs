//! Painting that begins with a picture: image to image (Meng et al., "SDEdit: Guided Image Synthesis and Editing with
//! Stochastic Differential Equations", 2022, algorithm 1) and inpainting with a model that knows nothing of masks.
//! The order in which random numbers are drawn is that of diffusers' `StableDiffusionImg2ImgPipeline` and
//! `StableDiffusionInpaintPipeline`.

use std::sync::Arc;

use velatura_tensor::Tensor;
use velatura_tensor::random::TorchGenerator;

use super::request::Request;
use super::trace::Trace;
use super::txt2img::Painter;
use crate::diffusion::{Known, SamplerSchedule};
use crate::image::{Image, Mask};
use crate::nn::check_finite;
use crate::{Error, Result};

/// The strength where nobody says one: diffusers' own, for a whole picture and for a part of it.
const STRENGTH: f64 = 0.8;
const INPAINT_STRENGTH: f64 = 1.0;

/// The picture to begin with, and how much of it is to stay.
#[derive(Clone, Debug, PartialEq)]
pub struct Init {
    /// The picture.
    pub image: Arc<Image>,
    /// Where it is repainted; none is everywhere.
    pub mask: Option<Arc<Mask>>,
    /// The share of the steps that is taken, from the noisy end: above 0, at most 1.
    pub strength: f64,
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
                (None, None) => return Ok(None),
            };
            let expected = "a picture to begin with beside it (init)";
            return Err(Error::request(lonely, expected, "none"));
        };
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
        Ok(Some(Init {
            image: Arc::new(image.clone()),
            mask: request.mask.clone().map(Arc::new),
            strength,
        }))
    }

    /// Width and height in pixels.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.image.width(), self.image.height())
    }

    /// The same in another size.
    pub(super) fn resized(self, width: usize, height: usize) -> Init {
        if self.size() == (width, height) {
            return self;
        }
        Init {
            image: Arc::new(self.image.resized(width, height)),
            mask: self.mask.map(|mask| Arc::new(mask.resized(width, height))),
            strength: self.strength,
        }
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
        let x0 = self.encode_picture(&init.image, &mut generator)?;
        let noise = self.noise_like(&x0, &mut generator);
        if let Some(trace) = trace {
            trace.image("init_latents", &x0);
            trace.image("noise", &noise);
        }
        // From a whole picture diffusers always goes on; a part of it may be repainted from pure noise.
        let x = if init.mask.is_some() && init.strength == 1.0 {
            schedule.start(&noise)
        } else {
            schedule.noised(begin, &x0, &noise)
        };
        let known = init.mask.as_ref().map(|mask| {
            // diffusers encodes the masked picture too, for models that want to see it; that draws numbers.
            generator.randn(x0.len());
            Known {
                mask: self.latent_mask(mask, &x0),
                x0,
                noise,
            }
        });
        Ok(Start {
            x,
            begin,
            known,
            generator,
        })
    }

    /// A sample of what the encoder sees in a picture, scaled for the UNet: `[1, h, w, C]`.
    fn encode_picture(&self, image: &Image, generator: &mut TorchGenerator) -> Result<Tensor> {
        let x = image.to_tensor();
        let mut distribution = self.vae.encode(&x);
        if !(distribution.mean.is_finite() && distribution.logvar.is_finite()) {
            distribution = check_finite("vae", || self.vae.encode(&x))?;
        }
        let noise = self.noise_like(&distribution.mean, generator);
        Ok(self.vae.config().scale(&distribution.sample(&noise)))
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
        let scale = self.vae.config().factor();
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
