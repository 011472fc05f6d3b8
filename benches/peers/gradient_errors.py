#!/usr/bin/env python3
"""How far PyTorch's gradients under bf16 autocast are from those in f32: what ours in bf16 are measured by.

    python benches/peers/gradient_errors.py

For the two models of `compare_training.py` and for the small UNet of `crates/train/tests/precision.rs`, with PyTorch's
initial weights and random inputs, it prints ‖bf16 − f32‖ / ‖f32‖ over all parameters together, and the median over the
parameters one by one. The small one's are means over eight seeds, which differ by a tenth.
"""

import statistics

import torch
from compare_training import unet, vae
from diffusers import UNet2DConditionModel


def small(torch):
    """The model of `crates/train/tests/precision.rs`."""
    model = UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(64, 128), layers_per_block=1,
        norm_num_groups=32, attention_head_dim=8, cross_attention_dim=32,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    noisy, noise = torch.randn(2, 8, 4, 16, 16).unbind()
    context, times = torch.randn(8, 9, 32), torch.arange(100, 900, 100)

    def loss():
        return torch.nn.functional.mse_loss(model(noisy, times, context).sample.float(), noise)

    return model, loss


def gradients(model, loss, bf16: bool) -> list:
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        value = loss()
    value.backward()
    return [p.grad.double() for p in model.parameters() if p.grad is not None]


def main() -> None:
    for name, make, seeds in (("small", small, 8), ("unet", unet, 1), ("vae", vae, 1)):
        whole, each = [], []
        for seed in range(1, seeds + 1):
            torch.manual_seed(seed)
            model, loss = make(torch)
            exact, rounded = gradients(model, loss, False), gradients(model, loss, True)
            squares = [((a - b).square().sum(), a.square().sum()) for a, b in zip(exact, rounded)]
            whole.append((sum(e for e, _ in squares) / sum(n for _, n in squares)).sqrt().item())
            each.append(statistics.median((e / n).sqrt().item() for e, n in squares if n > 0))
        spread = f" ({min(whole):.2e} to {max(whole):.2e})" if seeds > 1 else ""
        means = statistics.mean(whole), statistics.mean(each)
        print(f"{name:6} all parameters {means[0]:.2e}{spread}, median of each {means[1]:.2e}", flush=True)


if __name__ == "__main__":
    main()
