"""Codes: what a network is called with, drawn once and kept."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dipkernels.base.memory import require_free
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError

Spatial = tuple[int, ...]  # (length,), (height, width) or (depth, height, width)

NOISE_SCALE = 0.1  # noise is uniform on [0, 0.1] (Ulyanov et al.'s code, and all after it)
FOURIER_SCALE = 10.0  # deviation of the frequencies, in cycles per image (Tancik et al. 2020)


def noise(channels: int, size: Spatial, random: torch.Generator) -> Tensor:
    """Draw noise, uniform on [0, 0.1]."""
    return NOISE_SCALE * torch.rand(channels, *size, generator=random)


def meshgrid(size: Spatial) -> Tensor:
    """Make the coordinates of the pixels, from 0 to 1 between the first and the last.

    Examples
    --------
    >>> meshgrid((2, 3))
    tensor([[[0.0000, 0.5000, 1.0000],
             [0.0000, 0.5000, 1.0000]],
    <BLANKLINE>
            [[0.0000, 0.0000, 0.0000],
             [1.0000, 1.0000, 1.0000]]])
    """  # noqa: DOC201
    lines = [torch.linspace(0, 1, side) for side in size]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1])


def fourier(
    channels: int, size: Spatial, random: torch.Generator, *, scale: float = FOURIER_SCALE
) -> Tensor:
    """Make random Fourier features of the pixels' coordinates."""
    coordinates = meshgrid(size)
    frequencies = scale * torch.randn(_half(channels), len(size), generator=random)
    phases = 2 * math.pi * torch.tensordot(frequencies, coordinates, dims=1)
    return torch.cat([phases.cos(), phases.sin()])


def phases(channels: int, size: Spatial, random: torch.Generator) -> Tensor:
    """Draw a phase for each pixel, and take its sine and cosine."""
    angles = 2 * math.pi * torch.rand(_half(channels), *size, generator=random)
    return torch.cat([angles.sin(), angles.cos()])


def _half(channels: int) -> int:
    if channels % 2:
        raise InvalidInputError(
            f"a code of sines and cosines has an even number of channels, got {channels}: choose "
            "another code_channels, or another code where the network has no such option"
        )
    return channels // 2


DRAWN: dict[str, Callable[[int, Spatial, torch.Generator], Tensor]] = {
    "noise": noise,
    "fourier": fourier,
    "phases": phases,
}
KINDS = (*DRAWN, "meshgrid")


def fixed_channels(code: str | Tensor, dims: int) -> int | None:
    """Tell how many channels a code has by itself."""
    if isinstance(code, Tensor):
        if code.dim() not in (dims + 1, dims + 2):
            raise InvalidInputError(
                f"a code must be an image (channels, *spatial) of {dims} dimensions, or several "
                f"(images, channels, *spatial), got shape {tuple(code.shape)}"
            )
        return int(code.shape[-1 - dims])
    if code not in KINDS:
        raise InvalidInputError(
            f"code must be one of {', '.join(KINDS)}, or an image as a tensor; got {code!r}"
        )
    return dims if code == "meshgrid" else None


def make(code: str | Tensor, shape: tuple[int, ...], images: int, seed: int) -> Tensor:
    """Make the codes of a network, one for each of its images."""
    channels, *grid = shape
    dims = len(grid)
    if isinstance(code, Tensor):
        stacked = code if code.dim() == dims + 2 else code[None]
        if tuple(stacked.shape) != (images, *shape):
            wanted = ("" if images == 1 else f"{images} of ") + "x".join(map(str, shape))
            raise InvalidInputError(
                f"the code has shape {tuple(code.shape)}, but this network takes {wanted}: resize "
                "it, choose code_channels, or take a network whose code has the image's size"
            )
        flat = stacked.detach().reshape(1, images * channels, *grid)
        return flat.to("cpu", torch.float32)
    if code == "meshgrid":
        if images > 1:
            raise InvalidInputError(
                "all images of one network would have the same code, a meshgrid, and so be the "
                "same: choose code='noise' or another that is drawn"
            )
        if channels != dims:
            raise InvalidInputError(
                f"a meshgrid has {dims} channels, but this network takes a code of {channels}"
            )
        return meshgrid(tuple(grid))[None]
    shown = "x".join(map(str, shape))
    require_free(4 * images * math.prod(shape), f"a code of {shown}", "choose a smaller image")
    random = generator("code", seed)
    drawn = [DRAWN[code](channels, tuple(grid), random) for _ in range(images)]
    return torch.cat(drawn)[None]
