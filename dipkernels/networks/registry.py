"""The built-in priors by name: what `create` makes, and the settings that the literature fits with.

To add one: write its module (without an output non-linearity), then a builder in
`dipkernels.networks.builders` that returns a `Recipe`, decorated with `register`. Every test of
`tests/test_priors.py` then runs on it.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from dipkernels.errors import InvalidInputError, UnknownNameError
from dipkernels.networks.prior import ImagePrior
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
