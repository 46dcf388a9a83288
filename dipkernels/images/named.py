"""Named test images: those that scikit-image ships, and the literature's from a local folder.

The standard images of the literature (``f16``, ``peppers``, ...) are not ours to redistribute.
Put them in a folder and name it in the environment variable ``DIPKERNELS_DATA``; then every file
below it can be asked for by its path there, with or without suffix (``denoising/f16``), or by its
stem alone (``f16``), where these are unique.
"""

import os
from pathlib import Path

import numpy as np
import skimage.data

from dipkernels.base.checks import checked
from dipkernels.base.words import meant
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
VARIABLE = "DIPKERNELS_DATA"
LONGEST = 1000  # letters of a path that a message shows
SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy"),
    *(".webp", ".bmp", ".gif", ".jp2", ".avif", ".pgm", ".ppm"),
}


@checked
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
    return [*BUNDLED, *sorted({_without_suffix(file) for file in _local_files()})]


def is_file(source: str | Path) -> bool:
    """Tell whether there is such a file; what can't be a path is none."""
    try:
        return Path(source).is_file()
    except (OSError, ValueError):
        return False


def read_named(name: str) -> np.ndarray | Path:
    """Pixels of a bundled image, or the path of a local one."""
    if name in BUNDLED:
        return np.asarray(getattr(skimage.data, name)())
    files = _local_files()
    for key in (Path.as_posix, _without_suffix, lambda file: file.stem):
        matches = [file for file in files if key(file) == name]
        if len(matches) == 1:
            return files[matches[0]]
        if matches:
            options = ", ".join(file.as_posix() for file in matches)
            raise ImageError(f"image '{name}' is ambiguous: say which of {options}")
    if len(name) > LONGEST:
        raise ImageError(f"no such image: '{name[:20]}...', of {len(name)} letters, is no file")
    if Path(name).is_dir():
        raise ImageError(f"{name} is a folder, not an image file")
    hint = meant(name, names()) or f"bundled names: {', '.join(BUNDLED)}; "
    raise ImageError(
        f"no such image: '{name}' is neither a file nor a known name; {hint}{_where_local()}"
    )


# Paths of the local images, by what they are relative to their folder.
def _local_files() -> dict[Path, Path]:
    folder = os.environ.get(VARIABLE)
    if not folder or not Path(folder).is_dir():
        return {}
    root = Path(folder)
    files = (p for p in sorted(root.rglob("*")) if p.suffix.lower() in SUFFIXES and p.is_file())
    return {p.relative_to(root): p for p in files}


def _without_suffix(file: Path) -> str:
    return file.with_suffix("").as_posix()


def _where_local() -> str:
    folder = os.environ.get(VARIABLE)
    if not folder:
        return f"{VARIABLE}, a folder of more images, is not set"
    state = "" if Path(folder).is_dir() else ", which is no folder"
    return f"{VARIABLE} is {folder}{state}"
