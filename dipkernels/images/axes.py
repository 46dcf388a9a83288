"""Names of the axes of images in results: the one place that says how many there can be."""

from collections.abc import Sequence

from dipkernels.errors import InvalidInputError

# By the number of spatial dimensions: signals, images, volumes.
AXES = {1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x")}
SHAPES = "(channels, length), (channels, height, width) or (channels, depth, height, width)"
SIZES = "(length,), (height, width) or (depth, height, width)"


def pixel_axes(shape: Sequence[int]) -> tuple[str, ...]:
    """Name the axes of an image ``(channels, *spatial)``."""
    require_spatial(shape)
    return ("channel", *AXES[len(shape) - 1])


def require_spatial(shape: Sequence[int], what: str = "an image") -> None:
    """Refuse images of which nothing could be stored or shown, before anything is computed."""
    if len(shape) - 1 not in AXES:
        raise InvalidInputError(
            f"{what} has one, two or three dimensions beside its channels, {SHAPES}; got shape "
            f"{tuple(shape)}: take part of it, or make further axes channels"
        )
