"""Images as a command or a plan names them: files and bundled names, read once."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def read_image(source: str) -> "Tensor":
    """Read an image as it is, from memory if it's one of the last; it must not be changed."""
    file = Path(source)
    return _read_image(source, file.stat().st_mtime_ns if file.is_file() else 0)


@functools.lru_cache(maxsize=16)  # runs of one image follow each other
def _read_image(source: str, changed: int) -> "Tensor":
    from dipkernels import images

    return images.load(source)


def image_hash(image: "Tensor") -> str:
    """Hash pixels and their shape, by SHA-256."""
    from dipkernels.base.origin import digest

    return digest(image, str(tuple(image.shape)))


def resolve_source(name: str, folder: Path) -> str:
    """Find the file, beside the plan unless it is absolute, or the bundled image of a name."""
    from dipkernels.images.named import read_named

    file = folder / name
    if file.is_file():
        return str(file.resolve())  # absolute: other processes must find it, too
    found = read_named(name)
    return str(found.resolve()) if isinstance(found, Path) else name
