"""Projections and mosaics that were measured, in the words of commands and plans."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dipkernels import images, tasks
from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.specs.image import read_beside, read_image
from dipkernels.specs.record import task_record
from dipkernels.specs.task import files_of, make_task, require_effects, task_options


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


def test_coils_and_complex_images_are_those_of_the_operator(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    size, coils = (9, 12), 3
    maps = torch.randn(coils, *size, dtype=torch.complex64, generator=random)
    image = torch.rand(2, *size, generator=random) - 0.5
    mask = tasks.line_mask(size, known=0.5, seed=3)
    operator = tasks.Fourier(image.shape, mask, maps, complex_image=True)
    seen = maps.numpy() * images.to_complex(image).numpy()
    grid = np.fft.fftshift(np.fft.fft2(seen, norm="ortho"), axes=(1, 2))
    np.save(tmp_path / "data.npy", np.where(mask, grid, 0).astype(np.complex64))
    np.save(tmp_path / "maps.npy", maps.numpy())
    np.save(tmp_path / "image.npy", images.to_complex(image)[0].numpy())
    said = {"coils": str(tmp_path / "maps.npy"), "complex_image": True}
    axes = {"channel_axis": 0}
    given = {"mask": "holes", "clean": str(tmp_path / "image.npy"), **said}
    task = of_file("fourier", tmp_path / "data.npy", size, axes, measured=True, **given)
    torch.testing.assert_close(task.measurement, operator.forward(image), rtol=0, atol=1e-5)
    torch.testing.assert_close(task.clean, image)
    # white is that of data and image, not of coils
    half = of_file("fourier", tmp_path / "data.npy", size, axes, measured=True, white=2.0, **given)
    torch.testing.assert_close(half.measurement, task.measurement / 2)
    torch.testing.assert_close(half.forward(image), task.forward(image))
    # what would be measured of the image is the same
    (tmp_path / "mask.npy").unlink(missing_ok=True)
    np.save(tmp_path / "mask.npy", ~mask.numpy())
    drawn = of_file(
        "fourier", tmp_path / "image.npy", size, {}, mask=str(tmp_path / "mask.npy"),
        mask_hides="white", **said,
    )  # fmt: skip
    torch.testing.assert_close(drawn.measurement, operator.forward(image))
    # real maps are real
    np.save(tmp_path / "maps.npy", maps.real.numpy())
    real = of_file("fourier", tmp_path / "image.npy", size, {}, mask="lines", **said)
    assert real.measurement.shape[2] == coils
    np.save(tmp_path / "maps.npy", maps[:2].numpy())
    with pytest.raises(ImageError, match=r"there are 2 coils, .* coefficients of 3"):
        of_file("fourier", tmp_path / "data.npy", size, axes, measured=True, **given)


@pytest.mark.parametrize("kind", ["whole numbers", "complex", "a signal", "colours", "one row"])
def test_combinations_by_a_matrix_of_ones_own(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    shape = {"a signal": (1, 24), "colours": (3, 4, 6)}.get(kind, (1, 4, 6))
    count = 1 if kind == "one row" else 7
    size = {"a signal": (24,), "colours": (4, 6)}.get(kind, (4, 6))
    matrix = rng.integers(0, 2, (count, int(np.prod(shape)))).astype(np.uint8)
    if kind == "complex":
        matrix = (matrix - 0.5 + 1j * rng.random(matrix.shape)).astype(np.complex64)
    image = rng.random(shape, dtype=np.float32)
    seen = matrix @ image.ravel()  # the oracle: the matrix itself
    np.save(tmp_path / "matrix.npy", matrix)
    np.save(tmp_path / "seen.npy", seen.astype(np.result_type(seen, np.float32)))
    said = {"matrix": str(tmp_path / "matrix.npy")}
    task = of_file("sense", tmp_path / "seen.npy", size, {}, measured=True, **said)
    assert task.shape == shape
    expected = np.stack([seen.real, seen.imag]) if kind == "complex" else seen
    np.testing.assert_allclose(task.measurement, expected, rtol=1e-5)
    np.testing.assert_allclose(task.forward(torch.from_numpy(image)), expected, rtol=0, atol=1e-5)
    with pytest.raises(ImageError, match=r"makes .* combinations of .* numbers, the file has"):
        of_file("sense", tmp_path / "seen.npy", (5, 7), {}, measured=True, **said)
    # no size was said: that of the data is none of an image of other numbers
    with pytest.raises(ImageError, match=r"combines \d+ numbers: say the size of their image"):
        of_file("sense", tmp_path / "seen.npy", (count,), {}, measured=True, **said)


def test_what_is_said_of_combinations_in_vain() -> None:
    for said, words in (
        ({"measured": True}, "need matrix FILE, the matrix that they were measured by"),
        ({"matrix": "phi.npy", "known": 0.3}, "known has no effect with a matrix of your own"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            require_effects(whole("sense", **said), said)


OWN = """
import torch

def seven(shape):  # of any image
    return lambda image: image.flatten()[:7]

def halves(shape):
    c, h, w = shape
    return lambda image: image.flatten()[::2]

def signals(shape):
    c, n = shape
    return lambda signal: signal.diff(dim=-1).flatten()
"""


def test_one_number_is_the_side_of_the_image_that_the_data_fit(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    for name, count, side, shape in (
        ("halves", 32, 8, (1, 8, 8)), ("signals", 23, 24, (1, 24)),
    ):  # fmt: skip
        np.save(tmp_path / "data.npy", np.linspace(0, 1, count, dtype=np.float32))
        said = {"operator": f"{tmp_path / 'own.py'}:{name}", "measured": True}
        task = of_file("operator", tmp_path / "data.npy", (side,), {}, **said)
        assert task.shape == shape
    np.save(tmp_path / "data.npy", np.zeros(7, np.float32))
    said["operator"] = f"{tmp_path / 'own.py'}:seven"
    with pytest.raises(ImageError, match="for images of 24x24 and for 24 pixels: say all sides"):
        of_file("operator", tmp_path / "data.npy", (24,), {}, **said)
    assert of_file("operator", tmp_path / "data.npy", (24, 24), {}, **said).shape == (1, 24, 24)
    assert of_file("operator", tmp_path / "data.npy", (7,), {}, **said).shape == (1, 7)  # unsaid
    np.save(tmp_path / "clean.npy", np.zeros(24, np.float32))
    said["clean"] = str(tmp_path / "clean.npy")
    assert of_file("operator", tmp_path / "data.npy", (24,), {}, **said).shape == (1, 24)
    with pytest.raises(InvalidInputError, match=r"own\.py:halves failed on"):
        said |= {"operator": f"{tmp_path / 'own.py'}:halves"}
        of_file("operator", tmp_path / "data.npy", (24,), {}, **said)


def test_an_operator_is_known_by_the_text_that_made_it(tmp_path: Path) -> None:
    records = []
    np.save(tmp_path / "data.npy", np.linspace(0, 1, 32, dtype=np.float32))
    for text in (OWN, OWN.replace("[::2]", "[1::2]"), OWN):
        (tmp_path / "own.py").write_text(text)
        said = {"operator": f"{tmp_path / 'own.py'}:halves", "measured": True}
        task = of_file("operator", tmp_path / "data.npy", (8, 8), {}, **said)
        records.append(task_record("data.npy", task))
    assert records[0] == records[2] != records[1]


def of_file(
    name: str, path: Path, size: tuple[int, ...], axes: dict[str, object], **said: object
) -> tasks.Task:
    task = whole(name, **said)
    require_effects(task, said)
    file = read_image(str(path), **axes)
    files = {each: read_beside(each, task[each], axes, file) for each in files_of(task)}
    return make_task({**task, "seed": 0}, file, size, files)
