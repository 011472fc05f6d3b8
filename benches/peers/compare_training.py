#!/usr/bin/env python3
"""Measures Velatura's training step next to PyTorch's, with models of the same sizes on the same machine in one run.

    cargo build --release
    python benches/peers/compare_training.py                  # on the processor
    python benches/peers/compare_training.py --device cuda    # on NVIDIA's card

Two models: a UNet of 28.6 million parameters (diffusers' UNet2DConditionModel) on 16 latents of 32×32, and an
autoencoder (AutoencoderKL) on 8 pictures of 128×128. A step is forward, backward, clipping by the gradients' norm and
AdamW. PyTorch takes it in f32 and under bf16 autocast, channels last, with the fused AdamW: the peer at its best. The
two programs take turns, `--rounds` times, each in a process of its own, so that a machine that grows slower on the way
slows both. Printed are medians of the step's time, their ratio, and the peak memory of each process (the processor's,
also on a card).
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def unet(torch, device):
    """The model of `velatura bench --train unet`, and its loss."""
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=32, in_channels=4, out_channels=4, block_out_channels=(96, 192, 384), layers_per_block=1,
        norm_num_groups=32, attention_head_dim=8, cross_attention_dim=256,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )
    noisy, noise = torch.randn(2, 16, 4, 32, 32, device=device).unbind()
    noisy = noisy.to(memory_format=torch.channels_last)
    context = torch.randn(16, 77, 256, device=device)
    times = torch.arange(16, device=device) * 1000 // 16

    def loss():
        return torch.nn.functional.mse_loss(model(noisy, times, context).sample.float(), noise)

    return model, loss


def vae(torch, device):
    """The model of `velatura bench --train vae`, and its loss."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(64, 128, 256, 256), layers_per_block=1,
        norm_num_groups=32, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )
    pixels = torch.randn(8, 3, 128, 128, device=device).clamp(-1, 1).to(memory_format=torch.channels_last)
    noise = torch.randn(8, 4, 16, 16, device=device)

    def loss():
        latents = model.encode(pixels).latent_dist
        again = model.decode(latents.mean + latents.std * noise).sample
        return (again.float() - pixels).abs().mean() + 1e-6 / pixels[0].numel() * latents.kl().float().mean()

    return model, loss


def pytorch(args) -> dict:
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model, loss = {"unet": unet, "vae": vae}[args.train](torch, args.device)
    model = model.to(args.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16"):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return value.item()

    step()
    step()
    times = []
    for _ in range(args.repeat):
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1000)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    parameters = sum(p.numel() for p in model.parameters())
    return {"step_ms": statistics.median(times), "peak_rss_mb": peak, "parameters": parameters}


def run_json(command: list) -> dict:
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def compare(args, part: str, precision: str) -> dict:
    shared = ["--train", part, "--precision", precision, "--repeat", args.repeat, "--device", args.device]
    threads = ["--threads", args.threads] if args.threads else []
    rounds = []
    for _ in range(args.rounds):
        ours = run_json([args.velatura, "bench", *shared, *threads, "--json"])
        theirs = run_json([sys.executable, __file__, "--worker", *shared, *threads])
        assert ours["parameters"] == theirs["parameters"], "the models differ"
        rounds.append((ours, theirs))
    print(f"\n{part}, {ours['parameters'] / 1e6:.1f} million parameters, {precision}, {args.device}, medians of {args.rounds} rounds")
    print(f"{'':16} {'velatura':>12} {'pytorch':>12} {'ratio':>7}")
    report = {}
    for name in ("step_ms", "peak_rss_mb"):
        ours, theirs = (statistics.median(pair[side][name] for pair in rounds) for side in (0, 1))
        report[name] = {"velatura": ours, "pytorch": theirs}
        print(f"{name:16} {ours:12.1f} {theirs:12.1f} {theirs / ours:6.2f}×", flush=True)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--velatura", type=pathlib.Path, default=ROOT / "target/release/velatura")
    parser.add_argument("--parts", default="unet,vae")
    parser.add_argument("--precisions", default="bf16,f32")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: as each program chooses")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--train", choices=("unet", "vae"), help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=("f32", "bf16"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(pytorch(args)))
        return
    cases = [(part, precision) for part in args.parts.split(",") for precision in args.precisions.split(",")]
    report = {f"{part}-{precision}": compare(args, part, precision) for part, precision in cases}
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
