"""SkipNet: the U-net with skip connections of Ulyanov et al. 2017."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Layers
from dipkernels.errors import InvalidInputError
from dipkernels.networks.layers import Generator, Style, centre_crop, require_sizes
from dipkernels.networks.registry import CONVOLUTIONAL, Options, Variant, family, register
from dipkernels.networks.resampling import down_block, upsampler
from dipkernels.networks.scaling import scaled_halvings
from dipkernels.priors.codes import Spatial

__all__ = ["SkipNet"]

_T = TypeVar("_T", int, str)


@checked
class SkipNet(Generator):
    """U-net with narrow skip connections, the original deep image prior.

    Per scale: a skip branch (1x1) and a deep branch (a halving convolution, a convolution, the
    next scale, x2 upsampling), concatenated, normalised, then a convolution and a 1x1 one.
    Normalisation and activation after every convolution; a last 1x1 convolution makes the image.

    Parameters
    ----------
    channels, code_channels : int
        Of the image and of the code.
    width : int or sequence of int
        Channels of every scale, down and up; or of each, the finest first.
    scales : int
        Number of halvings.
    skip_channels : int or sequence of int
        Of the skip branches; 0 leaves one out.
    kernel_size_down, kernel_size_up : int
        Of the two convolutions on the way down, and of the one on the way up.
    pointwise : bool
        Whether the way up has a 1x1 convolution, too.
    upsampling : str or sequence of str
        One of `dipkernels.networks.resampling.UPSAMPLINGS`; or one for each scale.
    downsampling : {"stride", "average", "max"}
        How a scale halves.
    style : Style
        Dimensions, normalisation, activation, padding, biases.

    Raises
    ------
    InvalidInputError
        If a size is no whole number or too small, a sequence hasn't one member for each scale, or
        a name is unknown.

    Notes
    -----
    The code has the image's size. The coarsest grid needs 2 pixels a side (3 for kernels of 5).
    Where a size is odd, the deep branch comes back one pixel larger and is cropped, as in the
    reference code. Source: Ulyanov et al. 2017; the settings of its denoising experiment (F16) are
    the defaults: 2,217,831 parameters.
    """

    def __init__(
        self,
        channels: int = 3,
        code_channels: int = 32,
        *,
        width: int | Sequence[int] = 128,
        scales: Layers = 5,
        skip_channels: int | Sequence[int] = 4,
        kernel_size_down: int = 3,
        kernel_size_up: int = 3,
        pointwise: bool = True,
        upsampling: str | Sequence[str] = "bilinear",
        downsampling: str = "stride",
        style: Style | None = None,
    ) -> None:
        style = style or Style()
        require_sizes(1, channels=channels, code_channels=code_channels)
        require_sizes(0, scales=scales)
        widths = per_scale("width", width, scales)
        skips = per_scale("skip_channels", skip_channels, scales)
        modes = per_scale("upsampling", upsampling, scales)
        for wide, skip in zip(widths, skips, strict=True):
            require_sizes(1, width=wide)
            require_sizes(0, skip_channels=skip)
        body: nn.Module = nn.Identity()
        for scale in reversed(range(scales)):
            before = widths[scale - 1] if scale else code_channels
            wide, skip, below = widths[scale], skips[scale], widths[min(scale + 1, scales - 1)]
            upsample = upsampler(modes[scale], below, style, level=scale)
            across = style.block(before, skip, 1) if skip else None
            down = nn.Sequential(
                down_block(before, wide, kernel_size_down, downsampling, style),
                style.block(wide, wide, kernel_size_down),
            )
            merge = nn.Sequential(
                *style.norm(below + skip), style.block(below + skip, wide, kernel_size_up)
            )
            if pointwise:
                merge.append(style.block(wide, wide, 1))
            body = Scale(across, down, body, upsample, merge)
        head = style.conv(widths[0] if scales else code_channels, channels, 1)
        super().__init__(body=body, head=head)


class Scale(nn.Module):
    """One scale of a U-net, around the next coarser one."""

    def __init__(
        self,
        skip: nn.Module | None,
        down: nn.Module,
        inner: nn.Module,
        upsample: nn.Module,
        merge: nn.Module,
    ) -> None:
        super().__init__()
        self.skip, self.down, self.inner = skip, down, inner
        self.upsample, self.merge = upsample, merge

    def forward(self, x: Tensor) -> Tensor:
        """Apply."""
        deep = centre_crop(self.upsample(self.inner(self.down(x))), tuple(x.shape[2:]))
        both = deep if self.skip is None else torch.cat([self.skip(x), deep], dim=1)
        merged: Tensor = self.merge(both)
        return merged


def per_scale(name: str, value: _T | Sequence[_T], scales: int) -> tuple[_T, ...]:
    """Spread an option over the scales."""
    if isinstance(value, int | str):
        return (value,) * scales
    if len(value) != scales:
        raise InvalidInputError(
            f"{name} has {len(value)} members, but the network {scales} scales: give one for each, "
            "the finest first, or a single one for all"
        )
    return tuple(value)


VARIANTS = {
    "denoise": Variant(),
    "jpeg": Variant(
        {"width": (8, 16, 32, 64, 128), "skip_channels": (0, 0, 0, 4, 4), "code_channels": 3},
        iterations=2400,
    ),
    "volume": Variant({"width": 32, "scales": 4}, iterations=2000),  # ours, for a depth of pixels
    "inpaint-vase": Variant(
        {"skip_channels": 0, "upsampling": "nearest"}, iterations=5001, code="meshgrid"
    ),
    "inpaint-kate": Variant({"skip_channels": 128, "upsampling": "nearest"}, iterations=6001),
    "library": Variant(
        {
            "width": (16, 32, 64, 128, 128, 128),
            "scales": 6,
            "skip_channels": 0,
            "kernel_size_down": 5,
            "pointwise": False,
            "upsampling": "nearest",
            "code_channels": 1,
        },
        iterations=3001,
    ),
    "super-resolution": Variant(iterations=2000),
    "flash": Variant(
        {"upsampling": ("nearest", "nearest", "bilinear", "bilinear", "bilinear")},
        learning_rate=0.1,
        iterations=601,
        code="image",
    ),
    "restore-barbara": Variant(learning_rate=0.001, iterations=11000),
    "restore-kate": Variant(
        {"width": (16, 32, 64, 128, 128), "skip_channels": 0, "downsampling": "average"},
        iterations=1000,
    ),
    "report-denoise": Variant({"code_channels": 3}, learning_rate=1e-4, iterations=5000),
    "report-inpaint": Variant(
        {"skip_channels": 128, "upsampling": "nearest", "code_channels": 3},
        learning_rate=1e-4,
        iterations=7000,
    ),
}


@register(
    "wide-skip",
    learning_rate=0.01,
    iterations=3000,
    source="Cheng et al. 2019, samples of the prior (one channel); rate as F16",
    summary="U-net with two scales of 1024 channels, nearly a Gaussian process; no sigmoid.",
    preset={"width": 1024, "scales": 2},
    output="none",
    **CONVOLUTIONAL,
)
@register(
    "skip",
    learning_rate=0.01,
    iterations=3000,
    source="Ulyanov et al. 2017, F16",
    variants=VARIANTS,
    **CONVOLUTIONAL,
)
@family(SkipNet, Style())
def _skip(size: Spatial, options: Options) -> Spatial:
    """U-net with narrow skip connections: the original deep image prior."""
    kernel_size = max(options["kernel_size_down"], options["kernel_size_up"])
    scales = scaled_halvings(options["scales"], size, kernel_size)
    for name in ("width", "skip_channels", "upsampling"):  # a small image loses the coarsest
        options[name] = per_scale(name, options[name], options["scales"])[:scales]
    options["scales"] = scales
    return size
