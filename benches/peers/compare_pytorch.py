#!/usr/bin/env python3
"""Measures Velatura next to diffusers on PyTorch, with the same weights on the same machine in one run.

    cargo build --release
    python fixtures/make_full_size.py --out /tmp/full-size
    python benches/peers/compare_pytorch.py --model /tmp/full-size

For each precision the two programs take turns, `--rounds` times, each in a process of its own, so that a
machine that grows slower on the way slows both. Printed are medians of the stages, their ratio and the peak
memory of each process. Then both paint the same picture (same seed, same token ids, f32) and the pictures are
compared: the largest and the mean difference in steps of 1/255.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import peers

STAGES = ("text_encoder_ms", "unet_step_ms", "vae_encode_ms", "vae_decode_ms")
HANDED_ON = ("width", "height", "repeat", "steps", "seed", "guidance", "threads")


def load_text_encoder(model: pathlib.Path, dtype):
    from transformers import CLIPTextModel

    return CLIPTextModel.from_pretrained(model / "text_encoder", dtype=dtype).eval()


def pytorch_bench(args) -> dict:
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    dtype = peers.torch_dtype(args.precision)
    text_encoder = load_text_encoder(args.model, dtype)
    unet, vae = peers.load_unet(args.model, dtype), peers.load_vae(args.model, dtype)
    ids = torch.full((2, 77), 49407)
    ids[:, 0] = 49406
    height, width = args.height // 8, args.width // 8
    latents = torch.randn(2, 4, height, width).to(dtype)
    context = torch.randn(2, 77, unet.config.cross_attention_dim).to(dtype)
    picture = torch.rand(1, 3, args.height, args.width).to(dtype) * 2 - 1
    with torch.inference_mode():
        stages = {
            "text_encoder_ms": lambda: text_encoder(ids),
            "unet_step_ms": lambda: unet(latents, 500, encoder_hidden_states=context),
            "vae_encode_ms": lambda: vae.encode(picture),
            "vae_decode_ms": lambda: vae.decode(latents[:1]),
        }
        result = {name: peers.median_ms(function, args.repeat) for name, function in stages.items()}
    result["peak_rss_mb"] = peers.peak_mb()
    return result


def pytorch_picture(args) -> dict:
    """Paints in f32 as StableDiffusionPipeline does, from the token ids of Velatura's trace."""
    import numpy as np
    import torch
    from diffusers import PNDMScheduler
    from PIL import Image
    from safetensors.torch import load_file

    if args.threads:
        torch.set_num_threads(args.threads)
    trace = load_file(args.trace)
    text_encoder = load_text_encoder(args.model, torch.float32)
    unet, vae = peers.load_unet(args.model, torch.float32), peers.load_vae(args.model, torch.float32)
    scheduler = PNDMScheduler.from_pretrained(args.model / "scheduler")
    with torch.inference_mode():
        context = text_encoder(trace["input_ids"])[0]
        generator = torch.Generator("cpu").manual_seed(args.seed)
        shape = (1, 4, args.height // 8, args.width // 8)
        noise = torch.randn(shape, generator=generator)
        assert torch.equal(noise, trace["noise"]), "the noise of the same seed differs"
        scheduler.set_timesteps(args.steps)
        latents = noise * scheduler.init_noise_sigma
        start = time.perf_counter()
        for t in scheduler.timesteps:
            both = scheduler.scale_model_input(torch.cat([latents] * 2), t)
            negative, positive = unet(both, t, encoder_hidden_states=context).sample.chunk(2)
            predicted = negative + args.guidance * (positive - negative)
            latents = scheduler.step(predicted, t, latents).prev_sample
        step_ms = (time.perf_counter() - start) * 1000 / len(scheduler.timesteps)
        decoded = vae.decode(latents / vae.config.scaling_factor).sample
    pixels = ((decoded / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(args.out)
    last = max(int(name.split(".")[1]) for name in trace if name.startswith("latents."))
    difference = (latents - trace[f"latents.{last}"]).norm() / latents.norm()
    return {"step_ms": step_ms, "latents_relative": difference.item(), "peak_rss_mb": peers.peak_mb()}


def compare_times(args) -> dict:
    report = {}
    for precision in args.precisions.split(","):
        rounds = []
        for _ in range(args.rounds):
            ours = peers.velatura(args, "bench", "--precision", precision, "--repeat", args.repeat)
            rounds.append((ours, peers.worker(__file__, "bench", args, HANDED_ON, precision=precision)))
        print(f"\n{precision}, {args.width}×{args.height}, medians of {args.rounds} rounds")
        print(f"{'':16} {'velatura':>12} {'pytorch':>12} {'ratio':>7}")
        report[precision] = {}
        for name in (*STAGES, "peak_rss_mb"):
            ours, theirs = (statistics.median(pair[side][name] for pair in rounds) for side in (0, 1))
            report[precision][name] = {"velatura": ours, "pytorch": theirs}
            print(f"{name:16} {ours:12.1f} {theirs:12.1f} {theirs / ours:6.2f}×")
    return report


def compare_pictures(args) -> dict:
    import numpy as np
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        ours, theirs, trace = folder / "ours.png", folder / "theirs.png", folder / "trace.safetensors"
        recipe = ["--steps", args.steps, "--seed", args.seed, "--guidance", args.guidance, "--sampler", "pndm"]
        summary = peers.velatura(
            args, "generate", "--precision", "f32", *recipe, "-o", ours, "--trace", trace, args.prompt
        )
        peer = peers.worker(__file__, "picture", args, HANDED_ON, trace=trace, out=theirs)
        pixels = [np.asarray(Image.open(file)).astype(int) for file in (ours, theirs)]
    difference = np.abs(pixels[0] - pixels[1])
    print(f"\nthe picture in f32, {args.steps} steps: largest difference {difference.max()}/255, "
          f"mean {difference.mean():.4f}/255, contrast {pixels[1].std():.1f}/255, "
          f"latents {peer['latents_relative']:.2e} relative")
    print(f"peak memory: velatura {summary['peak_memory_mb']:.0f} MB, pytorch {peer['peak_rss_mb']:.0f} MB")
    return {"largest": int(difference.max()), "mean": float(difference.mean()), "velatura": summary, "pytorch": peer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers.add_common_arguments(parser)
    parser.add_argument("--precisions", default="f32,bf16")
    parser.add_argument("--steps", type=int, default=4, help="of the compared picture")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--prompt", default="a red car on a beach at sunset")
    parser.add_argument("--worker", choices=("bench", "picture"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work = {"bench": pytorch_bench, "picture": pytorch_picture}[args.worker]
        print(json.dumps(work(args)))
        return
    report = {"times": compare_times(args), "picture": compare_pictures(args)}
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
