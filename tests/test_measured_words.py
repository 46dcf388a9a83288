"""Projections and mosaics that were measured, in the words of commands and plans."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dipkernels import images, tasks
from dipkernels.errors import ImageError, InvalidInputError
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


def test_coefficients_that_were_measured_are_those_that_would_be_taken(tmp_path: Path) -> None:
    clean = images.load("astronaut", size=(9, 12))
    mask = tasks.line_mask((9, 12), known=0.5, seed=3)
    frequencies = np.fft.fft2(clean.double().numpy(), norm="ortho")
    grid = np.fft.fftshift(frequencies, axes=(1, 2)).astype(np.complex64)
    np.save(tmp_path / "mask.npy", mask.numpy())
    np.save(tmp_path / "all.npy", grid)
    np.save(tmp_path / "zeros.npy", np.where(mask, grid, 0))
    np.save(tmp_path / "nans.npy", np.where(mask, grid, np.nan))
    operator = tasks.Fourier(clean.shape, mask)
    for file, shown in (
        ("all", "mask.npy"), ("zeros", "holes"), ("nans", "holes"), ("nans", "mask.npy")
    ):  # fmt: skip
        where = shown if shown == "holes" else str(tmp_path / shown)
        task = made_of_frequencies(tmp_path / f"{file}.npy", (9, 12), where)
        assert task.shape == clean.shape
        # float32's rounding of an FFT
        torch.testing.assert_close(task.measurement, operator.forward(clean), rtol=0, atol=1e-5)
    for file, shown, said in (
        ("nans", "all", "that the mask calls measured are NaN"),
        ("mask", "holes", "are complex, one for each pixel"),
    ):
        np.save(tmp_path / "ones.npy", np.ones((9, 12), dtype=bool))
        where = "holes" if shown == "holes" else str(tmp_path / "ones.npy")
        with pytest.raises(ImageError, match=said):
            made_of_frequencies(tmp_path / f"{file}.npy", (9, 12), where)
    with pytest.raises(ImageError, match=r"for an image of 8x8"):
        made_of_frequencies(tmp_path / "zeros.npy", (8, 8), "holes")
    np.save(tmp_path / "none.npy", np.zeros((9, 12), dtype=np.complex64))
    with pytest.raises(ImageError, match="no coefficient is measured"):
        made_of_frequencies(tmp_path / "none.npy", (9, 12), "holes")
    with pytest.raises(InvalidInputError, match="need mask: a file"):
        require_effects(whole("fourier", measured=True), ())
    with pytest.raises(InvalidInputError, match="mask holes needs measured"):
        require_effects(whole("fourier", measured=False, mask="holes"), ("mask",))


def whole(name: str, **said: object) -> dict[str, object]:
    known = {key: each.default for key, each in task_options(name).items()}
    return {"name": name, **known, **said}


def made_of_frequencies(path: Path, size: tuple[int, ...], mask: str) -> tasks.Task:
    task = whole("fourier", measured=True, mask=mask, seed=0)
    files = {} if mask == "holes" else {"mask": read_image(mask, mask=True)}
    return make_task(task, read_image(str(path), channel_axis=axis_of(path)), size, files)


def axis_of(path: Path) -> int | None:
    return 0 if np.load(path).ndim == 3 else None


def test_data_of_an_operator_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "import torch\n"
        "def make(shape):\n"
        "    return torch.eye(shape[0] * shape[1] * shape[2], dtype=torch.float64)[::2]\n"
    )
    rng = np.random.default_rng(0)
    np.save(tmp_path / "data.npy", rng.random(24, dtype=np.float32))
    task = made("operator", tmp_path / "data.npy", (6, 8), operator=f"{file}:make")
    assert task.shape == (1, 6, 8)
    assert task.clean is None
    torch.testing.assert_close(
        task.measurement.flatten(), torch.from_numpy(np.load(tmp_path / "data.npy"))
    )
    with pytest.raises(ImageError, match=r"measures \(20,\) numbers of an image of \(1, 5, 8\)"):
        made("operator", tmp_path / "data.npy", (5, 8), operator=f"{file}:make")
