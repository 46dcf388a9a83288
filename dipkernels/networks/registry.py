"""The built-in priors by name: what `create` makes, and the settings that the literature fits with.

To add one: write its module (without an output non-linearity), then a builder here that returns a
`Recipe`, decorated with `register`. Every test of `tests/test_priors.py` then runs on it.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from dipkernels.errors import InvalidInputError, UnknownNameError
from dipkernels.networks.decoders import Decoder, coarse_size
from dipkernels.networks.layers import TiedConvs
from dipkernels.networks.prior import ImagePrior
from dipkernels.networks.scaling import require_side, scaled_halvings, scaled_length
from dipkernels.networks.skip import SkipNet
from dipkernels.networks.swin import SwinTransformer
from dipkernels.networks.vit import VisionTransformer
from dipkernels.seeds import generator

Size = tuple[int, int]
CODE_SCALE = 0.1  # codes are uniform on [0, 0.1] (Ulyanov et al.'s code, and all after it)


@dataclass(frozen=True)
class Recipe:
    """How to make one prior: a factory of modules and the shape of the code that they take.

    Attributes
    ----------
    factory : callable
        Makes the module, without an output non-linearity.
    code_shape : tuple of int
        Without the batch axis.
    """

    factory: Callable[[], nn.Module]
    code_shape: tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """A registered prior.

    Attributes
    ----------
    name : str
        Its name in the registry.
    builder : callable
        ``builder(size, channels, **options) -> Recipe``.
    learning_rate : float
        Adam's, as published.
    iterations : int
        As published, for a 512x512 image.
    source : str
        Where the settings are from.
    """

    name: str
    builder: Callable[..., Recipe]
    learning_rate: float
    iterations: int
    source: str

    @property
    def summary(self) -> str:
        """What it is, in one line: the first of the builder's docstring."""
        return (inspect.getdoc(self.builder) or "").split("\n")[0]

    @property
    def options(self) -> dict[str, object]:
        """Names and defaults of the options that `create` passes on."""
        signature = inspect.signature(self.builder)
        return {k: p.default for k, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}


_ENTRIES: dict[str, Entry] = {}


def register(
    name: str, *, learning_rate: float, iterations: int, source: str
) -> Callable[[Callable[..., Recipe]], Callable[..., Recipe]]:
    """Register a builder of priors under a name.

    Parameters
    ----------
    name : str
        What users will call it.
    learning_rate : float
        Adam's, as published.
    iterations : int
        As published.
    source : str
        Where the settings are from.

    Returns
    -------
    callable
        A decorator for ``builder(size, channels, *, option=default, ...) -> Recipe``.
    """

    def decorator(builder: Callable[..., Recipe]) -> Callable[..., Recipe]:
        _ENTRIES[name] = Entry(name, builder, learning_rate, iterations, source)
        return builder

    return decorator


def names() -> list[str]:
    """List the registered priors.

    Returns
    -------
    list of str
        In order of registration.

    Examples
    --------
    >>> "skip" in names()
    True
    """
    return list(_ENTRIES)


def entry(name: str) -> Entry:
    """Look up a registered prior.

    Parameters
    ----------
    name : str
        One of `names`.

    Returns
    -------
    Entry
        Its builder and published settings.

    Raises
    ------
    UnknownNameError
        If there is none; the message names the nearest.
    """
    if name not in _ENTRIES:
        close = difflib.get_close_matches(name, _ENTRIES, n=1, cutoff=0.4)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise UnknownNameError(f"unknown prior '{name}': {hint}Known: {', '.join(_ENTRIES)}")
    return _ENTRIES[name]


def create(
    name: str,
    *,
    image_size: int | Size,
    channels: int = 3,
    code_seed: int = 0,
    sigmoid: bool = True,
    **options: object,
) -> ImagePrior:
    """Make a built-in prior with the literature's settings.

    The published settings are for 512x512 images; `dipkernels.networks.scaling` says in one
    place how they fit another size.

    Parameters
    ----------
    name : str
        One of `names`.
    image_size : int or (height, width)
        Of the image; an int means a square.
    channels : int
        Of the image.
    code_seed : int
        Of the fixed code, which is uniform on [0, 0.1].
    sigmoid : bool
        Whether the output goes through a sigmoid, as in all published settings.
    **options
        Of the family, for instance ``width=256``; ``entry(name).options`` lists them.

    Returns
    -------
    ImagePrior
        On the CPU in float32; see `ImagePrior.to`.

    Raises
    ------
    InvalidInputError
        If the image is too small for the network, or an option is unknown or invalid.

    Examples
    --------
    >>> create("deep-decoder", image_size=(64, 48), width=64)
    ImagePrior(deep-decoder, 3x64x48, 25,536 parameters)
    """
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or min(size) < 1 or channels < 1:
        raise InvalidInputError(
            f"image_size must be positive (height, width) and channels positive, got "
            f"{image_size} and {channels}"
        )
    found = entry(name)
    unknown = [key for key in options if key not in found.options]
    if unknown:
        raise InvalidInputError(
            f"'{name}' has no option {', '.join(unknown)}; it has: {', '.join(found.options)}"
        )
    try:
        recipe = found.builder(size, channels, **options)
        code = CODE_SCALE * torch.rand(
            1, *recipe.code_shape, generator=generator("code", code_seed)
        )
        factory = recipe.factory
        if sigmoid:
            factory = lambda: nn.Sequential(recipe.factory(), nn.Sigmoid())  # noqa: E731
        return ImagePrior(factory, code, name=name, learning_rate=found.learning_rate)
    except InvalidInputError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        raise InvalidInputError(f"'{name}' can't be made with these options: {error}") from error


@register("skip", learning_rate=0.01, iterations=3000, source="Ulyanov et al. 2017, F16")
def _skip(
    size: Size,
    channels: int,
    *,
    width: int = 128,
    scales: int = 5,
    skip_channels: int = 4,
    upsampling: str = "bilinear",
    code_channels: int = 32,
) -> Recipe:
    """U-net with narrow skip connections: the original deep image prior."""
    require_side("skip", size, 3)
    scales = scaled_halvings(scales, size)

    def factory() -> nn.Module:
        return SkipNet(
            channels,
            code_channels,
            width=width,
            scales=scales,
            skip_channels=skip_channels,
            upsampling=upsampling,
        )

    return Recipe(factory, (code_channels, *size))


def _decoder(
    name: str,
    size: Size,
    channels: int,
    *,
    width: int,
    upsamplings: int,
    kernel_size: int,
    normalise: bool,
) -> Recipe:
    require_side(name, size, 3)
    upsamplings = scaled_halvings(upsamplings, size)

    def factory() -> nn.Module:
        return Decoder(
            size,
            channels,
            width=width,
            upsamplings=upsamplings,
            kernel_size=kernel_size,
            normalise=normalise,
        )

    return Recipe(factory, (width, *coarse_size(size, upsamplings)))


@register("deep-decoder", learning_rate=0.01, iterations=1900, source="Heckel & Hand 2019")
def _deep_decoder(size: Size, channels: int, *, width: int = 128, upsamplings: int = 5) -> Recipe:
    """Deep decoder: 1x1 convolutions and bilinear upsampling, no other spatial coupling."""
    return _decoder(
        "deep-decoder",
        size,
        channels,
        width=width,
        upsamplings=upsamplings,
        kernel_size=1,
        normalise=True,
    )


@register("conv-decoder", learning_rate=0.01, iterations=1900, source="ours, after Heckel & Hand")
def _conv_decoder(
    size: Size, channels: int, *, width: int = 128, upsamplings: int = 5, normalise: bool = True
) -> Recipe:
    """Convolutional decoder: the deep decoder with 3x3 convolutions."""
    return _decoder(
        "conv-decoder",
        size,
        channels,
        width=width,
        upsamplings=upsamplings,
        kernel_size=3,
        normalise=normalise,
    )


@register("vit", learning_rate=1e-4, iterations=5000, source="the transformer report")
def _vit(
    size: Size,
    channels: int,
    *,
    patch_size: int | None = None,
    width: int = 192,
    depth: int = 5,
    heads: int = 8,
    mlp_width: int = 192,
) -> Recipe:
    """Vision transformer with a linear patch head."""
    patch = scaled_length(32, size) if patch_size is None else patch_size
    require_side("vit", size, patch)

    def factory() -> nn.Module:
        return VisionTransformer(
            size,
            channels,
            patch_size=patch,
            width=width,
            depth=depth,
            heads=heads,
            mlp_width=mlp_width,
        )

    return Recipe(factory, (3, *size))


@register("swin", learning_rate=1e-4, iterations=5000, source="the transformer report")
def _swin(
    size: Size,
    channels: int,
    *,
    patch_size: int | None = None,
    width: int = 192,
    depths: tuple[int, ...] = (2, 2, 6, 2),
    heads: tuple[int, ...] = (4, 4, 4, 4),
    window: int = 7,
) -> Recipe:
    """Swin transformer (shifted windows, merged patches) with a 1x1 head and pixel shuffle."""
    patch = scaled_length(4, size) if patch_size is None else patch_size
    require_side("swin", size, patch)

    def factory() -> nn.Module:
        return SwinTransformer(
            size,
            channels,
            patch_size=patch,
            width=width,
            depths=depths,
            heads=heads,
            window=window,
        )

    return Recipe(factory, (3, *size))


@register("conv3-vit", learning_rate=1e-4, iterations=5000, source="the transformer report")
def _conv3_vit(size: Size, channels: int) -> Recipe:
    """Vision transformer after three tied 3x3 convolutions of its code."""
    require_side("conv3-vit", size, scaled_length(32, size))
    vit = _vit(size, channels)
    return Recipe(lambda: nn.Sequential(TiedConvs(3, 3), vit.factory()), vit.code_shape)


@register("vit-conv3", learning_rate=1e-4, iterations=5000, source="the transformer report")
def _vit_conv3(size: Size, channels: int) -> Recipe:
    """Vision transformer followed by three tied 3x3 convolutions of its image."""
    require_side("vit-conv3", size, scaled_length(32, size))
    vit = _vit(size, channels)
    return Recipe(lambda: nn.Sequential(vit.factory(), TiedConvs(channels, 3)), vit.code_shape)
