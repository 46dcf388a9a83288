"""Masks for inpainting: True where a pixel is known. Combine several with ``&``."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Share
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.images.axes import AXES, SIZES

Length = int | float  # pixels, or a fraction of the side


@checked
def bernoulli_mask(
    size: Sequence[int], *, known: Share = 0.5, seed: int = 0
) -> Bool[Tensor, "*spatial"]:
    """Draw a mask that keeps each pixel with a given probability, independently.

    Parameters
    ----------
    size : (length,), (height, width) or (depth, height, width)
        Of the image.
    known : float
        Probability of keeping a pixel, strictly between 0 and 1.
    seed : int
        Of the draw.

    Returns
    -------
    Tensor of bool, shape ``size``
        True where the pixel is known.
    """
    size = _checked_size(size)
    return torch.rand(size, generator=generator("mask", seed)) < known


@checked
def region_mask(
    size: Sequence[int],
    *,
    hole: Length | Sequence[Length] = 0.25,
    centre: Length | Sequence[Length] = 0.5,
    shape: str = "rectangle",
) -> Bool[Tensor, "*spatial"]:
    """Make a mask with one hole, a rectangle or an ellipse along the axes.

    Parameters
    ----------
    size : (length,), (height, width) or (depth, height, width)
        Of the image.
    hole : int, float or one per axis
        Extent of the hole: an int in pixels, a float as a fraction of the image's side (then
        rounded to whole pixels).
    centre : int, float or one per axis
        Its middle, likewise. The hole starts at the pixel nearest to where that puts it.
    shape : str
        ``"rectangle"`` or ``"ellipse"``: the pixels whose centres lie in it. In 1D both are an
        interval, in 3D a cuboid and an ellipsoid.

    Returns
    -------
    Tensor of bool, shape ``size``
        False in the hole.

    Raises
    ------
    InvalidInputError
        If the hole isn't wholly inside the image, is empty or is all of it, or the shape is
        unknown.

    Examples
    --------
    >>> region_mask((4, 6), hole=(2, 0.5)).int().tolist()[1]
    [1, 1, 0, 0, 0, 1]
    """
    size = _checked_size(size)
    if shape not in ("rectangle", "ellipse"):
        raise InvalidInputError(f"a hole is a 'rectangle' or an 'ellipse', got '{shape}'")
    distances = []  # of each pixel's centre from the hole's, in half extents, per axis
    known = torch.ones(size, dtype=torch.bool)
    box = []
    for side, extent, middle in zip(
        size, _per_axis(hole, size, "hole"), _per_axis(centre, size, "centre"), strict=True
    ):
        start, length = _interval(_in_pixels(extent, side), _in_pixels(middle, side), side)
        box.append(slice(start, start + length))
        distances.append((torch.arange(length) + 0.5 - length / 2) / (length / 2))
    if shape == "ellipse":
        grids = torch.meshgrid(*distances, indexing="ij")
        known[tuple(box)] = torch.stack(grids).square().sum(dim=0) > 1
    else:
        known[tuple(box)] = False
    if not known.any() or known.all():
        raise InvalidInputError(f"the hole {hole} covers all or nothing of an image of size {size}")
    return known


@checked
def text_mask(
    size: Sequence[int], *, text: str | None = None, font_size: int = 16, seed: int = 0
) -> Bool[Tensor, "height width"]:
    """Make a mask with lines of printed text over the whole image, which hide what they cover.

    Parameters
    ----------
    size : (height, width)
        Of the image.
    text : str, optional
        Repeated until the image is full; by default words of random letters.
    font_size : int
        In pixels; lines are that far apart from each other. The font is the one that Pillow
        carries.
    seed : int
        Of the random words, and of where in ``text`` each line starts.

    Returns
    -------
    Tensor of bool, shape (height, width)
        False under the ink (where it covers at least half of the pixel). ``(~mask).float().mean()``
        is the fraction that is hidden.

    Raises
    ------
    InvalidInputError
        If the size isn't that of a 2D image, the font doesn't fit into it, or the text leaves no
        ink.

    Notes
    -----
    The same seed gives the same mask with one version of Pillow and its FreeType.
    """
    size = _checked_size(size)
    if len(size) != 2:
        raise InvalidInputError(
            f"text covers images of two dimensions, (height, width), got a size of {size}"
        )
    if not 4 <= font_size <= size[0]:
        raise InvalidInputError(
            f"font_size must be an integer from 4 to the image's height, {size[0]} pixels, got "
            f"{font_size}"
        )
    if text is not None and not text.strip():
        raise InvalidInputError("the text is empty; leave it out for random words")
    draws = generator("text", seed)
    canvas = Image.new("L", (size[1], size[0]), 255)
    font = ImageFont.load_default(size=font_size)
    pen = ImageDraw.Draw(canvas)
    for top in range(0, size[0] - font_size + 1, 2 * font_size):
        line = " ".join(text.split()) if text else _random_words(draws)
        start = int(torch.randint(len(line), (), generator=draws))
        line = f"{line[start:]} {line[:start]} "
        repeats = math.ceil(size[1] / max(pen.textlength(line, font=font), 1))
        pen.text((0, top), line * repeats, fill=0, font=font)
    known = torch.from_numpy(np.asarray(canvas) > 127)
    if known.all():
        raise InvalidInputError(f"the text {text!r} leaves no ink at font size {font_size}")
    return known


@checked
def bayer_mask(size: Sequence[int], *, pattern: str = "RGGB") -> Bool[Tensor, "3 height width"]:
    """Make the mask of a camera's mosaic: each pixel measures one of three colours.

    Parameters
    ----------
    size : (height, width)
        Of the image.
    pattern : str
        Colours of the four pixels of a tile: both of the upper row, then of the lower one.

    Returns
    -------
    Tensor of bool, shape (3, height, width)
        True where a colour is measured. For `inpaint`, or `as_operator`.

    Raises
    ------
    InvalidInputError
        If the pattern isn't four letters of R, G and B, each of them at least once.

    Examples
    --------
    >>> bayer_mask((2, 4)).int()[0]
    tensor([[1, 0, 1, 0],
            [0, 0, 0, 0]], dtype=torch.int32)
    """
    size = _checked_size(size)
    if len(pattern) != 4 or set(pattern) != set("RGB") or len(size) != 2:
        raise InvalidInputError(
            "a mosaic of an image (height, width) has a pattern of four letters, each of R, G and B"
            f" at least once, such as RGGB, got '{pattern}' of size {size}"
        )
    found = torch.zeros(3, *size, dtype=torch.bool)
    for number, colour in enumerate(pattern):
        found["RGB".index(colour), number // 2 :: 2, number % 2 :: 2] = True
    return found


def _interval(extent: float, middle: float, side: int) -> tuple[int, int]:
    if math.isfinite(extent) and math.isfinite(middle):
        length = math.floor(extent + 0.5)
        start = math.floor(middle - length / 2 + 0.5)
        if length >= 1 and start >= 0 and start + length <= side:
            return start, length
    raise InvalidInputError(
        f"a hole of {extent:g} pixels about {middle:g} doesn't lie in a side of {side} pixels: an "
        "int means pixels, a float a fraction of the side"
    )


def _random_words(draws: torch.Generator, count: int = 12) -> str:
    lengths = torch.randint(2, 10, (count,), generator=draws).tolist()
    letters = torch.randint(26, (sum(lengths),), generator=draws).tolist()
    characters = iter(chr(ord("a") + letter) for letter in letters)
    return " ".join("".join(next(characters) for _ in range(length)) for length in lengths)


def _checked_size(size: Sequence[int]) -> tuple[int, ...]:
    if len(size) not in AXES or min(size) < 1:
        raise InvalidInputError(f"a mask's size is {SIZES}, all positive, got {tuple(size)}")
    return tuple(size)


def _per_axis(value: Length | Sequence[Length], size: Sequence[int], what: str) -> list[Length]:
    values = list(value) if isinstance(value, Sequence) else [value] * len(size)
    if len(values) != len(size):
        raise InvalidInputError(f"{what} has {len(values)} numbers for an image of {len(size)}D")
    return values


def _in_pixels(length: Length, side: int) -> float:
    return float(length) if isinstance(length, int | np.integer) else length * side
