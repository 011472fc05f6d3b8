//! What a job is to paint, with every default filled in: the same order gives the same pictures whenever it is run.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use velatura::image::{Image, Mask, PngError};
use velatura::pipeline::{Init, Model, Request};

use crate::problem::Problem;
use crate::settings::Limits;

/// The largest seed: the largest whole number that every reader of JSON keeps exact. (The noise depends on the low 32
/// bits, as in PyTorch.)
pub const MAX_SEED: u64 = (1 << 53) - 1;

/// A job's content. Pictures lie beside it as [`Attachments`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Order {
    /// What the pictures show.
    pub prompt: String,
    /// What they shall not show.
    pub negative_prompt: String,
    /// One picture for each.
    pub seeds: Vec<u64>,
    /// Steps from noise to picture.
    pub steps: usize,
    /// The scale of classifier-free guidance; 1 and less is none.
    pub guidance_scale: f32,
    /// How the steps are taken.
    pub sampler: String,
    /// How the noise levels are spaced.
    pub schedule: String,
    /// DDIM's η.
    pub eta: f32,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// How far the picture to begin with goes back to noise; none without such a picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// What the masked part holds before painting begins; none without a mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked_content: Option<String>,
    /// Pixels over which the edge of the mask is softened, inside it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mask_blur: f32,
    /// Pixels around the mask, where only the field around it is repainted, in this width and height.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding_mask_crop: Option<usize>,
    /// `txt2img`, `img2img` or `inpaint`.
    pub mode: String,
}

fn is_zero(value: &f32) -> bool {
    *value == 0.0
}

/// The pictures that belong to an order, as PNG files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachments {
    /// The picture to begin with.
    pub init: Option<Vec<u8>>,
    /// Where to repaint it.
    pub mask: Option<Vec<u8>>,
}

impl Attachments {
    /// What is to be kept of `init`, to plan the same again.
    fn of(init: &Init) -> Result<Attachments, PngError> {
        let (image, mask) = match &init.whole {
            Some(whole) => (&whole.image, Some(&whole.mask)),
            None => (init.image.as_ref(), init.mask.as_deref()),
        };
        Ok(Attachments {
            init: Some(image.encode_png(&[])?),
            mask: mask.map(Mask::encode_png).transpose()?,
        })
    }
}

/// What a client asked for: a request of the library, and what only a server has.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The picture.
    pub request: Request,
    /// The seeds; empty takes that of the request, or a random one.
    pub seeds: Vec<u64>,
    /// How many pictures from the first seed on, where only one is given.
    pub count: Option<usize>,
}

impl Wish {
    /// The order for this wish.
    ///
    /// # Errors
    /// 422 with the field that is impossible for this model, or beyond the limits.
    pub fn order(self, model: &Model, limits: &Limits) -> Result<(Order, Attachments), Problem> {
        let mut request = self.request;
        for (field, text) in [
            ("prompt", Some(&request.prompt)),
            ("negative_prompt", request.negative.as_ref()),
        ] {
            let length = text.map_or(0, |text| text.chars().count());
            if length > limits.prompt_chars {
                let expected = format!("at most {} characters", limits.prompt_chars);
                return Err(Problem::field(field, expected, length));
            }
        }
        if request.steps.is_some_and(|steps| steps > limits.steps) {
            let expected = format!("a number from 1 to {}", limits.steps);
            return Err(Problem::field(
                "steps",
                expected,
                request.steps.unwrap_or(0),
            ));
        }
        for (field, side) in [("width", request.width), ("height", request.height)] {
            // Before a picture is scaled to it.
            if side.is_some_and(|side| side > limits.side) {
                let expected = format!("at most {} pixels", limits.side);
                return Err(Problem::field(field, expected, side.unwrap_or(0)));
            }
        }
        request.seed = request.seed.or(self.seeds.first().copied());
        if request.padding_mask_crop.is_some()
            && let Some(init) = &request.init
            && init.width().max(init.height()) > limits.side
        {
            // The picture keeps its size, whatever its part is painted in.
            let expected = format!("a picture of at most {} pixels a side", limits.side);
            let found = format!("{}×{}", init.width(), init.height());
            return Err(Problem::field("init", expected, found));
        }
        let plan = model.plan(&request)?;
        for (field, side) in [("width", plan.width), ("height", plan.height)] {
            if side > limits.side {
                let expected = format!("at most {} pixels", limits.side);
                return Err(Problem::field(field, expected, side));
            }
        }
        let seeds = seeds(plan.seed, self.seeds, self.count, limits.pictures)?;
        let init = plan.init.as_ref();
        let attachments = match init {
            Some(init) => Attachments::of(init).map_err(Problem::internal)?,
            None => Attachments::default(),
        };
        let masked = init.filter(|init| init.mask.is_some());
        let order = Order {
            mode: plan.mode().to_string(),
            strength: init.map(|init| init.strength),
            masked_content: masked.map(|init| init.masked_content.to_string()),
            mask_blur: masked.map_or(0.0, |init| init.mask_blur),
            padding_mask_crop: request.padding_mask_crop,
            prompt: plan.prompt,
            negative_prompt: plan.negative,
            seeds,
            steps: plan.steps,
            guidance_scale: plan.guidance,
            sampler: plan.sampler.name().to_string(),
            schedule: plan.schedule.name().to_string(),
            eta: plan.eta,
            width: plan.width,
            height: plan.height,
        };
        Ok((order, attachments))
    }
}

/// The seeds of a job's pictures.
fn seeds(
    first: u64,
    given: Vec<u64>,
    count: Option<usize>,
    most: usize,
) -> Result<Vec<u64>, Problem> {
    let seeds = match (given.len(), count) {
        (0 | 1, count) => {
            let count = count.unwrap_or(1);
            if !(1..=most).contains(&count) {
                return Err(Problem::field(
                    "count",
                    format!("a number from 1 to {most}"),
                    count,
                ));
            }
            // As AUTOMATIC1111 and others number the pictures of a batch.
            (0..count as u64).map(|i| first.saturating_add(i)).collect()
        }
        (given_count, Some(count)) if given_count != count => {
            let expected = format!("{given_count}, the number of seeds, or no count");
            return Err(Problem::field("count", expected, count));
        }
        _ => given,
    };
    if seeds.len() > most {
        let expected = format!("at most {most} seeds");
        return Err(Problem::field("seeds", expected, seeds.len()));
    }
    match seeds.iter().find(|&&seed| seed > MAX_SEED) {
        Some(seed) => {
            let expected = format!("a number from 0 to {MAX_SEED}");
            Err(Problem::field("seed", expected, seed))
        }
        None => Ok(seeds),
    }
}

impl Order {
    /// Width and height of what is painted, in pixels.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// The request for the picture with this seed.
    ///
    /// # Errors
    /// The stored order is damaged, or of a sampler that is no more.
    pub fn request(&self, attachments: &Attachments, seed: u64) -> velatura::Result<Request> {
        Ok(Request {
            prompt: self.prompt.clone(),
            negative: Some(self.negative_prompt.clone()),
            steps: Some(self.steps),
            guidance: Some(self.guidance_scale),
            seed: Some(seed),
            sampler: Some(self.sampler.parse()?),
            schedule: Some(self.schedule.parse()?),
            eta: Some(self.eta),
            width: Some(self.width),
            height: Some(self.height),
            init: attachments
                .init
                .as_deref()
                .map(Image::from_bytes)
                .transpose()?,
            mask: attachments
                .mask
                .as_deref()
                .map(Mask::from_bytes)
                .transpose()?,
            strength: self.strength,
            masked_content: self.masked_content.as_deref().map(str::parse).transpose()?,
            mask_blur: attachments.mask.is_some().then_some(self.mask_blur),
            padding_mask_crop: self.padding_mask_crop,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_counted_up_or_given() {
        assert_eq!(seeds(7, vec![], None, 4).unwrap(), [7]);
        assert_eq!(seeds(7, vec![7], Some(3), 4).unwrap(), [7, 8, 9]);
        assert_eq!(seeds(7, vec![7, 3], None, 4).unwrap(), [7, 3]);
        assert_eq!(seeds(7, vec![7, 3], Some(2), 4).unwrap(), [7, 3]);
        let field = |result: Result<Vec<u64>, Problem>| result.unwrap_err().field.unwrap();
        assert_eq!(field(seeds(7, vec![7, 3], Some(3), 4)), "count");
        assert_eq!(field(seeds(7, vec![], Some(0), 4)), "count");
        assert_eq!(field(seeds(7, vec![], Some(5), 4)), "count");
        assert_eq!(field(seeds(1, vec![1, 2, 3, 4, 5], None, 4)), "seeds");
        assert_eq!(field(seeds(1 << 53, vec![1 << 53], None, 4)), "seed");
        assert_eq!(field(seeds(MAX_SEED, vec![], Some(2), 4)), "seed");
    }
}
