"""Removing the artefacts of JPEG compression."""

import io

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.tasks.inputs import as_bytes, require_clean, require_pair, require_unused
from dipkernels.tasks.operators import JpegIdentity
from dipkernels.tasks.task import Task

QUALITY = 10  # of the literature's deblocking experiments (Shi et al. 2022, Classic5)
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


@checked
def dejpeg(
    clean: Float[Tensor, "channels *spatial"] | None = None,
    *,
    measurement: Float[Tensor, "channels *spatial"] | None = None,
    quality: int | None = None,
    subsampling: str | None = None,
) -> Task:
    """Make a task of removing JPEG artefacts: the decoded file is fitted as if it were the image.

    Parameters
    ----------
    clean : Tensor, floating point, shape (channels, height, width), optional
        In [0, 1], with 1 or 3 channels; rounded to 8 bits, then encoded and decoded by Pillow.
    measurement : Tensor, shape (channels, height, width), optional
        A decoded JPEG file: nothing is simulated, and ``clean`` is only scored against.
    quality : int, optional
        Of the encoder, 1 to 100; by default 10.
    subsampling : str, optional
        Of the chroma of a colour image: ``"4:2:0"`` (half the resolution along both axes; the
        default, and what almost every file has), ``"4:2:2"`` or ``"4:4:4"`` (none).

    Returns
    -------
    Task
        Its forward operator is the identity, its ``noise_sigma`` 0; kernel theory refuses it.

    Raises
    ------
    InvalidInputError
        If the quality or the subsampling can't be, neither image is given, or an option would have
        no effect.
    ImageError
        If an image is not a finite floating-point one, leaves [0, 1], or the two differ in shape.
    """
    if measurement is None:
        clean = require_clean(clean)
        measurement = _compress(clean, quality, subsampling)
    else:
        require_unused(quality=quality is not None, subsampling=subsampling is not None)
        require_pair(clean, measurement)
        if measurement.dim() != 3:
            raise ImageError(f"JPEG is for 2D images, got shape {tuple(measurement.shape)}")
    return Task("dejpeg", measurement, JpegIdentity(tuple(measurement.shape)), 0.0, clean)


def _compress(clean: Tensor, quality: int | None, subsampling: str | None) -> Tensor:
    quality = QUALITY if quality is None else quality
    if not 1 <= quality <= 100:
        raise InvalidInputError(f"JPEG's quality is an integer from 1 to 100, got {quality}")
    if clean.dim() != 3 or clean.shape[0] not in (1, 3):
        raise ImageError(
            f"JPEG knows images of two dimensions and 1 or 3 channels, got shape "
            f"{tuple(clean.shape)}: pick channels"
        )
    if clean.shape[0] == 1 and subsampling is not None:
        raise InvalidInputError("subsampling has no effect on a grey image")
    subsampling = "4:2:0" if subsampling is None else subsampling
    if subsampling not in SUBSAMPLINGS:
        raise InvalidInputError(
            f"chroma subsampling is one of {', '.join(SUBSAMPLINGS)}, got '{subsampling}'"
        )
    pixels = as_bytes(clean, "JPEG").transpose(1, 2, 0)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    colour = {} if pixels.shape[2] == 1 else {"subsampling": subsampling}
    picture.save(file, format="jpeg", quality=quality, **colour)
    decoded = np.atleast_3d(np.asarray(Image.open(file)))
    return torch.from_numpy(decoded.transpose(2, 0, 1).copy()).to(clean) / 255
