"""Named test images: those that scikit-image ships, and the literature's from a local folder.

The standard images of the literature (``f16``, ``peppers``, ...) are not ours to redistribute.
Put them in a folder and name it in the environment variable ``DIPKERNELS_DATA``; then every file
below it can be asked for by its path without suffix (``denoising/f16``), or by its stem alone
where that is unique (``f16``).
"""

import difflib
import os
from pathlib import Path

import numpy as np
import skimage.data

from dipkernels.errors import ImageError

# Those of scikit-image's images that lie in its wheel: nothing is downloaded.
BUNDLED = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "moon",
    "page",
    "rocket",
    "shepp_logan_phantom",
)
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy"}


def names() -> list[str]:
    """Names that `load` accepts: bundled images, then those found below ``DIPKERNELS_DATA``.

    Returns
    -------
    list of str
        In that order, each group sorted.

    Examples
    --------
    >>> "astronaut" in names()
    True
    """
    return [*BUNDLED, *sorted(_local_files())]


def read_named(name: str) -> np.ndarray | Path:
    """Pixels of a bundled image, or the path of a local one.

    Parameters
    ----------
    name : str
        One of `names`, or the unique stem of a local one.

    Returns
    -------
    numpy.ndarray or pathlib.Path
        Raw pixels ``(height, width[, channels])``, or the file to read.

    Raises
    ------
    ImageError
        If there is no such name, or a stem names two files.
    """
    if name in BUNDLED:
        return np.asarray(getattr(skimage.data, name)())
    local = _local_files()
    if name in local:
        return local[name]
    matches = [key for key in local if Path(key).name == name]
    if len(matches) == 1:
        return local[matches[0]]
    if matches:
        raise ImageError(f"image '{name}' is ambiguous: say which of {', '.join(matches)}")
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"bundled names: {', '.join(BUNDLED)}."
    raise ImageError(f"no such image: '{name}' is neither a file nor a known name; {hint}")


def _local_files() -> dict[str, Path]:
    folder = os.environ.get("DIPKERNELS_DATA")
    if not folder or not Path(folder).is_dir():
        return {}
    root = Path(folder)
    files = (p for p in sorted(root.rglob("*")) if p.suffix.lower() in SUFFIXES)
    return {p.relative_to(root).with_suffix("").as_posix(): p for p in files}
