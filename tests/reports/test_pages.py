"""What the pages of fits hold, without a browser: numbers, images, sizes, escaping."""

from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

import dipkernels
from dipkernels import fit, networks, tasks
from dipkernels.reports import fit_page
from dipkernels.reports.charts import thinned
from dipkernels.reports.citing import AUTHORS, TITLE, YEAR, citation
from dipkernels.reports.frames import Frames, error_power, frames_of, sheets
from dipkernels.reports.verdicts import comparison_verdict, fit_verdict
from dipkernels.spectra.bins import bin_masks
from dipkernels.storage import RunFolder, open_run
from helpers.pages import NASTY, data_of, pixels_of, without_scripts

SIZE = (16, 24)


def small(size: tuple[int, ...] = SIZE, channels: int = 3) -> networks.ImagePrior:
    return networks.create(
        "deep-decoder", image_size=size, channels=channels, width=6, upsamplings=1
    )


def noisy(size: tuple[int, ...] = SIZE, channels: int = 3) -> tasks.Task:
    draw = torch.rand(channels, *size, generator=torch.Generator().manual_seed(3))
    return tasks.denoise(draw, seed=1)


def page_of(path: Path, task: tasks.Task, result: xr.Dataset, **settings: str) -> Path:
    folder = RunFolder.open(path, {"image": "picture.png", **settings})
    folder.stage("fit", lambda: result)
    return fit_page(folder, result, task)


def test_a_page_holds_the_images_and_scores_of_its_fit(tmp_path: Path) -> None:
    task = noisy()
    result = fit(small(), task, iterations=12, seed=[0, 1])
    data = data_of(page_of(tmp_path / "run", task, result))
    (own,) = data["networks"].values()
    first = result.isel(seed=0)
    clean = first.psnr_clean.sel(region="whole")
    scores = [[float(word.split()[0]) for word in said.split(", ")] for said in own["said"]]
    both = clean[own["positions"]].values, first.psnr_noisy[own["positions"]].values
    assert np.abs(np.array(scores).T - np.array(both)).max() < 5.1e-3  # two digits
    assert data["start"] == int(first.peak_iteration) in own["positions"]
    for iteration, image in (
        (0, first.initial),
        (12, first.final),
        (int(first.peak_iteration), first.best),
    ):
        found = pixels_of(own["frames"], own["positions"].index(iteration))
        assert found == pytest.approx(image.values, abs=1.01 / 255)  # twice in 8 bits
    for name, image in (("clean", first.clean), ("measured", first.measurement)):
        sheet = data["references"][name]
        reach = sheet["high"][0] - sheet["low"][0]
        assert pixels_of(sheet, 0) == pytest.approx(image.values, abs=0.51 * reach / 255)


def test_power_of_the_error_adds_up_to_its_mean_square() -> None:
    generator = np.random.default_rng(0)
    pixels = generator.random((3, 2, 12, 20)).astype(np.float32)
    reference = generator.random((2, 12, 20)).astype(np.float32)
    found = error_power(Frames([0, 1, 2], pixels), reference)
    assert found is not None
    modes = np.array([mask.sum() for mask in bin_masks((12, 20))[1:]])
    error = (pixels - reference).astype(float)
    varying = error - error.mean(axis=(2, 3), keepdims=True)
    # Parseval: the mean over frequencies is the mean over pixels; float64 throughout
    expected = np.square(varying).mean(axis=(1, 2, 3))
    assert (found[1] * modes).sum(axis=1) / (12 * 20) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("budget", [40_000, 8_000, 1_500])
def test_images_are_made_to_fit(budget: int) -> None:
    generator = np.random.default_rng(1)
    pixels = generator.random((9, 3, 32, 48)).astype(np.float32)
    references = {"clean": pixels[0]}
    found = sheets({"a": Frames(list(range(9)), pixels)}, references, budget)
    encoded, beside, kept, block = found[:4]
    size = sum(len(each["sheet"]) for each in (*encoded.values(), *beside.values()))
    assert size <= budget
    assert kept["a"].iterations[0] == 0
    assert kept["a"].iterations[-1] == 8
    assert (encoded["a"]["height"], encoded["a"]["width"]) == (32 // block, 48 // block)
    means = kept["a"].pixels.reshape(-1, 3, 32 // block, block, 48 // block, block).mean((3, 5))
    for i, mean in enumerate(means):
        assert pixels_of(encoded["a"], i) == pytest.approx(mean, abs=0.51 / 255)


def test_an_incompressible_fit_stays_within_6_megabytes(tmp_path: Path) -> None:
    task = noisy((96, 96))
    result = fit(small((96, 96)), task, iterations=1, snapshots=0)
    # noise at every one of 60 iterations: nothing to compress
    shape, generator = (60, 3, 96, 96), np.random.default_rng(0)
    result = result.isel(iteration=[0] * 60).assign_coords(iteration=np.arange(60))
    result["snapshots"] = (
        ("snapshot", "channel", "y", "x"),
        generator.integers(0, 256, shape, dtype=np.uint8),
    )
    low, high = np.zeros(60, np.float32), np.ones(60, np.float32)
    result["snapshot_low"], result["snapshot_high"] = ("snapshot", low), ("snapshot", high)
    page = page_of(tmp_path / "run", task, result.assign_coords(snapshot=np.arange(60)))
    assert page.stat().st_size < 6e6
    assert "pixels are averaged" in page.read_text() or len(frames_of(result).iterations) == 60


@pytest.mark.parametrize("kind", ["signal", "volume", "inpaint", "no truth", "old"])
def test_whatever_is_fitted_has_a_page(tmp_path: Path, kind: str) -> None:
    size = {"signal": (24,), "volume": (8, 8, 12)}.get(kind, SIZE)
    channels = 3 if kind == "inpaint" else 1
    task = noisy(size, channels)
    if kind == "inpaint":
        task = tasks.inpaint(task.clean, tasks.bernoulli_mask(SIZE, seed=1), seed=1)
    if kind == "no truth":
        task = tasks.denoise(measurement=task.measurement, noise_sigma=0.1)
    result = fit(small(size, channels), task, iterations=4, snapshots=0 if kind == "old" else 40)
    page = page_of(tmp_path / "run", task, result)
    data, text = data_of(page), unescape(without_scripts(page))
    (own,) = data["networks"].values()
    assert set(own["positions"]) <= set(range(5))
    assert kind == "old" or own["positions"] == list(range(5))
    assert ("clean" in data["references"]) == (kind != "no truth")
    assert ("mask" in data["references"]) == (kind == "inpaint")
    assert data["signal"] == (kind == "signal")
    assert (kind == "no truth") == ("the clean image isn't known" in text)
    assert ("The measured image itself" in text) == (kind not in ("no truth", "inpaint"))
    assert set(data["charts"]) == {"chart-psnr", "chart-power"}


def test_words_of_users_are_escaped(tmp_path: Path) -> None:
    task = noisy()
    result = fit(small(), task, iterations=2).assign_attrs(prior=NASTY)
    page = page_of(tmp_path / "run", task, result, image=NASTY, note=NASTY)
    text = page.read_text(encoding="utf-8")
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert NASTY in unescape(without_scripts(page))
    assert list(data_of(page)["networks"]) == [NASTY]


def test_the_box_in_python_reopens_the_run(tmp_path: Path) -> None:
    task = noisy()
    result = fit(small(), task, iterations=3)
    page = page_of(tmp_path / "it's a run", task, result)
    box = without_scripts(page).partition('<pre id="in-python">')[2].partition("</pre>")[0]
    scope: dict[str, object] = {}
    exec(unescape(box), scope)
    assert scope["images"].sizes["snapshot"] == 4  # type: ignore[attr-defined]
    assert open_run(tmp_path / "it's a run").stages["fit"].equals(scope["result"])


def test_the_citation_is_that_of_the_repository() -> None:
    path = Path(__file__).parents[2] / "CITATION.cff"
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert [given["title"], given["authors"][0]["name"]] == [TITLE, AUTHORS]
    assert str(given["date-released"])[:4] == YEAR
    assert f"version = {{{dipkernels.__version__}}}" in citation()


def test_verdicts_say_what_the_numbers_tell() -> None:
    def row(name: str, psnr: float, spread: float, at: int = 10) -> dict[str, object]:
        found = {"prior": name, "peak_psnr": psnr, "peak_psnr_spread": spread, "seeds": 4}
        return found | {"peak_iteration": at, "iterations": 100}

    rows = [row("a", 20.0, 0.3), row("b", 24.0, 0.4), row("c", 23.9, 0.3, 99), row("d", 15.0, 0.1)]
    sound, said = comparison_verdict(rows, 18.0)
    assert sound
    assert said == (
        "b comes nearest to the clean image: 24.00 +- 0.40 dB, 6.0 dB above the measured image "
        "(18.00 dB) (4 seeds). c can't be distinguished from it with these seeds. d never gets "
        "above the measured image. c was still rising at the end."
    )
    sound, said = comparison_verdict(rows[3:], 18.0)
    assert not sound
    assert "3.0 dB below the measured image" in said
    assert comparison_verdict([], None) == (False, "No network has been fitted yet.")


def test_the_verdict_of_a_fit() -> None:
    task = noisy()
    result = fit(small(), task, iterations=40, learning_rate=0.05)
    top, at = float(result.peak_psnr), int(result.peak_iteration)
    _, said = fit_verdict(result, task)
    assert said.startswith(f"deep-decoder reaches {top:.2f} dB at iteration {at}, ")
    late = result.assign_attrs(peak_iteration=40)
    assert "It was still rising when it ended" in fit_verdict(late, task)[1]
    fallen = result.copy(deep=True)
    fallen["psnr_clean"][-1] = top - 3
    fallen.attrs["peak_iteration"] = 5
    assert f"After 40 iterations it has fallen to {top - 3:.2f} dB." in fit_verdict(fallen, task)[1]
    broken = fit_verdict(result.assign_attrs(status="interrupted"), task)
    assert broken[0] is False
    assert "interrupted after 40 iterations" in broken[1]


def test_long_curves_are_thinned_but_for_their_peak() -> None:
    chosen = thinned(20_001, [7, 12_345])
    assert len(chosen) < 520
    assert {0, 7, 12_345, 20_000} <= set(chosen.tolist())
    assert (np.diff(chosen) > 0).all()
    assert thinned(5).tolist() == [0, 1, 2, 3, 4]
