"""Registered transformers: published sizes, and the convolutions around them."""

import pytest
import torch

from dipkernels import networks


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
