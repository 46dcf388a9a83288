"""Images as a command or a plan names them: files and bundled names, read once."""

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipkernels.errors import ImageError, InvalidInputError, UnitWarning

if TYPE_CHECKING:
    from torch import Tensor

    from dipkernels.images import ImageFile


def read_image(
    source: str,
    white: float | None = None,
    *,
    mask: bool = False,
    channel_axis: int | None = None,
    volume: bool = False,
) -> "ImageFile":
    """Read an image or a mask in any range, once; it must not be changed."""
    from dipkernels.images.named import is_file

    changed = Path(source).stat().st_mtime_ns if is_file(source) else 0
    return _read_image(source, changed, white, mask, channel_axis, volume)


@functools.lru_cache(maxsize=16)  # runs of one image follow each other
def _read_image(
    source: str,
    changed: int,
    white: float | None,
    mask: bool,
    channel_axis: int | None,
    volume: bool,
) -> "ImageFile":
    from dipkernels import images
    from dipkernels.images.files import read_mask
    from dipkernels.images.pixels import Said

    if mask:
        return read_mask(source, Said(volume=volume))
    with warnings.catch_warnings():  # `make_task` asks for white
        warnings.simplefilter("ignore", UnitWarning)
        return images.read(
            source, channel_axis=channel_axis, volume=volume, white=white, any_range=True
        )


def read_files(sources: Mapping[str, str], axes: Mapping[str, Any]) -> "dict[str, ImageFile]":
    """Read an image, and the other files of its task."""
    image = read_image(sources["image"], **axes)
    others = {n: read_beside(n, file, axes, image) for n, file in sources.items() if n != "image"}
    return {"image": image, **others}


def read_beside(name: str, source: str, axes: Mapping[str, Any], image: "ImageFile") -> "ImageFile":
    """Read a file of a task beside its image, whose axes it may have, or say its own."""
    volume = {"volume": True} if axes.get("volume") else {}
    told: dict[str, list[dict[str, Any]]] = {
        "mask": [{"mask": True, **volume}],
        "psf": [{}, volume],
        "coils": [{"channel_axis": 0}],
        "matrix": [{}],
    }
    found, errors = [], []
    for each in told.get(name, [{}, {**axes}]):
        try:
            found.append(read_image(source, **each))
        except ImageError as error:
            errors.append(error)
    if not found:
        raise errors[-1]
    wanted = image.image.shape
    alike = (lambda s: s == wanted, lambda s: s[1:] == wanted[1:], lambda s: len(s) == len(wanted))
    return max(found, key=lambda file: [like(file.image.shape) for like in alike])


def is_own(source: str) -> bool:
    """Tell a file of the user's from an image that is bundled."""
    from dipkernels.images.named import BUNDLED, is_file

    return is_file(source) or source not in BUNDLED


def image_hash(file: "ImageFile") -> str:
    """Hash pixels and their shape, and what is transparent, by SHA-256."""
    from dipkernels.base.origin import digest

    parts = [file.image] if file.alpha is None else [file.image, file.alpha]
    return digest(*(part for x in parts for part in (x, str(tuple(x.shape)))))


def file_hash(name: str, file: "ImageFile") -> str:
    """Hash a file of a task; of a matrix the numbers count, not their fractions of white."""
    from dipkernels.base.origin import digest

    own = image_hash(file)
    return digest(own, str(file.white)) if name == "matrix" else own


def resolve_source(name: str, folder: Path) -> str:
    """Find the file, beside the plan unless it is absolute, or the bundled image of a name."""
    from dipkernels.images.named import is_file, read_named

    file = folder / name
    if is_file(file):
        return str(file.resolve())  # absolute: other processes must find it, too
    found = read_named(name)
    return str(found.resolve()) if isinstance(found, Path) else name


def in_white(file: "ImageFile", white: float | None, name: str) -> "ImageFile":
    """Take another number for white, or ask for it."""
    from dipkernels.images.files import ask_for_white

    if white is None:
        ask_for_white(file, name)
        return file
    if not 0 < white < float("inf"):
        raise InvalidInputError(f"white must be positive and finite, got {white}")
    return replace(file, image=file.image * (file.white / white), white=float(white))


def default_size(native: Sequence[int], *, measured: bool, pixels: int = 64) -> int | None:
    """Give the size of a task where none is said: measurements, signals, volumes aren't scaled."""
    return pixels if len(native) == 2 and not measured else None


def complex_or_real(file: "ImageFile") -> "Tensor":
    """Give the numbers of a file as it has them: complex ones are read as two channels."""
    from dipkernels.images import to_complex

    return to_complex(file.image) if file.is_complex else file.image
