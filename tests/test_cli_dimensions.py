"""The command line on volumes, signals, complex images and any number of channels."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from dipkernels import images, sweep
from dipkernels.cli import groups
from dipkernels.storage import netcdf
from helpers.commands import call

RNG = np.random.default_rng(0)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of files of many kinds."""
    stack = RNG.integers(0, 256, (4, 7, 9), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    cube = stack / 255
    np.save(tmp_path / "cube.npy", cube)
    np.save(tmp_path / "mask.npy", RNG.random(cube.shape) > 0.3)
    holes = cube.copy()
    holes[RNG.random(cube.shape) > 0.7] = np.nan
    np.save(tmp_path / "holes.npy", holes)
    np.save(tmp_path / "signal.npy", cube[0, 0])
    np.save(tmp_path / "cubes.npy", RNG.random((12, 9, 31)))
    np.save(tmp_path / "complex.npy", RNG.random((9, 8)) - 0.5 + 1j * RNG.random((9, 8)))
    return tmp_path


FIT = ("--iterations", "2", "--quiet", "--options", "width=4 upsamplings=1")
MEASURED = {"measured": True, "noise_sigma": 0.1}


@pytest.mark.parametrize(("file", "axes", "said", "size", "shape"), [
    ("stack.tif", {}, {}, None, (1, 4, 7, 9)),
    ("stack.tif", {"channel_axis": 0}, {}, "native", (4, 7, 9)),
    ("stack.tif", {"channel_axis": 0}, {}, None, (4, 64, 64)),
    ("stack.tif", {}, {}, "3", (1, 3, 3, 3)),
    ("stack.tif", {}, {}, "2x6x8", (1, 2, 6, 8)),
    ("cube.npy", {"volume": True}, {}, None, (1, 4, 7, 9)),
    ("cube.npy", {"volume": True}, {"mask": "{}/mask.npy", **MEASURED}, None, (1, 4, 7, 9)),
    ("holes.npy", {"volume": True}, {"mask": "holes", **MEASURED}, None, (1, 4, 7, 9)),
    ("signal.npy", {}, {}, None, (1, 9)),
    ("cubes.npy", {"channel_axis": -1}, {}, "8", (31, 8, 8)),
    ("complex.npy", {}, {}, "native", (2, 9, 8)),
])  # fmt: skip
def test_files_of_every_dimension_make_tasks(
    files: Path,
    file: str,
    axes: dict[str, Any],
    said: dict[str, Any],
    size: str | None,
    shape: tuple[int, ...],
) -> None:
    task = "inpaint" if said else "denoise"
    given = {k: v.format(files) if isinstance(v, str) else v for k, v in said.items()}
    words = groups.task_group().build({"task": task, **given, **axes})
    made = words.make(str(files / file), size, 0)
    assert made.shape == shape
    if file == "holes.npy":
        known = np.isfinite(np.load(files / file))
        np.testing.assert_array_equal(made.mask.numpy(), known)
    elif said:
        np.testing.assert_array_equal(made.mask.numpy(), np.load(files / "mask.npy"))


@pytest.mark.parametrize(("file", "options", "written"), [
    ("stack.tif", (), "final.tif"),
    pytest.param("signal.npy", (), "final.npy", marks=pytest.mark.slow),
    pytest.param(
        "complex.npy", ("--output-range", "none", "--size", "native"), "final.tif",
        marks=pytest.mark.slow,
    ),
])  # fmt: skip
def test_fits_of_every_dimension_are_drawn_and_written(
    files: Path, file: str, options: tuple[str, ...], written: str
) -> None:
    folder = files / "run"
    assert call("fit", "deep-decoder", "--image", str(files / file), *options, *FIT,
                "--output", str(folder)) == 0  # fmt: skip
    final = torch.from_numpy(netcdf.load(folder / "fit.nc")["final"].values)
    signal = written.endswith(".npy")
    again = (images.load_signal if signal else functools.partial(images.load, any_range=True))(
        folder / written
    )
    # As deep as the file that was read: at least 8 bits.
    torch.testing.assert_close(again, final, rtol=0, atol=0.51 / 255)
    assert (folder / "images.png").exists()


@pytest.mark.parametrize(("file", "options", "words"), [
    ("cube.npy", (), "--channel-axis 0"),
    ("stack.tif", ("--size", "8x8"), "8x8 has 2 numbers, but the image 3 dimensions"),
    ("stack.tif", ("--task", "dejpeg"), "images of two dimensions"),
    ("stack.tif", ("--task", "inpaint", "--mask", "text"), "images of two dimensions"),
    ("signal.npy", ("--volume",), "volume has no effect"),
])  # fmt: skip
def test_what_cannot_be_is_said_before_a_fit(
    files: Path, file: str, options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = files / "run"
    assert call("fit", "deep-decoder", "--image", str(files / file), *options, *FIT,
                "--output", str(folder)) != 0  # fmt: skip
    assert words in capsys.readouterr().err
    assert not folder.exists()


def test_networks_of_images_alone_refuse_a_volume_by_name(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = str(files / "stack.tif")
    assert call("compare", "--image", stack, "--priors", "deep-decoder,vit") != 0
    assert "'vit' makes 2D images" in capsys.readouterr().err


def test_a_sweep_brings_a_volume_to_one_number_of_pixels(files: Path) -> None:
    plan = sweep.load({
        "priors": {"name": "deep-decoder", "options": {"width": 4}},
        "images": str(files / "stack.tif"), "sizes": [4, "native", "3x4x5"],
        "measure": [{"name": "fit", "iterations": 1}],
    })  # fmt: skip
    shapes = [run.make()[1].shape for run in plan.runs]
    assert shapes == [(1, 4, 4, 4), (1, 4, 7, 9), (1, 3, 4, 5)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["signal.npy", "stack.tif"])
def test_a_blur_has_the_axes_of_the_image(name: str, files: Path, tmp_path: Path) -> None:
    arguments = ("fit", "deep-decoder", "--image", str(files / name), "--task", "deblur", "--blur")
    options = ("--options", "width=4 upsamplings=1", "--iterations", "2", "--quiet")
    assert (
        call(*arguments, "1", "--boundary", "zero", *options, "--output", str(tmp_path / "out"))
        == 0
    )
    measured = netcdf.load(tmp_path / "out" / "fit.nc").measurement
    assert measured.dims[1:] == (("x",) if name == "signal.npy" else ("z", "y", "x"))


@pytest.mark.parametrize("body", ["raise SystemExit(0)", "raise KeyError('no')", "def make(: 1"])
def test_a_file_of_operators_that_ends_is_said(
    body: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(body, encoding="utf-8")
    arguments = ("fit", "deep-decoder", "--size", "8", "--task", "operator", "--operator")
    assert call(*arguments, f"{file}:make", "--output", str(tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert "mine.py can't be imported" in said.splitlines()[-1] and "typer" not in said
