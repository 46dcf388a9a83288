"""Small priors, and parameters away from special values."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from dipkernels import networks
from dipkernels.networks import ImagePrior

# What makes each registered prior quick; whatever is registered next runs with its defaults.
SMALL: dict[str, dict[str, object]] = {
    "skip": {"width": 6, "skip_channels": 2, "code_channels": 4},
    "wide-skip": {"width": 7, "skip_channels": 2, "code_channels": 4},
    "unet": {"feature_scale": 32},
    "resnet": {"width": 5, "blocks": 2},
    "conv": {"width": 6},
    "fixed-conv": {"width": 6},
    "deep-decoder": {"width": 8},
    "deep-decoder-over": {"width": 8},
    "conv-decoder": {"width": 6},
    "transposed-decoder": {"width": 6},
    "lipschitz-decoder": {"width": 5, "code_channels": 4, "lipschitz": 0.7},
    "vit": {"width": 12, "depth": 2, "heads": 3, "mlp_width": 10},
    "swin": {"width": 8, "depths": (1, 1), "heads": (2, 2)},
    "mixer": {"width": 10, "depth": 2, "token_mlp_width": 7, "channel_mlp_width": 11},
    "siren": {"width": 7, "layers": 2},
    "fourier-features": {"width": 8, "layers": 2, "code_channels": 6},
    "self-attention": {"width": 8, "scales": 2, "heads": 2, "kernel_size": 3, "code_channels": 3},
    **{
        name: {"width": 12, "depth": 1, "heads": 3, "mlp_width": 10}
        for name in ("conv1-vit", "vit-conv1", "conv3-vit", "vit-conv3")
    },
}


# With so many operations that to trace their derivatives takes seconds.
DEEP = ("self-attention", "swin")


def with_slow_ones(names: list[str]) -> list[Any]:
    """Give parameters of a test, of which the quick part leaves out the deep networks."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in DEEP else n for n in names]


def make(name: str, size: tuple[int, ...], **settings: object) -> ImagePrior:
    """Make a small prior in float64."""
    options = {**SMALL.get(name, {}), **settings}
    return networks.create(name, image_size=size, **options).to(dtype=torch.float64)


def perturbed(parameters: dict[str, Tensor], seed: int, scale: float = 0.3) -> dict[str, Tensor]:
    """Move all parameters away from special values such as zero biases."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: value + scale * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for key, value in parameters.items()
    }


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Draw normal numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def draw_size(seed: int, dims: int = 2) -> tuple[int, ...]:
    """Draw an odd length, in 2D another width, and in 3D a few pixels of depth."""
    rng = random.Random(seed)
    first = rng.randrange(5, 22, 2)
    plane = (first, rng.choice([side for side in range(4, 22) if side != first]))[:dims]
    return plane if dims < 3 else (rng.randrange(3, 6), *(min(side, 9) for side in plane))
