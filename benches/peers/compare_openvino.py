#!/usr/bin/env python3
"""Measures Velatura next to OpenVINO (and diffusers on PyTorch), with the same weights and inputs, in one run.

    cargo build --release
    python fixtures/make_full_size.py --out /tmp/full-size
    python benches/peers/compare_openvino.py --install                                    # the pinned peers, from PyPI
    python benches/peers/compare_openvino.py --model /tmp/full-size --ir /tmp/openvino --prepare
    python benches/peers/compare_openvino.py --model /tmp/full-size --ir /tmp/openvino

`--prepare` converts the models (OpenVINO IR; int8 by NNCF, which takes minutes and 12 GB of memory) and keeps them in
`--ir`. Then, for each part (the UNet's guided step, the VAE's decoding) and each precision, the programs take turns,
`--rounds` times, each in a process of its own, so that a machine that grows slower on the way slows all. Printed are
medians, their ratios, and how far each result is from PyTorch's in f32 on the same inputs: ‖a − f32‖ / ‖f32‖.

In int8 OpenVINO runs what NNCF has not quantised in bf16; the decoder, which nobody quantises, is its bf16.
A run is made shorter with `--parts`, `--precisions`, `--programs`, `--rounds` and `--repeat`.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import openvino_ir
import peers

PROGRAMS = ("velatura", "openvino", "pytorch")
HANDED_ON = ("width", "height", "repeat", "threads", "ir")
# A part's stage in `velatura bench`, and its inputs there with OpenVINO's names for them.
STAGE = {"unet": "unet_step", "vae": "vae_decode"}
INPUTS = {
    "unet": {"latents": "sample", "timesteps": "timestep", "context": "encoder_hidden_states"},
    "vae": {"z": "z"},
}


def read_inputs(args) -> dict:
    """From a trace of `velatura bench`."""
    from safetensors.torch import load_file

    trace = load_file(args.trace)
    return {theirs: trace[ours] for ours, theirs in INPUTS[args.part].items()}


def relative_error(out, reference) -> float:
    out = out.double()
    return ((out - reference).norm() / reference.norm()).item()


def pytorch_worker(args) -> dict:
    import torch
    from safetensors.torch import save_file

    if args.threads:
        torch.set_num_threads(args.threads)
    dtype = peers.torch_dtype(args.precision)
    # Times stay f32, as in diffusers' pipelines.
    inputs = {name: x if name == "timestep" else x.to(dtype) for name, x in read_inputs(args).items()}
    with torch.inference_mode():
        if args.part == "unet":
            unet = peers.load_unet(args.model, dtype)
            run = lambda: unet(**inputs).sample
        else:
            vae = peers.load_vae(args.model, dtype)
            run = lambda: vae.decode(inputs["z"]).sample
        ms = peers.median_ms(run, args.repeat) if args.repeat else None
        save_file({"out": run().float().contiguous()}, args.out)
    return {"ms": ms, "peak_rss_mb": peers.peak_mb()}


def openvino_worker(args) -> dict:
    import openvino as ov
    import torch
    from safetensors.torch import save_file

    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32" if args.precision == "f32" else "bf16",
    }
    if args.threads:
        config["INFERENCE_NUM_THREADS"] = args.threads
    path = openvino_ir.path(args.ir, args.part, own_precision(args), args.width, args.height)
    request = ov.Core().compile_model(path, "CPU", config).create_infer_request()
    inputs = {name: x.numpy() for name, x in read_inputs(args).items()}
    ms = peers.median_ms(lambda: request.infer(inputs, share_inputs=True), args.repeat)
    save_file({"out": torch.from_numpy(request.get_output_tensor(0).data.copy()).float()}, args.out)
    return {"ms": ms, "peak_rss_mb": peers.peak_mb()}


def own_precision(args) -> str:
    return "bf16" if args.part == "vae" and args.precision == "int8" else args.precision


def prepare_worker(args) -> dict:
    path = openvino_ir.path(args.ir, args.part, args.precision, args.width, args.height)
    if args.precision == "int8":
        plain = openvino_ir.path(args.ir, args.part, "f32", args.width, args.height)
        openvino_ir.quantise(plain, args.width, args.height, path)
    else:
        openvino_ir.convert(args.model, args.part, args.width, args.height, path)
    return {"peak_rss_mb": peers.peak_mb()}


def velatura_worker(args, part: str, precision: str, repeat: int, trace: pathlib.Path) -> dict:
    """Also leaves inputs and result in `trace`."""
    stage = STAGE[part]
    report = peers.velatura(
        args, "bench", "--precision", precision, "--repeat", repeat, "--stages", stage, "--trace", trace
    )
    return {"ms": report[f"{stage}_ms"], "peak_rss_mb": report["peak_rss_mb"]}


def prepare(args) -> None:
    """Makes the IR that is missing, one at a time, each in a process of its own."""
    args.ir.mkdir(parents=True, exist_ok=True)
    for part in args.parts.split(","):
        for precision in ("f32", "int8") if part == "unet" and "int8" in args.precisions else ("f32",):
            path = openvino_ir.path(args.ir, part, precision, args.width, args.height)
            if not path.exists():
                print(f"making {path}", file=sys.stderr)
                peers.worker(__file__, "prepare", args, HANDED_ON, part=part, precision=precision)


def reference(args, part: str, folder: pathlib.Path):
    """The trace that all programs take their inputs from, and PyTorch's f32 result for it."""
    from safetensors.torch import load_file

    trace = folder / f"{part}-inputs.safetensors"
    velatura_worker(args, part, "f32", 1, trace)
    out = folder / f"{part}-reference.safetensors"
    peers.worker(__file__, "reference", args, HANDED_ON, part=part, trace=trace, out=out)
    return trace, load_file(out)["out"].double()


def compare(args, part: str, precision: str, trace: pathlib.Path, expected, folder: pathlib.Path) -> dict:
    from safetensors.torch import load_file

    rounds = {}
    for _ in range(args.rounds):
        for program in args.programs.split(","):
            out = folder / "out.safetensors"
            if program == "velatura":
                result = velatura_worker(args, part, precision, args.repeat, out)
                tensor = load_file(out)[STAGE[part]]
            elif program == "pytorch" and precision == "int8":
                continue
            else:
                extra = {"part": part, "precision": precision, "trace": trace, "out": out}
                result = peers.worker(__file__, program, args, HANDED_ON, **extra)
                tensor = load_file(out)["out"]
            result["error"] = relative_error(tensor, expected)
            rounds.setdefault(program, []).append(result)
    medians = {
        program: {name: statistics.median(result[name] for result in results) for name in results[0]}
        for program, results in rounds.items()
    }
    ours = medians.get("velatura")
    for program, row in medians.items():
        ratio = f"{ours['ms'] / row['ms']:8.2f}" if ours and program != "velatura" else " " * 8
        print(f"{part:5} {precision:5} {program:9} {row['ms']:9.0f} ms {ratio} {row['error']:10.2e} "
              f"{row['peak_rss_mb']:8.0f} MB", flush=True)
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers.add_common_arguments(parser)
    parser.add_argument("--ir", type=pathlib.Path, default=pathlib.Path("openvino-ir.tmp"), help="folder of the IR")
    parser.add_argument("--parts", default="unet,vae")
    parser.add_argument("--precisions", default="f32,bf16,int8")
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--install", action="store_true", help="install the pinned peers, and nothing else")
    parser.add_argument("--prepare", action="store_true", help="make the IR that is missing, and nothing else")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    workers = {
        "openvino": openvino_worker, "pytorch": pytorch_worker, "reference": pytorch_worker, "prepare": prepare_worker
    }
    parser.add_argument("--worker", choices=workers, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        if args.worker == "reference":
            args.precision, args.repeat = "f32", 0
        print(json.dumps(workers[args.worker](args)))
        return
    if args.install:
        requirements = pathlib.Path(__file__).parent / "requirements.txt"
        subprocess.run([sys.executable, "-m", "pip", "install", "-r", requirements], check=True)
        return
    if not args.model:
        parser.error("--model is missing")
    prepare(args)
    if args.prepare:
        return
    report = {}
    print(f"{args.width}×{args.height}, medians of {args.rounds} rounds; ratio: velatura / program")
    print(f"{'':21} {'time':>12} {'ratio':>8} {'error':>10} {'peak':>11}")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for part in args.parts.split(","):
            trace, expected = reference(args, part, folder)
            for precision in args.precisions.split(","):
                report[f"{part} {precision}"] = compare(args, part, precision, trace, expected, folder)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
