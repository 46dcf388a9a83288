"""What is put around a network: its output's range, and several images of one network."""

from collections.abc import Callable

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


def surrounded(
    factory: Callable[[], nn.Module], *, output: str, images: int
) -> Callable[[], nn.Module]:
    """Put the output's range and several images around a network."""
    require_choice("output", output, OUTPUTS)

    def network() -> nn.Module:
        inner = factory() if images == 1 else ManyImages(factory(), images)
        if output == "none":
            return inner
        return nn.Sequential(inner, nn.Sigmoid() if output == "sigmoid" else ScaledSigmoid(255.0))

    return network
