"""Builders of the convolutional priors that go down and up, or stay at full resolution."""

from collections.abc import Sequence

from torch import nn

from dipkernels.errors import InvalidInputError
from dipkernels.networks.generators import ConvNet, FixedConvNet
from dipkernels.networks.layers import Style
from dipkernels.networks.registry import Recipe, Spatial, Variant, register
from dipkernels.networks.resnet import ResNet
from dipkernels.networks.scaling import scaled_halvings
from dipkernels.networks.skip import SkipNet, per_scale
from dipkernels.networks.unet import UNet

BOTH = (1, 2)  # signals and images

SKIP_VARIANTS = {
    "denoise": Variant(),
    "jpeg": Variant(
        {"width": (8, 16, 32, 64, 128), "skip_channels": (0, 0, 0, 4, 4), "code_channels": 3},
        iterations=2400,
    ),
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
    dimensions=BOTH,
    least_side=3,
)
@register(
    "skip",
    learning_rate=0.01,
    iterations=3000,
    source="Ulyanov et al. 2017, F16",
    variants=SKIP_VARIANTS,
    dimensions=BOTH,
    least_side=3,
)
def _skip(
    size: Spatial,
    channels: int,
    *,
    width: int | Sequence[int] = 128,
    scales: int = 5,
    skip_channels: int | Sequence[int] = 4,
    upsampling: str | Sequence[str] = "bilinear",
    downsampling: str = "stride",
    kernel_size_down: int = 3,
    kernel_size_up: int = 3,
    pointwise: bool = True,
    normalisation: str = "batch",
    activation: str = "leaky-relu",
    padding: str = "reflect",
    bias: bool = True,
    code_channels: int = 32,
) -> Recipe:
    """U-net with narrow skip connections: the original deep image prior."""
    style = Style(len(size), normalisation, activation, padding, bias)
    kept = scaled_halvings(scales, size, _least(kernel_size_down, kernel_size_up))
    # A small image loses the coarsest scales.
    widths, skips, modes = (
        per_scale("width", width, scales)[:kept],
        per_scale("skip_channels", skip_channels, scales)[:kept],
        per_scale("upsampling", upsampling, scales)[:kept],
    )

    def factory() -> nn.Module:
        return SkipNet(
            channels,
            code_channels,
            width=widths,
            scales=kept,
            skip_channels=skips,
            kernel_size_down=kernel_size_down,
            kernel_size_up=kernel_size_up,
            pointwise=pointwise,
            upsampling=modes,
            downsampling=downsampling,
            style=style,
        )

    return Recipe(factory, (code_channels, *size))


def _least(*kernel_sizes: int) -> int:
    """Pixels a side that reflecting a kernel's border needs, and at least 2."""
    return max(2, max(kernel_sizes) // 2 + 1)


@register(
    "unet",
    learning_rate=0.001,
    iterations=3001,
    source="Ulyanov et al. 2017, library",
    variants={
        "library": Variant(),
        "get-net": Variant(
            {
                "feature_scale": 4,
                "extra_scales": 0,
                "upsampling": "bilinear",
                "normalisation": "batch",
                "padding": "reflect",
                "code_channels": 32,
            }
        ),
    },
    dimensions=BOTH,
    least_side=3,
)
def _unet(
    size: Spatial,
    channels: int,
    *,
    feature_scale: int = 8,
    extra_scales: int = 1,
    upsampling: str = "transposed",
    downsampling: str = "max",
    normalisation: str = "instance",
    activation: str = "relu",
    padding: str = "zero",
    code_channels: int = 1,
) -> Recipe:
    """U-net with wide skip connections and pooling."""
    style = Style(len(size), normalisation, activation, padding)
    if not isinstance(extra_scales, int) or extra_scales < 0:
        raise InvalidInputError(
            f"extra_scales must be a whole number, at least 0, got {extra_scales!r}"
        )
    halvings = scaled_halvings(4 + extra_scales, size)

    def factory() -> nn.Module:
        return UNet(
            channels,
            code_channels,
            feature_scale=feature_scale,
            halvings=halvings,
            upsampling=upsampling,
            downsampling=downsampling,
            style=style,
        )

    return Recipe(factory, (code_channels, *size))


@register(
    "resnet",
    learning_rate=0.001,
    iterations=3001,
    source="Ulyanov et al. 2017, library",
    dimensions=BOTH,
    least_side=3,
)
def _resnet(
    size: Spatial,
    channels: int,
    *,
    blocks: int = 8,
    width: int = 32,
    normalisation: str = "batch",
    activation: str = "leaky-relu",
    padding: str | None = None,
    code_channels: int = 1,
) -> Recipe:
    """Residual blocks at full resolution; padding=None reflects outside, has zeros in blocks."""
    style = Style(len(size), normalisation, activation, padding or "reflect")
    inner = padding or "zero"

    def factory() -> nn.Module:
        return ResNet(
            channels, code_channels, width=width, blocks=blocks, style=style, inner_padding=inner
        )

    return Recipe(factory, (code_channels, *size))


@register(
    "conv",
    learning_rate=0.01,
    iterations=100_000,
    source="Heckel & Soltanolkotabi 2020, phantom (by SGD); Adam's rate ours",
    variants={"narrow": Variant({"width": 42}), "wide": Variant({"width": 170})},
    dimensions=BOTH,
    least_side=3,
)
def _conv(
    size: Spatial,
    channels: int,
    *,
    width: int = 85,
    layers: int = 5,
    kernel_size: int = 3,
    last_kernel_size: int = 1,
    normalisation: str = "batch",
    activation: str = "relu",
    padding: str = "reflect",
    bias: bool = False,
    code_channels: int | None = None,
) -> Recipe:
    """Convolutional network at full resolution: no upsampling; the code is as wide as the rest."""
    style = Style(len(size), normalisation, activation, padding, bias)
    require_padded(padding, max(kernel_size, last_kernel_size))
    code_channels = width if code_channels is None else code_channels

    def factory() -> nn.Module:
        return ConvNet(
            channels,
            code_channels,
            width=width,
            layers=layers,
            kernel_size=kernel_size,
            last_kernel_size=last_kernel_size,
            style=style,
        )

    return Recipe(factory, (code_channels, *size))


def require_padded(padding: str, kernel_size: int) -> None:
    """Check that a padding, where one is chosen, has an effect.

    Parameters
    ----------
    padding : str
        The option; "reflect" is the default of all networks.
    kernel_size : int
        The largest.

    Raises
    ------
    InvalidInputError
        If it has none, all kernels being of size 1.
    """
    if padding != "reflect" and kernel_size == 1:
        raise InvalidInputError(
            f"padding={padding!r} has no effect on kernels of size 1: leave it out, or choose a "
            "larger kernel_size"
        )


@register(
    "fixed-conv",
    learning_rate=0.01,
    iterations=100_000,
    source="Heckel & Soltanolkotabi 2020, phantom (by SGD); Adam's rate ours",
    variants={"wide": Variant({"width": 256}), "widest": Variant({"width": 512})},
    dimensions=BOTH,
    least_side=3,
)
def _fixed_conv(
    size: Spatial,
    channels: int,
    *,
    width: int = 128,
    layers: int = 4,
    normalisation: str = "batch",
    activation: str = "relu",
    padding: str = "reflect",
    bias: bool = False,
    code_channels: int | None = None,
) -> Recipe:
    """Network of fixed binomial filters at full resolution, between learned 1x1 convolutions."""
    style = Style(len(size), normalisation, activation, padding, bias)
    code_channels = width if code_channels is None else code_channels

    def factory() -> nn.Module:
        return FixedConvNet(channels, code_channels, width=width, layers=layers, style=style)

    return Recipe(factory, (code_channels, *size))
