//! What `velatura evaluate` can be asked for.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ModelArgs;

#[derive(Debug, Subcommand)]
pub enum EvaluateCommand {
    /// PSNR and SSIM of an autoencoder's pictures
    #[command(after_help = "\
Examples:
  velatura evaluate vae
  velatura evaluate vae -m runs/drawn-vae/model --config configs/drawn-vae.toml --json
  velatura evaluate vae -m ./stable-diffusion-v1-5 --pictures photos --size 512")]
    Vae(VaeArgs),
    /// Whether a model paints what prompts ask for, judged on scenes by a trained scorer
    #[command(after_help = "\
Examples:
  velatura evaluate prompts --config configs/default-unet.toml
  velatura evaluate prompts -m runs/my/model --config runs/my/config.toml --prompts 100 --seeds 1 --html verdicts.html

docs/evaluating.md says what is judged, and how the scorer is proved.")]
    Prompts(PromptsArgs),
    /// FID and KID of two folders of pictures
    #[command(after_help = "\
Examples:
  velatura evaluate distance painted photos --inception pt_inception.safetensors
  velatura scenes render --count 2000 --seed 9 --size 128 --out drawn
  velatura evaluate distance painted drawn

With --inception the features are those of pytorch-fid; docs/evaluating.md says how to make the file. Without, they are \
those of our own network for scenes, and the figures compare with nothing but themselves.")]
    Distance(DistanceArgs),
    /// How well pictures fit their captions, by a CLIP model
    #[command(after_help = "\
Examples:
  velatura evaluate clip pictures --clip ./clip-vit-base-patch32")]
    Clip(ClipArgs),
    /// Whether painted pictures repeat those of the training: distances to the nearest, beside those of other pictures
    #[command(after_help = "\
Examples:
  velatura evaluate nearest painted --training trained-with --held-out others")]
    Nearest(NearestArgs),
}

#[derive(Debug, Args)]
pub struct VaeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// A folder of pictures [default: scenes drawn from a seed that no model has learnt from]
    #[arg(long, value_name = "DIR")]
    pub pictures: Option<PathBuf>,
    /// Scenes as this training config has them, sprites included
    #[arg(long, value_name = "CONFIG.toml", conflicts_with = "pictures")]
    pub config: Option<PathBuf>,
    /// How many pictures at most
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// Side of the square that pictures are cut and scaled to [default: the model's own]
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u16).range(32..=2048))]
    pub size: Option<u16>,
    /// Print the result on standard output as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PromptsArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Ask only for what the scenes of this training config show [default: for all that the scorer knows]
    #[arg(long, value_name = "CONFIG.toml")]
    pub config: Option<PathBuf>,
    /// How many prompts, half of them with combinations that are held out
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub prompts: u32,
    /// Pictures for each prompt, of the seeds from 0 on
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub seeds: u16,
    /// Scenes by which the scorer is proved
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub proof: u32,
    /// Steps from noise to picture [default: the model's advice, else 50]
    #[arg(short, long, value_name = "N")]
    pub steps: Option<usize>,
    /// How strongly the prompt is followed [default: the model's advice, else 7.5]
    #[arg(short, long, value_name = "F")]
    pub guidance: Option<f32>,
    /// Pictures painted at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub batch: u8,
    /// The folder of a scorer [default: the embedded one]
    #[arg(long, value_name = "DIR")]
    pub scorer: Option<PathBuf>,
    /// Write a page with every picture and its verdict
    #[arg(long, value_name = "FILE.html")]
    pub html: Option<PathBuf>,
    /// Print figures and verdicts on standard output as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DistanceArgs {
    /// A folder of pictures
    #[arg(value_name = "DIR")]
    pub first: PathBuf,
    /// The folder that it is compared with
    #[arg(value_name = "DIR")]
    pub second: PathBuf,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Print the result on standard output as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct NetworkArgs {
    /// The Inception network of FID, as safetensors under torchvision's names
    #[arg(long, value_name = "FILE.safetensors", conflicts_with = "scorer")]
    pub inception: Option<PathBuf>,
    /// The folder of the scorer whose features are compared [default: the embedded one]
    #[arg(long, value_name = "DIR")]
    pub scorer: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ClipArgs {
    /// A folder of pictures with captions, as for training: texts beside them, or metadata.jsonl or .csv
    #[arg(value_name = "DIR")]
    pub pictures: PathBuf,
    /// A CLIP model's folder, as transformers writes it
    #[arg(long, value_name = "DIR")]
    pub clip: PathBuf,
    /// Print the result on standard output as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct NearestArgs {
    /// A folder of painted pictures
    #[arg(value_name = "DIR")]
    pub painted: PathBuf,
    /// Pictures that the model has learnt from
    #[arg(long, value_name = "DIR")]
    pub training: PathBuf,
    /// Pictures of the same kind that it has not learnt from
    #[arg(long, value_name = "DIR")]
    pub held_out: PathBuf,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Print the result on standard output as JSON
    #[arg(long)]
    pub json: bool,
}
