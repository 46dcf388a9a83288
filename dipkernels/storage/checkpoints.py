"""Checkpoints: the whole state of a computation in one safetensors file, whole or not at all."""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.files import PARTIAL, remove_partial, replacing, to_disk
from dipkernels.errors import InvalidInputError, OutputError

logger = logging.getLogger(__name__)

FORMAT = "dipkernels-checkpoint-2"
UNHASHED = "dipkernels-checkpoint-1"  # from before checkpoints held a hash
SECONDS = 30.0  # between two saves
SHARE = 0.05  # of the time is spent on saving, at most


@checked
def save_checkpoint(path: Path, identity: dict[str, Any], state: dict[Any, Any]) -> None:
    """Write a checkpoint, atomically: after a crash at any moment there's the old one or this.

    Parameters
    ----------
    path : Path
        Where to; an existing checkpoint is replaced once this one is complete and on the disk.
    identity : dict
        What the computation is, fit for JSON; `load_checkpoint` compares it.
    state : dict
        Nested dicts (with string or integer keys), lists and tuples of tensors, NumPy arrays,
        numbers, strings and None.

    Raises
    ------
    OutputError
        If it can't be written (a full disk, for instance); what was there before stays whole.
    """
    tensors: dict[str, Tensor] = {}
    tree = _flatten(state, "", tensors)
    _part_storages(tensors)
    texts = {"identity": json.dumps(identity), "state": json.dumps(tree)}
    metadata = {"format": FORMAT, **texts, "sha256": _hash(texts, tensors)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            # In a folder of its own, since safetensors leaves files of its own when it is killed.
            scratch = partial.with_name(f"{partial.name.removesuffix(PARTIAL)}d{PARTIAL}")
            scratch.mkdir()
            try:
                save_file(tensors, scratch / "state", metadata=metadata)
                # safetensors' own is for the user alone: colleagues continue runs, too
                (scratch / "mode").touch()
                (scratch / "state").chmod((scratch / "mode").stat().st_mode)
                (scratch / "state").replace(partial)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            to_disk(partial)
    except (OSError, safetensors.SafetensorError) as error:
        kept = "the last one stays whole" if path.exists() else "there is none yet"
        raise OutputError(
            f"can't write the checkpoint {path} ({error}); {kept}: free some space or choose "
            "another folder, then run the same command again"
        ) from error


@checked
def load_checkpoint(
    path: Path, identity: dict[str, Any], kind: str = "computation"
) -> dict[str, Any] | None:
    """Read a checkpoint, if it is that of this computation.

    Parameters
    ----------
    path : Path
        Of the file.
    identity : dict
        What is being computed.
    kind : str
        A word for it, for errors.

    Returns
    -------
    dict or None
        The state as it was saved, tensors on the CPU; None if there is no such file.

    Raises
    ------
    OutputError
        If it belongs to another computation, naming the first difference.
    InvalidInputError
        If it isn't a checkpoint.
    """
    remove_partial(path)
    if not path.exists():
        return None
    before, state = read_checkpoint(path)
    now = json.loads(json.dumps(identity))
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            raise OutputError(
                f"{path} is the checkpoint of another {kind} ({key}: {before.get(key)} there, "
                f"{now.get(key)} now): choose another file, or remove it to start afresh"
            )
    return state


@checked
def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read any checkpoint.

    Parameters
    ----------
    path : Path
        Of the file.

    Returns
    -------
    identity, state : dict
        As they were saved, tensors on the CPU.

    Raises
    ------
    InvalidInputError
        If there is no such file or it isn't a checkpoint.
    """
    try:
        metadata, tensors = _read(path)
        state: dict[str, Any] = _unflatten(json.loads(metadata["state"]), tensors)
        return json.loads(metadata["identity"]), state
    except InvalidInputError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise InvalidInputError(
            f"{path} can't be read as a checkpoint ({error}): it is damaged or something else; "
            "remove it to start afresh"
        ) from error


class Saver:
    """Saves a computation to a file every so often."""

    def __init__(self, path: Path, identity: dict[str, Any], kind: str = "computation") -> None:
        self.path, self.identity, self.kind = path, identity, kind
        self._last, self._cost = time.monotonic(), 0.0

    def load(self) -> dict[str, Any] | None:
        """Load the checkpoint, if there is one."""
        found = load_checkpoint(self.path, self.identity, self.kind)
        if found is not None:
            logger.info("%s: continued from %s", self.kind, self.path)
        return found

    def save(self, state: dict[str, Any]) -> None:
        """Save the state, however short ago the last time was."""
        start = time.monotonic()
        save_checkpoint(self.path, self.identity, state)
        self._last = time.monotonic()
        self._cost = self._last - start
        logger.debug("%s: saved to %s in %.2f s", self.kind, self.path, self._cost)

    def save_if_due(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save, if the last time was long ago: 30 s, or 20 times as long as saving took."""
        elapsed = time.monotonic() - self._last
        if elapsed >= SECONDS and self._cost <= SHARE * elapsed:
            self.save(state())


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") not in (FORMAT, UNHASHED):
            raise InvalidInputError(
                f"{path} holds tensors but is no checkpoint of this package, of a later version, "
                "or damaged: choose another, or remove it to start afresh"
            )
        # Cloned: those of the file needn't be aligned as new ones are.
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    if metadata["format"] == UNHASHED:
        logger.info("%s is from before checkpoints held a hash: read without one", path)
    elif metadata.get("sha256") != _hash(metadata, tensors):
        raise InvalidInputError(
            f"{path} is damaged: its SHA-256 isn't that of its content; remove it to start afresh"
        )
    return metadata, tensors


def _hash(texts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in ("identity", "state"):
        found.update(f"{len(texts[name])}:{texts[name]}".encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


# Tensors go into `tensors` by their path; everything else into a tree that JSON can hold.
def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, np.ndarray):
        tensors[path] = torch.from_numpy(np.ascontiguousarray(value))
        return {"array": path}
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous()
        return {"tensor": path}
    if isinstance(value, dict):
        items = [[key, _flatten(item, f"{path}/{key}", tensors)] for key, item in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_flatten(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"a checkpoint can't hold a {type(value).__name__} (at {path})")


# The format refuses tensors that share memory. No others are copied: they may be gigabytes.
def _part_storages(tensors: dict[str, Tensor]) -> None:
    seen: set[int] = set()
    for path, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        tensors[path] = tensor.clone() if storage in seen else tensor
        seen.add(storage)


def _unflatten(node: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    ((kind, content),) = node.items()
    if kind == "value":
        return content
    if kind == "dict":
        return {key: _unflatten(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_unflatten(item, tensors) for item in content]
        return items if kind == "list" else tuple(items)
    return tensors[content] if kind == "tensor" else tensors[content].numpy()
