"""Flipped bits and lost ends of every kind of stored file: found, or without effect."""

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from dipkernels.errors import DipkernelsError, OutputError
from dipkernels.storage import RunFolder, load, open_run, read_checkpoint, save, save_checkpoint
from dipkernels.storage.hashes import as_json, read_json
from helpers.campaigns import sizes

DATASET = xr.Dataset(
    {"psnr": ("iteration", np.linspace(10, 30, 40)), "name": ("run", ["a", "bc"])},
    attrs={"version_dipkernels": "0", "seed": 3},
)
STATE = {
    "iteration": 7,
    "weights": torch.arange(12.0).reshape(3, 4),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "scalar": torch.tensor(2.0, dtype=torch.float64),
    "empty": torch.zeros(0),
    "history": [np.arange(5), ("x", None, 1.5)],
}
SETTINGS = {"prior": "skip", "iterations": 300, "rates": [0.1, 0.2], "nested": {"a": None}}


def plain(value: Any) -> Any:
    """What can be compared: tensors and arrays as lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def is_same_state(path: Path) -> bool:
    identity, state = read_checkpoint(path)
    return identity == {"seed": 1} and plain(state) == plain(STATE)


# How each kind is written, and whether what is read is what was written (None: it counts as lost).
KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], bool | None]]] = {
    "file.nc": (lambda p: save(DATASET, p), lambda p: load(p).identical(DATASET)),
    "classic.nc": (
        lambda p: save(DATASET, p, classic=True),
        lambda p: load(p).identical(DATASET),
    ),
    "fit.safetensors": (lambda p: save_checkpoint(p, {"seed": 1}, STATE), is_same_state),
    "run.json": (
        lambda p: RunFolder(p.parent).note(SETTINGS),
        lambda p: None if (s := RunFolder(p.parent).settings) is None else s == SETTINGS,
    ),
    "result.json": (
        lambda p: p.write_text(as_json(SETTINGS)),
        lambda p: None if (found := read_json(p)) is None else found == SETTINGS,
    ),
}


@pytest.mark.parametrize("count", sizes(60, 1_000))
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_found_or_without_effect(kind: str, count: int, tmp_path: Path) -> None:
    rng, seen = random.Random(count), Counter[str]()
    path = tmp_path / kind
    write, is_same = KINDS[kind]
    write(path)
    assert is_same(path)
    whole = path.read_bytes()
    for number in range(count // len(KINDS)):
        damaged = bytearray(whole)
        if number % 4 == 0:
            damaged = damaged[: rng.randrange(len(whole))]
        else:
            bit = rng.randrange(8 * len(whole))
            damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            same = is_same(path)
        except DipkernelsError:
            seen["a sentence"] += 1
            continue
        assert same is not False, f"{kind} was read with other content: damage {number}"
        seen["lost" if same is None else "the same"] += 1
    print(f"{sum(seen.values())} damages of {kind}: {dict(seen)}")
    assert seen["a sentence"] + seen["lost"] > 0.8 * sum(seen.values())


def test_files_without_a_hash_are_read(tmp_path: Path) -> None:
    DATASET.to_netcdf(tmp_path / "old.nc", engine="h5netcdf")
    assert load(tmp_path / "old.nc").identical(DATASET)
    (tmp_path / "run.json").write_text('{"settings": {"a": 1}}')
    assert RunFolder(tmp_path).settings == {"a": 1}


def test_an_old_checkpoint_is_read_and_a_foreign_one_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    metadata = {"identity": "{}", "state": '{"dict": [["w", {"tensor": "/w"}]]}'}
    for name, old in (("old", "dipkernels-checkpoint-1"), ("foreign", "x")):
        save_file({"/w": torch.ones(2)}, tmp_path / name, metadata | {"format": old})
    assert read_checkpoint(tmp_path / "old")[1]["w"].tolist() == [1, 1]
    with pytest.raises(DipkernelsError, match="no checkpoint of this package"):
        read_checkpoint(tmp_path / "foreign")


@pytest.mark.parametrize(
    "text", ["[]", "null", '{"settings": null}', "", "{", '{"settings": 3}', "[" * 5000, "\0"]
)
def test_settings_that_are_none_are_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    for call in (
        lambda: RunFolder.open(tmp_path, {"a": 1}),
        lambda: open_run(tmp_path),
    ):
        with pytest.raises(DipkernelsError, match=r"damaged|can't be read|holds no run"):
            call()


def test_a_damaged_result_is_computed_anew(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", {"a": 1})
    folder.stage("fit", lambda: DATASET)
    file = folder.file("fit")
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    assert folder.stored("fit") is None
    assert folder.stage("fit", lambda: DATASET).identical(DATASET)
    assert folder.stored("fit").identical(DATASET)  # type: ignore[union-attr]


def test_a_result_of_somebody_else_is_neither_taken_nor_replaced(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", {"a": 1})
    xr.Dataset({"a": 1}).to_netcdf(folder.file("fit"), engine="h5netcdf")
    before = folder.file("fit").read_bytes()
    with pytest.raises(OutputError, match=r"fit\.nc is no result of this package: move it away"):
        folder.stage("fit", lambda: DATASET)
    assert folder.file("fit").read_bytes() == before


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_result_that_may_not_be_read_is_not_replaced(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", {"a": 1})
    folder.stage("fit", lambda: DATASET)
    folder.file("fit").chmod(0)
    with pytest.raises(OutputError, match=r"can't read .*fit\.nc: .*Permission denied"):
        folder.stage("fit", lambda: DATASET)


def test_a_checkpoint_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "fit.safetensors", {}, {"a": 1})
    (tmp_path / "other").touch()
    modes = {(tmp_path / name).stat().st_mode for name in ("fit.safetensors", "other")}
    assert len(modes) == 1
