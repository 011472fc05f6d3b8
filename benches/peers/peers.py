"""What the comparisons share: running Velatura and workers of their own, loading diffusers' models, medians."""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def add_common_arguments(parser) -> None:
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--velatura", type=pathlib.Path, default=ROOT / "target/release/velatura")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: as each program chooses")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    parser.add_argument("--trace", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path, help=argparse.SUPPRESS)


def run(command: list) -> str:
    return subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True).stdout


def velatura(args, command: str, *rest) -> dict:
    threads = ["--threads", args.threads] if args.threads else []
    size = ["--width", args.width, "--height", args.height]
    return json.loads(run([args.velatura, command, "--model", args.model, "--json", *size, *threads, *rest]))


def worker(script: str, mode: str, args, names: tuple, **extra) -> dict:
    """Runs `script` in a process of its own, with the arguments `names` handed on. Its result is the last line."""
    command = [sys.executable, script, "--worker", mode, "--model", args.model]
    for name in names:
        command += [f"--{name}", getattr(args, name)]
    for name, value in extra.items():
        command += [f"--{name}", value]
    return json.loads(run(command).splitlines()[-1])


def torch_dtype(precision: str):
    import torch

    return {"f32": torch.float32, "bf16": torch.bfloat16}[precision]


def load_unet(model: pathlib.Path, dtype):
    from diffusers import UNet2DConditionModel

    return channels_last(UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=dtype).eval())


def load_vae(model: pathlib.Path, dtype):
    from diffusers import AutoencoderKL

    return channels_last(AutoencoderKL.from_pretrained(model / "vae", torch_dtype=dtype).eval())


def channels_last(model):
    """PyTorch's faster layout for convolutions on a CPU: the peer is measured at its best."""
    import torch

    return model.to(memory_format=torch.channels_last)


def median_ms(function, repeat: int) -> float:
    """The first call fills caches and buffers, and is not counted."""
    function()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
