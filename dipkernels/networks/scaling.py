"""The one rule by which published settings, made for 512 pixels a side, fit another size.

1. A length in pixels (a patch's side) shrinks or grows in proportion to the image's shorter side,
   to the nearest power of two, but not below 4, the smallest patch that the literature uses:
   ``patch 32 at 512 -> 4 at 64``. So the number of patches stays as published, as far as it can.
2. A number of halvings (scales of a U-net, upsamplings of a decoder) stays as published, unless
   the coarsest grid would have fewer than 2 pixels a side (3 where 5x5 kernels reflect it); then
   it is lowered until it has them. Where a network's scales differ, the finest stay.
3. Nothing else changes: widths, depths, heads, kernels, codes.
"""

import math

from dipkernels.errors import InvalidInputError
from dipkernels.priors.codes import Spatial

PUBLISHED_SIDE = 512
LEAST_LENGTH = 4


def scaled_length(published: int, size: Spatial) -> int:
    """Scale a length in pixels (rule 1).

    Examples
    --------
    >>> scaled_length(32, (64, 64)), scaled_length(4, (64, 96)), scaled_length(32, (300, 512))
    (4, 4, 16)
    """  # noqa: DOC201
    exponent = math.log2(published * min(size) / PUBLISHED_SIDE)
    return max(LEAST_LENGTH, int(2 ** math.floor(exponent + 0.5)))


def scaled_halvings(published: int, size: Spatial, kernel_size: int = 3) -> int:
    """Limit a number of halvings (rule 2), for kernels of at most that size.

    Examples
    --------
    >>> scaled_halvings(5, (64, 64)), scaled_halvings(5, (33, 40)), scaled_halvings(5, (16, 90))
    (5, 5, 3)
    """  # noqa: DOC201, DOC501
    if not isinstance(published, int) or published < 0:
        raise InvalidInputError(
            f"the number of halvings must be a whole number, at least 0, got {published}"
        )
    halvings, side, least = 0, min(size), max(2, kernel_size // 2 + 1)
    while halvings < published and (side + 1) // 2 >= least:
        side = (side + 1) // 2
        halvings += 1
    if published and not halvings and (min(size) + 1) // 2 >= 3:
        raise InvalidInputError(
            f"kernels of {kernel_size} pixels don't fit an image of {'x'.join(map(str, size))}, "
            "which is to be halved: choose smaller kernels"
        )
    return halvings


def require_side(name: str, size: Spatial, least: int) -> None:
    """Check that an image is large enough for a network."""
    if min(size) < least:
        raise InvalidInputError(
            f"an image of {'x'.join(map(str, size))} pixels is too small for '{name}', "
            f"which needs at least {least} a side: use a larger --size or another prior"
        )


def require_plane(name: str, size: Spatial) -> None:
    """Check that a size is a height and a width."""
    if len(size) != 2:
        raise InvalidInputError(
            f"'{name}' makes images of (height, width), but image_size is {size}: for signals and "
            "volumes take a convolutional prior, such as 'skip', 'deep-decoder' or 'conv-decoder'"
        )


def fitted_patch(
    name: str, size: Spatial, published: int, given: int | None, least: int = 1
) -> int:
    """Give the side of a patch of an image: by default the published one, scaled."""
    require_plane(name, size)
    patch = scaled_length(published, size) if given is None else given
    require_side(name, size, max(least, patch))
    return patch
