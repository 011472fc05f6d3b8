"""The UNet and the VAE's decoder as OpenVINO models (IR), made once and kept in a folder.

Shapes are fixed, which is OpenVINO's fastest case. Weights are stored as f16, which is what the checkpoint has, so
that nothing is lost. int8 is NNCF's post-training quantisation of weights and activations, with the settings that
OpenVINO's own Stable Diffusion examples have: the transformer scheme (SmoothQuant, symmetric weights, asymmetric
activations) without bias correction.
"""

import pathlib

import peers

# Calibration needs the range of the activations. These inputs are standard normal, as those that are measured.
CALIBRATION_SAMPLES = 4


def path(folder: pathlib.Path, part: str, precision: str, width: int, height: int) -> pathlib.Path:
    suffix = "-int8" if precision == "int8" else ""
    return folder / f"{part}-{width}x{height}{suffix}.xml"


def save(model, out: pathlib.Path) -> None:
    """Two files, which appear under their names when both are whole."""
    import openvino as ov

    partial = out.with_name(f"partial-{out.name}")
    ov.save_model(model, partial, compress_to_fp16=True)
    for suffix in (".bin", ".xml"):
        partial.with_suffix(suffix).rename(out.with_suffix(suffix))


def example(part: str, width: int, height: int, context_width: int, seed: int) -> dict:
    """Inputs of the right shapes: a guided batch of two for the UNet, one latent for the decoder."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(1, 4, height // 8, width // 8, generator=generator)
    if part == "vae":
        return {"z": latent / 0.18215}
    return {
        "sample": latent.repeat(2, 1, 1, 1),
        "timestep": torch.full((2,), float(torch.randint(1000, (1,), generator=generator))),
        "encoder_hidden_states": torch.randn(2, 77, context_width, generator=generator),
    }


def convert(model: pathlib.Path, part: str, width: int, height: int, out: pathlib.Path) -> None:
    import openvino as ov
    import torch

    class Unet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unet = peers.load_unet(model, torch.float32)

        def forward(self, sample, timestep, encoder_hidden_states):
            return self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]

    class Decoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vae = peers.load_vae(model, torch.float32)

        def forward(self, z):
            return self.vae.decode(z, return_dict=False)[0]

    module = Unet() if part == "unet" else Decoder()
    context_width = module.unet.config.cross_attention_dim if part == "unet" else 0
    inputs = example(part, width, height, context_width, seed=0)
    shapes = [(name, ov.PartialShape(list(x.shape))) for name, x in inputs.items()]
    with torch.inference_mode():
        converted = ov.convert_model(module, example_input=inputs, input=shapes)
    save(converted, out)


def quantise(source: pathlib.Path, width: int, height: int, out: pathlib.Path) -> None:
    import nncf
    import openvino as ov

    model = ov.Core().read_model(source)
    context_width = model.input("encoder_hidden_states").shape[2]
    samples = [
        {name: x.numpy() for name, x in example("unet", width, height, context_width, seed).items()}
        for seed in range(1, CALIBRATION_SAMPLES + 1)
    ]
    quantised = nncf.quantize(
        model,
        nncf.Dataset(samples),
        subset_size=CALIBRATION_SAMPLES,
        model_type=nncf.ModelType.TRANSFORMER,
        advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
    )
    save(quantised, out)
