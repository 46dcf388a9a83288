"""Projections and mosaics that were measured, in the words of commands and plans."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dipkernels import images, tasks
from dipkernels.errors import ImageError
from dipkernels.specs.image import read_image
from dipkernels.specs.task import make_task, require_effects, task_options


def made(
    name: str, path: Path, size: tuple[int, ...], clean: str = "", **said: object
) -> tasks.Task:
    known = {key: each.default for key, each in task_options(name).items()}
    task = {"name": name, **known, "measured": True, "clean": clean, **said, "seed": None}
    require_effects(task, said)
    files = {"clean": read_image(clean)} if clean else {}
    return make_task({**task, "seed": 0}, read_image(str(path)), size, files)


def test_projections_are_taken_as_they_are(tmp_path: Path) -> None:
    clean = images.load("camera", size=(12, 10))
    operator = tasks.Radon(clean.shape, 7)
    seen = operator.forward(clean)[0]
    np.save(tmp_path / "sums.npy", seen.numpy())
    task = made("radon", tmp_path / "sums.npy", (12, 10), clean="camera", angles=7)
    assert task.shape == clean.shape
    torch.testing.assert_close(task.measurement[0], seen)
    torch.testing.assert_close(task.clean, clean)
    with pytest.raises(ImageError, match=r"size of the image can't be told.*7 angles of 16"):
        made("radon", tmp_path / "sums.npy", tuple(seen.shape), angles=7)
    with pytest.raises(ImageError, match=r"but 60 angles are asked for"):
        made("radon", tmp_path / "sums.npy", (12, 10))
    # sums over pixels, as scikit-image's are, in units of the side
    np.save(tmp_path / "pixels.npy", 12 * seen.numpy())
    task = made("radon", tmp_path / "pixels.npy", (12, 10), angles=7, white=12.0)
    torch.testing.assert_close(task.measurement[0], seen)


def test_mosaics_are_grey_or_of_colours_that_were_measured(tmp_path: Path) -> None:
    clean = images.load("astronaut", size=(6, 8))
    mask = tasks.bayer_mask((6, 8), pattern="GRBG")
    grey = (clean * mask).sum(dim=0, keepdim=True)
    for kind, mosaic in (("grey", grey), ("colours", clean)):
        path = tmp_path / f"{kind}.npy"
        np.save(path, mosaic[0].numpy() if kind == "grey" else mosaic.movedim(0, -1).numpy())
        task = made("demosaick", path, (6, 8), pattern="GRBG")
        assert task.clean is None
        torch.testing.assert_close(task.measurement, clean * mask)
        assert torch.equal(task.measured, mask)
    with pytest.raises(ImageError, match="can't be scaled"):
        made("demosaick", tmp_path / "grey.npy", (4, 4))
