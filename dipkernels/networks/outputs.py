"""What is put around a network: its output's range, and several images of one network."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.networks.layers import require_choice

OUTPUTS = ("sigmoid", "none", "255")


class ScaledSigmoid(nn.Module):
    """A sigmoid times a constant."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Apply."""
        return self.scale * torch.sigmoid(x)


class ManyImages(nn.Module):
    """One network called with several codes, its images one after the other as channels."""

    def __init__(self, network: nn.Module, images: int) -> None:
        super().__init__()
        self.network = network
        self.images = images

    def forward(
        self, codes: Float[Tensor, "1 code_channels *grid"]
    ) -> Float[Tensor, "1 channels *spatial"]:
        """Make the images."""
        return torch.cat([self.network(code) for code in codes.chunk(self.images, dim=1)], dim=1)


@dataclass(frozen=True)
class Surrounded:
    """A factory of networks, with the output's range and several images around each."""

    factory: Callable[[], nn.Module]
    output: str
    images: int

    def __post_init__(self) -> None:
        require_choice("output", self.output, OUTPUTS)

    def __call__(self) -> nn.Module:
        """Make one."""
        inner = self.factory() if self.images == 1 else ManyImages(self.factory(), self.images)
        if self.output == "none":
            return inner
        last = nn.Sigmoid() if self.output == "sigmoid" else ScaledSigmoid(255.0)
        return nn.Sequential(inner, last)
