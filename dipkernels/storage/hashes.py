"""Damage is found: a SHA-256 in every stored file, compared when it is read.

A netCDF file ends with that of all bytes before it, where readers of netCDF don't look; a text of
JSON holds that of its other entries. Files from before this have none, and are read as they are.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

MARK = b"\ndipkernels-sha256:"
KEY = "sha256"  # of an entry of JSON
SEALED = "checksum"  # an attribute, or entry, that says there is one: a flip can't take both away
HOW = "SHA-256 of all bytes before it, at the end of the file"


def seal(path: Path) -> None:
    """Append the hash of a file."""
    digest = _digest(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(MARK + digest)


def is_whole(path: Path) -> bool | None:
    """Compare a file with its hash; None if it has none."""
    length = len(MARK) + hashlib.sha256().digest_size
    size = path.stat().st_size
    if size < length:
        return None
    with path.open("rb") as file:
        file.seek(size - length)
        end = file.read()
    if not end.startswith(MARK):
        return None
    return _digest(path, size - length) == end.removeprefix(MARK)


def _digest(path: Path, size: int) -> bytes:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 2**20))):
            found.update(block)
            size -= len(block)
    return found.digest()


def as_json(content: Mapping[str, Any], indent: int = 1) -> str:
    """Write a mapping as text, with its hash."""
    hashed = {**content, SEALED: f"{KEY} of all other entries, sorted", KEY: _hash(content)}
    return json.dumps(hashed, indent=indent) + "\n"


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a mapping from a text file; None if there is none, it can't be read, or is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    stated, is_hashed = found.pop(KEY, None), found.pop(SEALED, None) is not None
    if (is_hashed or stated is not None) and not (is_hashed and stated == _hash(found)):
        logger.warning("%s is damaged: its SHA-256 isn't that of its content", path)
        return None
    return found


def _hash(content: Mapping[str, Any]) -> str:
    # as it will be read: keys are text, tuples are lists
    plain = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
