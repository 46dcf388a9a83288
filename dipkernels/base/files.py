"""Files that are written whole or not at all, and those that can only be read."""

import contextlib
import glob
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

PARTIAL = ".partial"


def stays(path: Path) -> bool:
    """Tell whether a file is there that can't be written anew, so that a finished run is read."""
    if path.exists() and not os.access(path.parent, os.W_OK):  # its mode, or a mount that is so
        logger.info("%s stays as it is: its folder can only be read", path)
        return True
    return False


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Hand out a file to write to that takes the place of another once the block has ended well."""
    path = _target(path)
    if path.exists() and not (path.is_file() or path.is_dir()):  # root could replace a device
        raise OSError("it is no ordinary file")
    # Process numbers mean nothing to another container on the same files.
    token = uuid.uuid4().hex[:8]
    partial = path.with_name(f".{path.name}.{token}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):  # gone already, unless something failed
            partial.unlink()


def remove_partial(path: Path) -> None:
    """Remove what a process that was killed while it wrote a file has left beside it."""
    path = _target(path)
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"):
        owner = partial.name.removesuffix(PARTIAL).rpartition(".")[2].removesuffix("d")
        if not owner.isdigit() or is_running(int(owner)):
            continue
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                partial.unlink()


def to_disk(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def is_running(process: int) -> bool:
    """Tell whether a process of this machine runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


# A link stays one.
def _target(path: Path) -> Path:
    return Path(os.path.realpath(path)) if path.is_symlink() else path
