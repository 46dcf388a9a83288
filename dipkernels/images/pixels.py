"""What a file holds, before its numbers mean anything, and what they mean."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dipkernels.base.memory import require_free
from dipkernels.errors import ImageError, MemoryLimitError

MOST = 3 * 10**8  # numbers of a file
ROUNDING = 1e-5  # beyond [0, 1], which a few operations in float32 leave
# What brings an image upright, by the orientation that its file states (TIFF's tag and EXIF's).
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


@dataclass(frozen=True)
class Pixels:
    """Values (*spatial, channels) as stored, and what their file says of them."""

    values: np.ndarray
    white: float | None = None  # of integers whose type says it wrongly, or not
    alpha: np.ndarray | None = None  # (*spatial): 0 transparent, 1 opaque
    profile: bytes | None = None  # of colours (ICC)

    def upright(self, orientation: object) -> "Pixels":
        """Turn and mirror as a viewer does; of a volume each plane."""
        turn = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
        if turn is None:
            return self
        rows = self.values.ndim - 3  # the axis of rows: behind the depth, if there is one

        def turned(array: np.ndarray) -> np.ndarray:
            ahead = np.moveaxis(array, (rows, rows + 1), (0, 1))
            return np.moveaxis(turn(ahead), (0, 1), (rows, rows + 1))

        alpha = None if self.alpha is None else turned(self.alpha)
        return replace(self, values=turned(self.values), alpha=alpha)

    @property
    def top(self) -> float | None:
        """What the file's white is, if that is known."""
        if self.white is not None:
            return self.white
        kind, size = self.values.dtype.kind, self.values.dtype.itemsize
        return float(np.iinfo(self.values.dtype).max) if kind in "iu" and size <= 2 else None

    @property
    def bits(self) -> int:
        """Depth of the file as `save` counts: 8 or 16 of integers, else 32."""
        kind, size = self.values.dtype.kind, self.values.dtype.itemsize
        return 8 * size if kind == "u" and size <= 2 else 8 if kind == "b" else 32


def require_room(shape: tuple[int, ...], source: object) -> None:
    """Refuse to decode what doesn't fit into memory, in its own type and in float32."""
    shown, numbers = "x".join(map(str, shape)), int(np.prod(shape, dtype=float))
    if numbers > MOST:
        raise MemoryLimitError(
            f"{source}, an image of {shown}, holds {numbers:.2g} numbers, of which at most "
            f"{MOST:.0e} are read: crop it"
        )
    # as decoded, as fractions in float64, and in float32
    require_free(13 * numbers, f"{source}, an image of {shown},", "crop it")


def without_alpha(values: np.ndarray, *, premultiplied: bool = False) -> Pixels:
    """Take the last channel of integers for alpha, and divide it out where it's multiplied in."""
    top = np.iinfo(values.dtype).max
    colours, alpha = values[..., :-1], values[..., -1] / top
    if premultiplied:
        with np.errstate(divide="ignore", invalid="ignore"):
            straight = np.where(alpha[..., None] > 0, colours / alpha[..., None], 0)
        colours = np.round(np.minimum(straight, top)).astype(values.dtype)
    return Pixels(colours, alpha=alpha)


@dataclass(frozen=True)
class Said:
    """What a user says of axes: where the channels are, and that a third axis is a volume's."""

    channel_axis: int | None = None
    volume: bool = False

    def require_effect(self, source: str, shape: tuple[int, ...], *, volume: bool = False) -> None:
        """Refuse what is said in vain of a file that says it itself."""
        idle = "channel_axis" if self.channel_axis is not None else ""
        if idle or (self.volume and not volume):
            raise ImageError(
                f"{idle or 'volume'} has no effect on {source}, whose shape is {shape}: leave it "
                "out"
            )


def arrange(values: np.ndarray, source: str, said: Said) -> np.ndarray:
    """Bring the channels of an array, whose axes nobody names, to the end."""
    shape = values.shape
    if not 1 <= values.ndim <= 4 or values.size == 0:
        raise ImageError(
            f"{source} has shape {shape}; an image has (height, width), (height, width, channels) "
            "or, with channel_axis=0, (channels, height, width); a signal (length,); a volume, "
            "with volume=True, (depth, height, width), or channels behind or before these"
        )
    if values.ndim == 2 and (
        # Channels of a signal: said, or a leading axis of one, which is no row of an image.
        said == Said(channel_axis=0) or (said == Said() and shape[0] == 1 < shape[1])
    ):
        return values.T
    if values.ndim < 3:
        said.require_effect(source, shape)
        return values[..., None]
    if said.volume and values.ndim == 3:
        replace(said, volume=False).require_effect(source, shape)
        return values[..., None]
    if said.channel_axis not in (None, 0, -1, values.ndim - 1):
        raise ImageError(f"channel_axis must be 0 or -1, got {said.channel_axis}")
    axis = _guessed(shape, source) if said.channel_axis is None else said.channel_axis
    return np.moveaxis(values, axis, -1)


def _guessed(shape: tuple[int, ...], source: str) -> int:
    """Tell the axis of the channels by the sizes, where only one is likely."""
    if shape[-1] <= 4 or (len(shape) == 3 and shape[-1] < min(shape[:-1])):
        return -1
    if shape[0] == 1:
        return 0
    depth = "depth, " * (len(shape) - 3)
    none = "; or volume=True (--volume) for (depth, height, width)" if len(shape) == 3 else ""
    raise ImageError(
        f"{source} has shape {shape}, and it can't be told which axis holds the channels: pass "
        f"channel_axis=0 (--channel-axis 0) for (channels, {depth}height, width) or -1 for "
        f"({depth}height, width, channels){none}"
    )


def real_pairs(values: np.ndarray) -> np.ndarray:
    """Make two channels of each complex one: its real part, then its imaginary part."""
    parts = np.stack([values.real, values.imag], axis=-1)
    return parts.reshape(*values.shape[:-1], 2 * values.shape[-1])


def to_fractions(pixels: Pixels, source: str, white: float | None = None) -> np.ndarray:
    """Turn values into fractions of white."""
    values = pixels.values
    if values.dtype.kind == "c":
        values = real_pairs(values)
    if values.dtype == bool:
        return values.astype(np.float32)
    if values.dtype.kind not in "iuf":
        raise ImageError(
            f"{source} holds {values.dtype} values; an image holds real or complex numbers"
        )
    top = pixels.top if white is None else white
    if top is None and values.dtype.kind in "iu":
        raise ImageError(
            f"{source} holds {values.dtype} values, whose white is unknown; say it (white=), or "
            "convert them to 8- or 16-bit integers, or to floating point in [0, 1]"
        )
    if values.dtype.itemsize <= 2 and values.dtype.kind in "iu":
        return np.asarray(values.astype(np.float32) / np.float32(top))
    return np.asarray(values if top is None else values / np.float64(top))


def to_unit_range(values: np.ndarray, source: str, *, white_said: bool = False) -> np.ndarray:
    """Check that finite values lie in [0, 1], up to rounding, which is cut off."""
    finite = np.isfinite(values)
    if not finite.any():
        return values
    low = float(values.min(where=finite, initial=np.inf))
    high = float(values.max(where=finite, initial=-np.inf))
    if low < -ROUNDING or high > 1 + ROUNDING:
        hint = "" if low < 0 else ", or say which number is white (white=)"
        likely = next((white for white in (255, 1023, 4095, 16383, 65535) if high <= white), 0)
        if white_said:
            hint = ", where 1 is the white that is said: choose a higher one"
        elif low >= 0 and high > 2 and likely:
            hint = f", or, if their white is {likely}, pass white={likely}"
        raise ImageError(
            f"{source} has values from {low:.9g} to {high:.9g}; scale them to [0, 1]{hint}"
        )
    return values if low >= 0 and high <= 1 else np.clip(values, 0, 1)


def require_finite(values: np.ndarray, source: str, remedy: str) -> None:
    """Refuse NaN and infinity."""
    if bad := int(np.count_nonzero(~np.isfinite(values))):
        raise ImageError(f"{source} holds {bad} NaN or infinite values; {remedy}")
