"""The built-in priors by name: what `create` makes, and the settings that the literature fits with.

To add one: write a file with its module (without an output non-linearity) and a builder that
returns a `Recipe`, decorated with `register`, and name the file in `dipkernels.networks`. `family`
makes the builder of a module whose options need only be fitted to the image's size. Every test of
`tests/networks/test_registry.py` then runs on it.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dipkernels.base.checks import as_annotated, checked
from dipkernels.base.memory import require_free
from dipkernels.base.words import meant
from dipkernels.errors import InvalidInputError, MemoryLimitError, UnknownNameError
from dipkernels.networks.layers import Style
from dipkernels.networks.outputs import Surrounded
from dipkernels.networks.scaling import require_side
from dipkernels.priors import codes
from dipkernels.priors.codes import Spatial
from dipkernels.priors.initialisation import DEFAULT, Initialisation
from dipkernels.priors.prior import ImagePrior
from dipkernels.priors.purity import unmoved_random_state

__all__ = ["Entry", "Variant", "create", "entry", "names"]

LARGE = 1000  # numbers of options beyond which memory is asked for

CONVOLUTIONAL: dict[str, Any] = {
    "dimensions": (1, 2, 3),
    "least_side": 3,
}  # signals, images, volumes


@dataclass(frozen=True)
class Recipe:
    """How to make one prior: a factory of modules and the shape of the code that they take."""

    factory: Callable[[], nn.Module]
    code_shape: tuple[int, ...]


Builder = Callable[..., Recipe]
Options = dict[str, Any]


@checked
@dataclass(frozen=True)
class Variant:
    """Other published settings of a registered prior; what is None is as in its entry.

    Attributes
    ----------
    options : mapping
        Of the builder.
    learning_rate, iterations, code, output
        As of `Entry`; the code ``"image"`` stands for an image that the user must give.
    """

    options: Mapping[str, object] = field(default_factory=dict)
    learning_rate: float | None = None
    iterations: int | None = None
    code: str | None = None
    output: str | None = None


@checked
@dataclass(frozen=True)
class Entry:
    """A registered prior.

    Attributes
    ----------
    name, summary : str
        Its name in the registry, and what it is, in one line.
    builder : callable
        ``builder(size, channels, **options) -> Recipe``.
    learning_rate, iterations : float, int
        Adam's, as published for a 512x512 image.
    source : str
        Where the settings are from.
    preset : mapping
        Options in which it differs from the builder's defaults.
    variants : mapping of str to Variant
        Other published settings, by name.
    code, output : str
        What `create` takes by default.
    dimensions : tuple of int
        Of the images that it can make: 1 (signals), 2, 3 (volumes).
    least_side : int
        Pixels that the shorter side must have.
    """

    name: str
    builder: Builder
    learning_rate: float
    iterations: int
    source: str
    summary: str
    preset: Mapping[str, object] = field(default_factory=dict)
    variants: Mapping[str, Variant] = field(default_factory=dict)
    code: str = "noise"
    output: str = "sigmoid"
    dimensions: tuple[int, ...] = (2,)
    least_side: int = 1

    @property
    def options(self) -> dict[str, object]:
        """Names and defaults of the options that `create` passes on."""
        signature = inspect.signature(self.builder)
        own = {k: p.default for k, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
        return {**own, **self.preset}

    def variant(self, name: str) -> "Entry":
        """Take other published settings.

        Parameters
        ----------
        name : str
            One of `variants`.

        Returns
        -------
        Entry
            With that variant's settings in place of its own.

        Raises
        ------
        UnknownNameError
            If there is none; the message lists them.
        """
        if name not in self.variants:
            known = ", ".join(self.variants) or "none"
            raise UnknownNameError(f"'{self.name}' has no variant '{name}'; it has: {known}")
        found = self.variants[name]
        return replace(
            self,
            preset={**self.preset, **found.options},
            learning_rate=found.learning_rate or self.learning_rate,
            iterations=found.iterations or self.iterations,
            code=found.code or self.code,
            output=found.output or self.output,
        )


_ENTRIES: dict[str, Entry] = {}


def register(name: str, **settings: Any) -> Callable[[Builder], Builder]:
    """Register a builder of priors under a name, with other attributes of its `Entry`."""

    def decorator(builder: Builder) -> Builder:
        summary = (inspect.getdoc(builder) or "").split("\n")[0]
        _ENTRIES[name] = Entry(name, builder, **{"summary": summary, **settings})
        return builder

    return decorator


def family(
    network: Callable[..., nn.Module], style: Style | None = None, without: tuple[str, ...] = ()
) -> Callable[[Callable[..., Spatial]], Builder]:
    """Make a builder of a module by a rule that fits the module's options to an image's size.

    Options are declared once, by the module's constructor; those of a style stand in place of
    ``style``, and some may be left out. The rule gets the size and all options, changes what it
    must, and returns the size of the code. Its own keyword-only parameters are options, too, and
    reach the module only by the rule.
    """  # noqa: DOC201
    module = inspect.signature(network).parameters
    places = [name for name in ("size", "image_size") if name in module]
    unasked = {*places, "channels", "style", "dims", *without}
    styles = {
        name: parameter.replace(default=getattr(style, name))
        for name, parameter in inspect.signature(Style).parameters.items()
        if style is not None and name not in unasked
    }

    def decorator(rule: Callable[..., Spatial]) -> Builder:
        ruled = inspect.signature(rule).parameters.values()
        own = {each.name: each for each in ruled if each.kind is each.KEYWORD_ONLY}
        taken = [
            parameter.replace(kind=parameter.KEYWORD_ONLY)
            for name, parameter in {**module, **styles, **own}.items()
            if name not in unasked
        ]
        taken.sort(key=lambda parameter: parameter.name == "code_channels")  # last

        def builder(size: Spatial, channels: int, **given: Any) -> Recipe:
            options = {each.name: each.default for each in taken} | given
            for_rule = {name: options.pop(name) for name in own}
            if style is not None:
                said = {name: options.pop(name) for name in styles if name in options}
                options["style"] = replace(style, dims=len(size), **said)
            grid = rule(size, options, **for_rule)
            if options["code_channels"] is None:
                options["code_channels"] = options["width"]
            options |= {"channels": channels, **dict.fromkeys(places, size)}
            return Recipe(partial(network, **options), (options["code_channels"], *grid))

        signature = inspect.signature(builder)
        shown = [*list(signature.parameters.values())[:2], *taken]
        builder.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
        builder.__doc__ = rule.__doc__
        return builder

    return decorator


@checked
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


@checked
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
        hint = meant(name, _ENTRIES, cutoff=0.4)
        raise UnknownNameError(f"unknown prior '{name}': {hint}Known: {', '.join(_ENTRIES)}")
    return _ENTRIES[name]


@checked
def create(
    name: str,
    *,
    image_size: int | Spatial,
    channels: int = 3,
    variant: str | None = None,
    code: str | Tensor | None = None,
    code_seed: int = 0,
    output: str | None = None,
    images: int = 1,
    initialisation: Initialisation = DEFAULT,
    **options: object,
) -> ImagePrior:
    """Make a built-in prior with the literature's settings.

    The published settings are for 512x512 images; `dipkernels.networks.scaling` says in one
    place how they fit another size.

    Parameters
    ----------
    name : str
        One of `names`.
    image_size : int or tuple of int
        Of the image; an int means a square. ``(length,)`` is a signal and ``(depth, height,
        width)`` a volume, which only some make: ``entry(name).dimensions`` says which.
    channels : int
        Of the image.
    variant : str, optional
        Other published settings: ``entry(name).variants`` has them. Options that are given, too,
        come before the variant's.
    code : str or Tensor, optional
        ``"noise"``, uniform on [0, 0.1], which most take by default; ``"meshgrid"``, the
        coordinates; ``"fourier"``, random Fourier features of them; ``"phases"``, sine and cosine
        of random phases; or an image ``(channels, *spatial)`` of the size of the network's code.
        With several images, ``(images, channels, *spatial)``.
    code_seed : int
        Of the code, where it is drawn.
    output : {"sigmoid", "none", "255"}, optional
        The image's range: (0, 1), any number, or (0, 255) as 255 times a sigmoid; by default that
        of the published settings, a sigmoid for most.
    images : int
        Several by one network, which is called with as many codes: the prior's image has ``images
        * channels``. Costs as much more time and memory; the parameters are shared.
    initialisation : str or callable
        As of `ImagePrior`.
    **options
        Of the family, for instance ``width=256``; ``entry(name).options`` lists them.

    Returns
    -------
    ImagePrior
        On the CPU in float32; see `ImagePrior.to`.

    Raises
    ------
    UnknownNameError
        If there is no such prior or variant.
    InvalidInputError
        If the image is too small for the network, an option is unknown or invalid, or the network
        can't take the code.
    MemoryLimitError
        If images of that size don't fit into the memory that is free.

    Examples
    --------
    >>> create("deep-decoder", image_size=(64, 48), width=64)
    ImagePrior(deep-decoder, 3x64x48, 25,536 parameters)
    >>> create("skip", image_size=(256,), channels=1, variant="inpaint-vase").code.shape
    torch.Size([1, 1, 256])
    """
    found = entry(name) if variant is None else entry(name).variant(variant)
    size = _checked_size(image_size, channels, images)
    if len(size) not in found.dimensions:
        can = " or ".join(f"{dims}D" for dims in found.dimensions)
        raise InvalidInputError(
            f"'{name}' makes {can} images, got image_size {tuple(size)}: choose another prior"
        )
    require_side(name, size, found.least_side)
    code = found.code if code is None else code
    output = found.output if output is None else output
    if isinstance(code, str) and code == "image":
        raise InvalidInputError(
            f"the variant '{variant}' of '{name}' takes an image for its code: pass code=, a "
            "tensor (channels, *spatial)"
        )
    options = _with_code_channels(found, options, code, len(size))
    try:
        recipe = found.builder(size, channels, **options)
        if min(recipe.code_shape) < 1:
            recipe.factory()  # most networks say themselves which width they can't have
            raise InvalidInputError(
                f"'{name}' would take a code of shape {recipe.code_shape}: widths and "
                "code_channels must be at least 1"
            )
        _require_room(name, recipe, options)
        return ImagePrior(
            Surrounded(recipe.factory, output, images),
            codes.make(code, recipe.code_shape, images, code_seed),
            name=name,
            learning_rate=found.learning_rate,
            initialisation=initialisation,
            check=False,  # the suite of all priors does it
        )
    except (InvalidInputError, MemoryLimitError):
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        raise InvalidInputError(f"'{name}' can't be made with these options: {error}") from error


# Made without numbers first: to draw what no memory holds takes minutes.
def _require_room(name: str, recipe: Recipe, options: Mapping[str, object]) -> None:
    several = [each if isinstance(each, tuple | list) else [each] for each in options.values()]
    if max((n for each in several for n in each if isinstance(n, int)), default=0) <= LARGE:
        return
    with torch.device("meta"), unmoved_random_state():
        module = recipe.factory()
    tensors = [*module.parameters(), *module.buffers()]
    size = sum(each.numel() * each.element_size() for each in tensors)
    require_free(size, f"'{name}' with these options", "choose smaller ones")


def _checked_size(image_size: Any, channels: Any, images: Any) -> Spatial:
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    whole = all(isinstance(number, int) for number in (*size, channels, images))
    if not whole or not 1 <= len(size) <= 3 or min(*size, channels, images) < 1:
        raise InvalidInputError(
            "image_size must be positive, (length,), (height, width) or (depth, height, width), "
            f"channels and images positive, got {image_size}, {channels} and {images}"
        )
    # The image, its gradient, what is measured and the clean one: the least that anything takes.
    shown = "x".join(map(str, size))
    values = channels * images * math.prod(size)
    require_free(16 * values, f"an image of {shown}", "choose a smaller image_size")
    return size


def _with_code_channels(
    found: Entry, given: dict[str, object], code: str | Tensor, dims: int
) -> dict[str, object]:
    """Check the names of the options; set the code's channels where the code decides on them."""
    unknown = [key for key in given if key not in found.options]
    if unknown:
        raise InvalidInputError(
            f"'{found.name}' has no option {', '.join(unknown)}; it has: {', '.join(found.options)}"
        )
    signature = inspect.signature(found.builder)
    checked = {
        k: as_annotated(k, v, signature.parameters[k].annotation, nan=False)
        for k, v in given.items()
    }
    options = {**found.preset, **checked}
    fixed = codes.fixed_channels(code, dims)
    if fixed is None or "code_channels" not in found.options:
        return options
    if "code_channels" in given:
        raise InvalidInputError(
            f"code_channels={given['code_channels']} has no effect: this code has {fixed} "
            "channels by itself; leave it out"
        )
    return {**options, "code_channels": fixed}
