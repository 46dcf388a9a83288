"""Writing images."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.files import replacing
from dipkernels.errors import ImageError, InvalidInputError, OutputError
from dipkernels.images.axes import AXES, SHAPES

TIFF = (".tif", ".tiff")


@checked
def save(
    image: Float[Tensor, "channels *spatial"],
    path: str | Path,
    *,
    bits: int | None = None,
    white: float | None = None,
    profile: bytes | None = None,
) -> None:
    """Write an image, volume or signal in the format of the suffix.

    Parameters
    ----------
    image : Tensor, floating point, shape ``(channels, *spatial)``
        One or three channels; for TIFF and ``.npy`` any number. In files of integers, values
        outside [0, 1] are cut. Volumes go into TIFF and ``.npy``, signals into ``.npy``.
    path : str or Path
        Where to; an existing file is replaced.
    bits : int, optional
        8 or 16 (integers), or 32 (floating point). By default 32 for ``.npy`` and 8 for all else.
        TIFF and ``.npy`` take all three, PNG also takes 16 for a grey image.
    white : float, optional
        The number that stands for 1; by default 255, 65535 and 1. See `ImageFile.white`.
    profile : bytes, optional
        ICC profile of its colours, for the formats that hold one.

    Raises
    ------
    InvalidInputError
        If the format can't hold so many dimensions, channels or bits, or a white beyond its bits.
    ImageError
        If it isn't a floating-point image, or has NaN where integers are written.
    OutputError
        If it can't be written.

    Notes
    -----
    ``.npy`` arrays are (height, width) or (height, width, channels), as `load` reads them; those of
    volumes have the depth in front (`load` wants ``volume=True``), those of signals are (length,)
    or (channels, length), as `load_signal` reads them; a row of pixels is (1, width, channels).
    TIFF of volumes is ImageJ's, which names its axes.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    bits = bits or (32 if suffix == ".npy" else 8)
    _require_image(image)
    _require_format(image, path, bits)
    top = white or {8: 255.0, 16: 65535.0}.get(bits, 1.0)
    if bits < 32 and not 0 < top < 2**bits:
        raise InvalidInputError(
            f"white must be positive and below {2**bits} in {bits} bits, got {white}"
        )
    pixels = _quantised(image, bits, top)
    row = suffix == ".npy" and image.dim() == 3 and image.shape[1] == 1  # or it is read as a signal
    if image.shape[0] == 1 and not row:
        pixels = pixels[..., 0]
    elif image.dim() == 2:
        pixels = pixels.T
    try:
        # NumPy, which tifffile uses, doesn't notice that a disk is full.
        content = io.BytesIO()
        _write(pixels, content, suffix, profile, volume=image.dim() == 4)
        with replacing(path) as partial:
            partial.write_bytes(content.getbuffer())
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"can't write image {path}: {error}") from error


def suffix_for(channels: int, bits: int, dims: int = 2) -> str:
    """Name the usual format that holds an image: PNG, else TIFF; of signals NumPy's."""
    if dims == 1:
        return ".npy"
    held = (channels in (1, 3) and bits == 8) or (channels == 1 and bits == 16)
    return ".png" if held and dims == 2 else ".tif"


def _require_image(image: Tensor) -> None:
    if not image.is_floating_point() or image.dim() - 1 not in AXES or image.numel() == 0:
        raise ImageError(
            f"an image to save must be a floating-point tensor whose white is 1, {SHAPES}; got "
            f"{image.dtype} of shape {tuple(image.shape)}: divide integers by their white"
        )


def _require_format(image: Tensor, path: Path, bits: int) -> None:
    suffix, channels = path.suffix.lower(), image.shape[0]
    any_channels = suffix in (*TIFF, ".npy")
    if (image.dim() == 2 and suffix != ".npy") or (image.dim() == 4 and not any_channels):
        what, takes = "volume", ".tif or .npy"
        if image.dim() == 2:
            what, takes = "signal", ".npy; an image has an axis of channels before its rows"
        raise InvalidInputError(
            f"a {what}, of shape {tuple(image.shape)}, can't be saved as {suffix or 'this'}: take "
            f"{takes}"
        )
    if channels not in (1, 3) and not any_channels:
        raise InvalidInputError(
            f"an image to save as {suffix or 'this'} must have 1 or 3 channels, got shape "
            f"{tuple(image.shape)}: .tif and .npy take any number"
        )
    allowed = (
        (8, 16, 32) if any_channels else (8, 16) if suffix == ".png" and channels == 1 else (8,)
    )
    if bits not in allowed:
        raise InvalidInputError(
            f"{path.name} with {channels} channels takes {list(allowed)} bits, "
            f"got {bits}: .tif and .npy take all of 8, 16, 32"
        )
    if bits < 32 and (bad := int((~image.isfinite()).sum())):
        raise ImageError(
            f"the image to save holds {bad} NaN or infinite values, for which integers have no "
            "number: fill them, or save it as .tif or .npy with bits=32"
        )


def _quantised(image: Tensor, bits: int, white: float) -> np.ndarray:
    values = image.detach().cpu().double().movedim(0, -1)
    if bits == 32:
        return np.ascontiguousarray((white * values).numpy(), dtype=np.float32)
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.ascontiguousarray(torch.round(white * values.clamp(0, 1)).numpy(), dtype=dtype)


def _write(
    pixels: np.ndarray, file: io.BytesIO, suffix: str, profile: bytes | None, *, volume: bool
) -> None:
    if suffix == ".npy":
        np.save(file, pixels, allow_pickle=False)
    elif volume:
        axes = "ZYX" if pixels.ndim == 3 else "ZCYX"
        stack = pixels if pixels.ndim == 3 else np.moveaxis(pixels, -1, 1)
        tifffile.imwrite(file, stack, imagej=True, metadata={"axes": axes}, iccprofile=profile)
    elif suffix in TIFF:
        colour = pixels.ndim == 3 and pixels.shape[2] == 3
        extra = pixels.shape[2] - 1 if pixels.ndim == 3 and not colour else 0
        tifffile.imwrite(
            file,
            pixels,
            photometric="rgb" if colour else "minisblack",
            planarconfig="contig" if pixels.ndim == 3 else None,
            extrasamples=["unspecified"] * extra or None,
            metadata=None,
            iccprofile=profile,
        )
    else:
        options: dict[str, Any] = {} if profile is None else {"icc_profile": profile}
        # from the suffix, as Pillow does of a path
        kind = Image.registered_extensions()[suffix]
        Image.fromarray(pixels).save(file, format=kind, **options)
