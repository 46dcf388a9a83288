"""Registered transformers: published sizes, and the convolutions around them."""

import pytest
import torch
from torch import Tensor, nn

from dipkernels import networks
from helpers.priors import make


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vit", 2_348_352),
        ("swin", 62_791_920),
        # one convolution of 3 to 3 channels, 3x3 and bias, applied three times
        ("conv3-vit", 2_348_352 + 84),
        ("vit-conv3", 2_348_352 + 84),
    ],
)
def test_parameter_counts_at_512_pixels(name: str, count: int) -> None:
    recipe = networks.entry(name).builder((512, 512), 3)
    with torch.device("meta"):  # shapes without numbers
        module = recipe.factory()
    assert sum(p.numel() for p in module.parameters()) == count


def reflect_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    pad = weight.shape[-1] // 2
    return nn.functional.conv2d(nn.functional.pad(x, (pad,) * 4, mode="reflect"), weight, bias)


def test_tied_convolutions_are_the_published_order_of_conv_and_relu() -> None:
    size = (9, 14)
    before, after, plain = (
        make(name, size, output="none")
        if name != "vit"
        else networks.create("vit", image_size=size, output="none").to(dtype=torch.float64)
        for name in ("conv3-vit", "vit-conv3", "vit")
    )

    def three_times(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        for _ in range(2):
            x = reflect_conv(x, weight, bias).clamp(min=0)
        return reflect_conv(x, weight, bias)

    parameters = after.init(0)
    conv = [parameters[f"1.conv.{key}"] for key in ("weight", "bias")]
    inner = {k.removeprefix("0."): v for k, v in parameters.items() if k.startswith("0.")}
    expected = three_times(plain.image(inner)[None], *conv)[0]
    torch.testing.assert_close(after.image(parameters), expected, rtol=1e-12, atol=1e-12)

    parameters = before.init(0)
    conv = [parameters[f"0.conv.{key}"] for key in ("weight", "bias")]
    inner = {k.removeprefix("1."): v for k, v in parameters.items() if k.startswith("1.")}
    plain.code = three_times(before.code, *conv)
    torch.testing.assert_close(before.image(parameters), plain.image(inner), rtol=1e-12, atol=1e-12)
