//! What can be written on the command line. Nothing is decided here: a value not given stays `None`, and the
//! library's plan fills it in.

mod evaluate;

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use bytesize::ByteSize;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Args, Parser, Subcommand, ValueEnum};
use velatura::diffusion::{Sampler, Spacing};
use velatura::pipeline::{MaskedContent, Stage};
use velatura_tensor::device::Device;

pub use self::evaluate::{
    ClipArgs, DistanceArgs, EvaluateCommand, NearestArgs, NetworkArgs, PromptsArgs, VaeArgs,
};

/// Stable Diffusion in Rust: train a model from captioned pictures, paint pictures from text.
#[derive(Debug, Parser)]
#[command(
    name = "velatura",
    version,
    max_term_width = 110,
    propagate_version = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Paint a picture from a text
    Generate(GenerateArgs),
    /// Train a model as a config file says
    Train(TrainArgs),
    /// Judge a model: reconstruction, distances between sets of pictures, obedience to prompts
    #[command(subcommand)]
    Evaluate(EvaluateCommand),
    /// Captioned scenes with known ground truth, drawn from a seed
    #[command(subcommand)]
    Scenes(ScenesCommand),
    /// Measure a model's stages: medians in milliseconds, and peak memory
    Bench(BenchArgs),
    /// Serve pictures: a page, an API of our own, and those of AUTOMATIC1111 and OpenAI
    Serve(ServeArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  velatura generate \"a red car on a beach at sunset\"
  velatura generate -m ./stable-diffusion-v1-5 -s 30 --sampler dpm++2m --schedule karras \\
      --seed 42 -n \"blurry\" -o fox.png \"a fox in the snow\"
  velatura generate --init sketch.png --strength 0.6 \"a lighthouse in a storm\"
  velatura generate --init room.png --mask window.png \"a room with a view of the sea\"
  velatura generate --json --trace steps.safetensors \"two blue cups on a table\"

The picture carries its recipe: the `parameters` text that AUTOMATIC1111's web UI writes, and a JSON under \
`velatura`.")]
pub struct GenerateArgs {
    /// What the picture shows
    pub prompt: String,
    #[command(flatten)]
    pub model: ModelArgs,
    /// What the picture shall not show
    #[arg(short, long, value_name = "TEXT")]
    pub negative: Option<String>,
    /// Steps from noise to picture [default: the model's advice, else 50]
    #[arg(short, long, value_name = "N")]
    pub steps: Option<usize>,
    /// How strongly the prompt is followed; 1 is no guidance [default: the model's advice, else 7.5]
    #[arg(short, long, value_name = "F")]
    pub guidance: Option<f32>,
    /// The same seed gives the same picture [default: a random one, which is told]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How the steps are taken [default: the model's own]
    #[arg(long, value_name = "NAME", value_parser = sampler_parser())]
    pub sampler: Option<Sampler>,
    /// How the noise levels are spaced, for samplers that work on them [default: the model's own]
    #[arg(long, value_name = "NAME", value_parser = spacing_parser())]
    pub schedule: Option<Spacing>,
    /// DDIM's η: 0 adds no noise on the way, 1 as much as DDPM [default: 0]
    #[arg(long, value_name = "F")]
    pub eta: Option<f32>,
    /// Width of the picture [default: that of --init, else the model's own]
    #[arg(long, value_name = "PX")]
    pub width: Option<usize>,
    /// Height of the picture [default: that of --init, else the model's own]
    #[arg(long, value_name = "PX")]
    pub height: Option<usize>,
    /// Begin with this picture; with --width and --height it is scaled to them
    #[arg(long, value_name = "PICTURE")]
    pub init: Option<PathBuf>,
    /// Repaint --init where this picture is white, and leave the rest as it is
    #[arg(long, value_name = "PICTURE", requires = "init")]
    pub mask: Option<PathBuf>,
    /// How far to go back to noise, from 0 (leave --init as it is) to 1 (all the way) [default: 0.8, with --mask 1]
    #[arg(long, value_name = "F", requires = "init")]
    pub strength: Option<f64>,
    /// What the masked part holds before painting begins; with --strength 1 it does not matter [default: original]
    #[arg(long, value_name = "NAME", requires = "mask", value_parser = masked_content_parser())]
    pub masked_content: Option<MaskedContent>,
    /// Soften the edge of --mask over so many pixels, inside it [default: 0]
    #[arg(long, value_name = "PX", requires = "mask")]
    pub mask_blur: Option<f32>,
    /// Repaint only the field around what is masked, and so many pixels more on each side, in the given width and height, and
    /// scale it back into the picture
    #[arg(long, value_name = "PX", requires = "mask")]
    pub padding_mask_crop: Option<usize>,
    /// Memory that the program may take, such as 2.5GB: a part of the weights takes a smaller form, which is slower
    /// [default: as much as is fastest]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Where to write the picture; replaces a file of that name [default: a free name made from prompt and seed]
    #[arg(short, long, value_name = "FILE.png")]
    pub output: Option<PathBuf>,
    /// Write every intermediate, f32, channels first
    #[arg(long, value_name = "FILE.safetensors")]
    pub trace: Option<PathBuf>,
    /// Print a summary on standard output
    #[arg(long)]
    pub json: bool,
    /// Do not show the picture in the terminal
    #[arg(long)]
    pub no_preview: bool,
}

#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// A model folder as diffusers writes it [default: the embedded model]
    #[arg(short, long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Read the weight files of this variant, such as fp16
    #[arg(long, value_name = "NAME")]
    pub variant: Option<String>,
    /// Add a LoRA to the model, and how much of it [default weight: 1]; may be given several times
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    pub lora: Vec<LoraArg>,
    /// Teach the model a word that textual inversion has learnt; may be given several times
    #[arg(long, value_name = "FILE")]
    pub embedding: Vec<PathBuf>,
    /// The numbers that matrix products are taken in; auto is bf16 where the processor multiplies it, else f32; int8
    /// takes the linear layers of the UNet in 8-bit integers
    #[arg(long, value_enum, default_value_t = PrecisionArg::Auto)]
    pub precision: PrecisionArg,
    /// Threads to compute with [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Where to compute: cpu, cuda (an NVIDIA graphics card), or cuda:1 for the second of several
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: Device,
    /// Keep the weights of large models in this folder as the processor wants them, and take them from there at the next
    /// start: at most 16 GiB, of which those used longest ago make way
    #[arg(long, value_name = "DIR", env = "VELATURA_CACHE")]
    pub cache: Option<PathBuf>,
}

/// A LoRA's file, and how much of its effect is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraArg {
    pub file: PathBuf,
    pub weight: f32,
}

impl FromStr for LoraArg {
    type Err = String;

    /// `FILE` or `FILE:WEIGHT`; a colon that no number follows belongs to the name.
    fn from_str(text: &str) -> Result<LoraArg, String> {
        let split = text.rsplit_once(':').and_then(|(file, weight)| {
            let weight: f32 = weight.parse().ok()?;
            Some((file, weight))
        });
        let (file, weight) = split.unwrap_or((text, 1.0));
        if file.is_empty() || !weight.is_finite() {
            return Err("expected FILE or FILE:WEIGHT, such as cat.safetensors:0.8".into());
        }
        Ok(LoraArg {
            file: file.into(),
            weight,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    Auto,
    F32,
    Bf16,
    Int8,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  velatura train configs/drawn-vae.toml
  velatura train configs/drawn-vae.toml --resume
  velatura train configs/drawn-vae.toml --plan
  velatura train configs/drawn-vae.toml --device cuda")]
pub struct TrainArgs {
    /// The run's config
    #[arg(value_name = "CONFIG.toml")]
    pub config: PathBuf,
    /// Go on where the run's last checkpoint stands
    #[arg(long)]
    pub resume: bool,
    /// Only say what the run will take: parameters, memory, disk, and time, measured over a few steps
    #[arg(long, conflicts_with = "resume")]
    pub plan: bool,
    /// Print the plan on standard output as JSON
    #[arg(long, requires = "plan")]
    pub json: bool,
    /// Threads to compute with [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Where to compute: cpu, cuda (an NVIDIA graphics card), or cuda:1 for the second of several
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: Device,
}

#[derive(Debug, Subcommand)]
pub enum ScenesCommand {
    /// Draw scenes: pictures, and metadata.jsonl with captions and ground truth
    #[command(after_help = "\
Examples:
  velatura scenes render --count 100 --seed 1 --out scenes
  velatura scenes render --count 100 --seed 1 --sprites ./sprites --out scenes
  velatura scenes render --count 100 --seed 1 --config configs/drawn-unet.toml --size 128 --out scenes")]
    Render(RenderArgs),
}

#[derive(Debug, Args)]
pub struct RenderArgs {
    /// How many scenes
    #[arg(long, value_name = "N")]
    pub count: u64,
    /// The same seed gives the same scenes
    #[arg(long, value_name = "N")]
    pub seed: u64,
    /// A folder of named sprites to use beside the objects drawn in code
    #[arg(long, value_name = "DIR")]
    pub sprites: Option<PathBuf>,
    /// Scenes as this training config has them, sprites included
    #[arg(long, value_name = "CONFIG.toml", conflicts_with = "sprites")]
    pub config: Option<PathBuf>,
    /// The folder to write; it must be new or empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Side of the square pictures in pixels
    #[arg(long, value_name = "PX", default_value_t = 256)]
    pub size: u32,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  velatura bench --model ./stable-diffusion-v1-5
  velatura bench --model ./stable-diffusion-v1-5 --precision f32 --width 512 --height 512 --json
  velatura bench --train unet --layers")]
pub struct BenchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Width of the picture [default: the model's own]
    #[arg(long, value_name = "PX")]
    pub width: Option<usize>,
    /// Height of the picture [default: the model's own]
    #[arg(long, value_name = "PX")]
    pub height: Option<usize>,
    /// Pictures whose steps the UNet takes in one batch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub batch: u8,
    /// Measurements per stage, after one to warm up
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repeat: u16,
    /// Only these stages, separated by commas [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = PossibleValuesParser::new(Stage::NAMES))]
    pub stages: Vec<String>,
    /// Measure a training step of a model of fixed size instead: of a UNet of 28.6 million parameters on 16 latents of
    /// 32×32, or of an autoencoder on 8 pictures of 128×128; its products are in bf16 unless --precision f32
    #[arg(long, value_name = "PART", value_enum, num_args = 0..=1, default_missing_value = "unet",
        conflicts_with_all = ["model", "variant", "lora", "embedding", "width", "height"])]
    pub train: Option<TrainedPart>,
    /// Also list what each stage computes: every shape, how often, by which algorithm, and how fast
    #[arg(long)]
    pub layers: bool,
    /// Also write what the stages work on and what comes out, as a safetensors file
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Print the result as JSON on standard output
    #[arg(long)]
    pub json: bool,
}

/// A model of which `bench` measures the training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TrainedPart {
    Unet,
    Vae,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  velatura serve
  velatura serve -m ./stable-diffusion-v1-5 --host 0.0.0.0 --api-key-file keys.txt
  velatura serve --config serve.toml

A flag counts before its environment variable, that before the config file. docs/serving.md says what can be set there.")]
pub struct ServeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The address to listen on; beyond this machine only with a key [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", env = "VELATURA_HOST", value_parser = crate::serve::parse_host)]
    pub host: Option<IpAddr>,
    /// The port [default: 7860]
    #[arg(long, value_name = "N", env = "VELATURA_PORT")]
    pub port: Option<u16>,
    /// A file with one key per line, of which clients have to present one
    #[arg(long, value_name = "FILE", env = "VELATURA_API_KEY_FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Listen beyond this machine without a key
    #[arg(long)]
    pub no_auth: bool,
    /// The folder for jobs and pictures; `none` keeps them in memory [default: velatura among your data]
    #[arg(long, value_name = "DIR", env = "VELATURA_DATA")]
    pub data: Option<PathBuf>,
    /// A config file
    #[arg(long, value_name = "FILE.toml", env = "VELATURA_CONFIG")]
    pub config: Option<PathBuf>,
    /// Pages of this origin may use the API from a browser; may be given again
    #[arg(long, value_name = "ORIGIN")]
    pub cors_origin: Vec<String>,
    /// A browser may reach the server under this name; may be given again
    #[arg(long, value_name = "NAME")]
    pub host_name: Vec<String>,
    /// How logs are written
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "VELATURA_LOG")]
    pub log: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Accepts the samplers in the library's table, under any of their names.
fn sampler_parser() -> impl TypedValueParser<Value = Sampler> {
    Names(Sampler::ALL.map(Sampler::name).to_vec(), |name| {
        name.parse().ok()
    })
}

/// Accepts the spacings in the library's table.
fn spacing_parser() -> impl TypedValueParser<Value = Spacing> {
    Names(Spacing::ALL.map(Spacing::name).to_vec(), |name| {
        name.parse().ok()
    })
}

/// Accepts the contents in the library's table.
fn masked_content_parser() -> impl TypedValueParser<Value = MaskedContent> {
    Names(
        MaskedContent::ALL.map(MaskedContent::name).to_vec(),
        |name| name.parse().ok(),
    )
}

/// Names that help lists, and how to read one. What cannot be read is answered with the nearest name.
#[derive(Clone)]
struct Names<T>(Vec<&'static str>, fn(&str) -> Option<T>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Names<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        match value.to_str().and_then(self.1) {
            Some(parsed) => Ok(parsed),
            None => Err(PossibleValuesParser::new(&self.0)
                .parse_ref(command, arg, value)
                .err()
                .unwrap_or_else(|| clap::Error::new(ErrorKind::InvalidValue).with_cmd(command))),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(PossibleValue::new)))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_lora_has_a_weight_or_counts_whole() {
        let parsed = |text: &str| {
            let LoraArg { file, weight } = text.parse().unwrap();
            (file.display().to_string(), weight)
        };
        assert_eq!(parsed("a.safetensors"), ("a.safetensors".into(), 1.0));
        assert_eq!(parsed("a.safetensors:0.5"), ("a.safetensors".into(), 0.5));
        assert_eq!(parsed("C:/a.safetensors"), ("C:/a.safetensors".into(), 1.0));
        assert_eq!(parsed("C:/a:-1"), ("C:/a".into(), -1.0));
        assert!(":1".parse::<LoraArg>().is_err() && "a:inf".parse::<LoraArg>().is_err());
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
