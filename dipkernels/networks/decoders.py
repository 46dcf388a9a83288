"""Decoders: a coarse code, upsampled step by step."""

from dataclasses import replace

from torch import nn

from dipkernels.base.checks import checked
from dipkernels.networks.generators import PHANTOM, PUBLISHED
from dipkernels.networks.layers import (
    CentreCrop,
    Generator,
    Style,
    bounded_conv,
    require_choice,
    require_padded,
    require_sizes,
)
from dipkernels.networks.registry import CONVOLUTIONAL, Options, Variant, family, register
from dipkernels.networks.resampling import transposed_conv, upsampler
from dipkernels.networks.scaling import scaled_halvings
from dipkernels.priors.codes import Spatial

__all__ = ["Decoder", "LipschitzDecoder", "TransposedDecoder"]

SHI = Style(normalisation="mean-only", activation="leaky-relu-0.01")  # Shi et al. 2022
# In which order a block convolves, doubles (not every block), activates and normalises.
ORDERS = (
    "convolve-upsample-activate-normalise",
    "convolve-upsample-normalise-activate",
    "upsample-convolve-activate-normalise",
    "upsample-convolve-normalise-activate",
)


@checked
class Decoder(Generator):
    """Blocks of convolution, x2 upsampling, activation, normalisation; then a 1x1 convolution.

    There is one block more than upsamplings: the last one has none if blocks convolve first, the
    first one if they upsample first. With ``kernel_size=1`` this is the deep decoder of Heckel &
    Hand 2019, whose only spatial coupling is the interpolation (and the normalisation); with
    ``kernel_size=3`` a convolutional decoder.

    Parameters
    ----------
    size : tuple of int, ``spatial``
        Of the image; the last grid is cropped to it.
    channels, code_channels : int
        Of the image and of the code; of that by default the width.
    width : int
        Channels of every block.
    upsamplings : int
        Number of x2 steps.
    kernel_size : int
        Of the blocks' convolutions.
    upsampling : str
        One of `dipkernels.networks.resampling.UPSAMPLINGS`.
    order : str
        One of `ORDERS`.
    style : Style, optional
        Normalisation, activation, padding, biases; by default batch, ReLU,
        reflection, none.

    Raises
    ------
    InvalidInputError
        If a size is no whole number or too small, or a name is unknown.

    Notes
    -----
    The code has the grid of `coarse_size`. Parameters: ``(u+1)(k^2 w^2 + 2w) + w c`` for width w, u
    upsamplings, kernels of size k, c channels, as published; the published deep decoder (w = 128,
    u = 5, k = 1, c = 3) has 100,224. The published codes call the second half of the orders
    ``upsample_first=False``.
    """

    def __init__(
        self,
        size: Spatial,
        channels: int = 3,
        *,
        code_channels: int | None = None,
        width: int = 128,
        upsamplings: int = 5,
        kernel_size: int = 1,
        upsampling: str = "bilinear",
        order: str = ORDERS[0],
        style: Style | None = None,
    ) -> None:
        code_channels = width if code_channels is None else code_channels
        style = style or replace(PUBLISHED, dims=len(size))
        require_sizes(1, channels=channels, width=width, code_channels=code_channels)
        require_sizes(0, upsamplings=upsamplings)
        require_choice("order", order, ORDERS)
        first, _, third, _ = order.split("-")
        layers: list[nn.Module] = []
        done = 0
        for block in range(upsamplings + 1):
            convolve = style.conv(width if block else code_channels, width, kernel_size)
            double: list[nn.Module] = []
            if done < upsamplings and (block or first == "convolve"):
                double = [upsampler(upsampling, width, style, level=upsamplings - 1 - done)]
                done += 1
            layers += [convolve, *double] if first == "convolve" else [*double, convolve]
            normal, active = style.norm(width), style.activate()
            layers += [*active, *normal] if third == "activate" else [*normal, *active]
        super().__init__(*layers, CentreCrop(size), style.conv(width, channels, 1))


@checked
class TransposedDecoder(Generator):
    """Transposed convolutions with activation and normalisation; then a 1x1 convolution.

    Parameters
    ----------
    size : tuple of int, ``spatial``
        Of the image; the last grid is cropped to it.
    channels, code_channels : int
        Of the image and of the code; of that by default the width.
    width : int
        Channels of every block.
    upsamplings : int
        Number of blocks, each of which doubles the sides.
    style : Style, optional
        Normalisation, activation, biases; by default batch, ReLU, none.

    Raises
    ------
    InvalidInputError
        If a size is no whole number or too small.

    Notes
    -----
    The code has the grid of `coarse_size`. Parameters as published: ``u (16 w^2 + 2w) + w c``.
    Source: Heckel & Soltanolkotabi 2020, their "deconvolutions".
    """

    def __init__(
        self,
        size: Spatial,
        channels: int = 3,
        *,
        code_channels: int | None = None,
        width: int = 85,
        upsamplings: int = 3,
        style: Style | None = None,
    ) -> None:
        code_channels = width if code_channels is None else code_channels
        style = style or replace(PUBLISHED, dims=len(size))
        require_sizes(1, channels=channels, width=width, code_channels=code_channels)
        require_sizes(0, upsamplings=upsamplings)
        layers: list[nn.Module] = []
        for block in range(upsamplings):
            layers.append(transposed_conv(width if block else code_channels, width, style))
            layers += [*style.activate(), *style.norm(width)]
        last = width if upsamplings else code_channels
        super().__init__(*layers, CentreCrop(size), style.conv(last, channels, 1))


@checked
class LipschitzDecoder(Generator):
    """Double blocks with a bound on every convolution's spectral norm, and x2 upsampling between.

    A double block is twice: 3x3 convolution, normalisation, activation. One is at the coarsest
    grid and one after each upsampling; a 1x1 convolution, which is not bounded, makes the image.

    Parameters
    ----------
    size : tuple of int, ``spatial``
        Of the image; the last grid is cropped to it.
    channels, code_channels : int
        Of the image and of the code.
    width : int
        Channels of every block.
    upsamplings : int
        Number of x2 steps.
    upsampling : str
        One of `dipkernels.networks.resampling.UPSAMPLINGS`.
    lipschitz : float or None
        The bound on the largest singular value of each weight, reshaped to out x (in k^2); None
        for none.
    style : Style, optional
        Normalisation, activation, padding, biases; by default mean-only,
        LeakyReLU(0.01), reflection, yes.

    Raises
    ------
    InvalidInputError
        If a size is no whole number or too small, the bound isn't positive, or a name is unknown.

    Notes
    -----
    The code has the grid of `coarse_size`. Weights start Kaiming-uniform. Source: Shi et al. 2022,
    "On Measuring and Controlling the Spectral Bias of the Deep Image Prior". A transposed
    convolution that upsamples is not bounded, as in their code.
    """

    def __init__(
        self,
        size: Spatial,
        channels: int = 3,
        *,
        code_channels: int = 32,
        width: int = 128,
        upsamplings: int = 5,
        upsampling: str = "bilinear",
        lipschitz: float | None = 1.4,
        style: Style | None = None,
    ) -> None:
        style = style or replace(SHI, dims=len(size))
        require_sizes(1, channels=channels, width=width, code_channels=code_channels)
        require_sizes(0, upsamplings=upsamplings)
        layers: list[nn.Module] = []
        for block in range(upsamplings + 1):
            if block:
                layers.append(upsampler(upsampling, width, style, level=upsamplings - block))
            for i in range(2):
                source = code_channels if block == i == 0 else width
                layers.append(bounded_conv(source, width, 3, lipschitz, style))
                layers += [*style.norm(width), *style.activate()]
        head = style.conv(width, channels, 1)
        nn.init.kaiming_uniform_(head.weight, nonlinearity="relu")
        super().__init__(*layers, CentreCrop(size), head)


def coarse_size(size: Spatial, halvings: int) -> Spatial:
    """Size of the grid that ``halvings`` x2 upsamplings bring to at least ``size``.

    Examples
    --------
    >>> coarse_size((64, 48), 5)
    (2, 2)
    """  # noqa: DOC201
    factor = 2**halvings
    return tuple(-(-side // factor) for side in size)


@register(
    "conv-decoder",
    learning_rate=0.01,
    iterations=1900,
    source="ours, after Heckel & Hand",
    summary="Convolutional decoder: the deep decoder with 3x3 convolutions.",
    preset={"kernel_size": 3},
    **CONVOLUTIONAL,
)
@register(
    "deep-decoder-over",
    learning_rate=0.01,
    iterations=1500,
    source="Heckel & Soltanolkotabi 2020, ImageNet",
    summary="Over-parameterised deep decoder: 512 channels, BatchNorm before the activation.",
    preset={"width": 512, "order": ORDERS[1]},
    **CONVOLUTIONAL,
)
@register(
    "deep-decoder",
    learning_rate=0.01,
    iterations=1900,
    source="Heckel & Hand 2019",
    variants={
        "denoise": Variant(),
        "volume": Variant({"width": 64}),  # ours
        "phantom": Variant({"upsamplings": 4}, iterations=100_000),
        "compress": Variant({"width": 64}, learning_rate=0.005, iterations=20000),
        "inpaint": Variant({"width": 256}, learning_rate=0.0025, iterations=40000),
    },
    **CONVOLUTIONAL,
)
@family(Decoder, PUBLISHED)
def _decoder(size: Spatial, options: Options) -> Spatial:
    """Deep decoder: 1x1 convolutions and bilinear upsampling, no other spatial coupling."""
    require_padded(options["style"].padding, options["kernel_size"])
    options["upsamplings"] = scaled_halvings(options["upsamplings"], size, options["kernel_size"])
    return coarse_size(size, options["upsamplings"])


@register(
    "transposed-decoder",
    learning_rate=0.01,
    iterations=100_000,
    source=PHANTOM,
    variants={"narrow": Variant({"width": 42}), "wide": Variant({"width": 170})},
    **CONVOLUTIONAL,
)
@family(TransposedDecoder, PUBLISHED, without=("padding",))
def _transposed_decoder(size: Spatial, options: Options) -> Spatial:
    """Transposed convolutions, from a code of an eighth of the size."""
    options["upsamplings"] = scaled_halvings(options["upsamplings"], size)
    return coarse_size(size, options["upsamplings"])


@register(
    "lipschitz-decoder",
    learning_rate=0.001,
    iterations=10000,
    source="Shi et al. 2022",
    variants={
        "denoise": Variant(),
        "gaussian": Variant({"lipschitz": 1.8, "upsampling": "gaussian"}),
        "inpaint": Variant({"lipschitz": 1.6}),
        "enhance": Variant({"lipschitz": 1.0}, iterations=100),
    },
    code="phases",
    **CONVOLUTIONAL,
)
@family(LipschitzDecoder, SHI)
def _lipschitz_decoder(size: Spatial, options: Options) -> Spatial:
    """Lipschitz-bounded decoder: every weight's spectral norm, to control the spectral bias."""
    options["upsamplings"] = scaled_halvings(options["upsamplings"], size)
    return coarse_size(size, options["upsamplings"])
