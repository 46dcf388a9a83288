"""The page of a posterior: its draws, maps and traces, and what its slider moves."""

from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from dipkernels import networks, sampling, tasks
from dipkernels.images.axes import pixel_axes
from dipkernels.reports import posterior_page
from dipkernels.sampling.summaries import known_of
from dipkernels.storage import RunFolder
from helpers.pages import data_of, opened, pixels_of, without_scripts

SIZE = (12, 14)


def noisy(size: tuple[int, ...] = SIZE, channels: int = 1) -> tasks.Task:
    draw = torch.rand(channels, *size, generator=torch.Generator().manual_seed(3))
    return tasks.denoise(draw, noise_sigma=0.1, seed=1)


@pytest.fixture(scope="module")
def chains() -> tuple[xr.Dataset, tasks.Task]:
    """Run two short chains."""
    task = noisy()
    prior = networks.create("deep-decoder", image_size=SIZE, channels=1, width=6, upsamplings=1)
    posterior = sampling.WeightPosterior(prior, task)
    return sampling.sample(posterior, iterations=60, chains=2, burn_in=20, thin=4), task


def written(path: Path, result: xr.Dataset, task: tasks.Task) -> Path:
    folder = RunFolder.open(path, {"command": "posterior", "image": "a.png", "seed": 0})
    folder.stage("posterior", result.copy)
    return posterior_page(folder, result, task, words="Some draws.").page


def made_up(task: tasks.Task, draws: int = 5) -> xr.Dataset:
    """Make draws around the truth, or around the measurement, of a method without iterations."""
    middle = task.measurement if task.clean is None else task.clean
    noise = torch.randn(1, draws, *task.shape, generator=torch.Generator().manual_seed(0))
    values = (middle + 0.05 * noise).numpy()
    dims = ("chain", "draw", *pixel_axes(task.shape))
    attrs = {"method": "mine", "prior": "mine", "task": task.name, "noise_sigma": 0.1}
    return xr.Dataset({"draws": (dims, values)} | known_of(task), {"chain": [0]}, attrs)


@pytest.mark.slow
def test_a_page_holds_the_draws_and_the_maps(
    tmp_path: Path, chains: tuple[xr.Dataset, tasks.Task]
) -> None:
    result, task = chains
    page = written(tmp_path / "run", result, task)
    data = data_of(page)
    assert page.stat().st_size < 6e6
    assert list(data["networks"]) == ["chain 0", "chain 1"]
    assert data["word"] == "iteration"
    for chain, own in enumerate(data["networks"].values()):
        assert own["positions"] == result.draw_iteration.values.tolist()
        for number, image in enumerate(result.draws.values[chain]):
            assert pixels_of(own["frames"], number) == pytest.approx(image, abs=0.6 / 255)
            score = float(task.psnr(torch.from_numpy(image)))
            said = own["said"][number]
            assert said == f"draw {number + 1} of {result.sizes['draw']}, {score:.2f} dB to clean"
    maps = sampling.uncertainty.maps(result)
    error = np.abs(maps["mean"].values - task.clean.numpy())
    for name, image in (("mean", maps["mean"]), ("deviation", maps["std"]), ("error", error)):
        sheet = data["references"][name]
        step = (sheet["high"][0] - sheet["low"][0]) / 255
        assert pixels_of(sheet, 0) == pytest.approx(np.asarray(image), abs=0.51 * step)
    # deviation and error share black and white, which lie within what is there
    assert data["ranges"]["deviation"] == data["ranges"]["error"] == [0, pytest.approx(
        max(np.quantile(maps["std"], 0.995), np.quantile(error, 0.995)))]  # fmt: skip
    assert set(data["charts"]) == {"chart-score", "chart-mean", "chart-misfit", "chart-power"}
    text = unescape(without_scripts(page))
    assert "error / standard deviation" in text
    assert "Conformal" not in text


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind == "inpaint" else pytest.mark.slow)
        for kind in ("signal", "volume", "colour", "inpaint", "no truth")
    ],
)
def test_whatever_is_sampled_has_a_page(tmp_path: Path, kind: str) -> None:
    size = {"signal": (24,), "volume": (6, 8, 10)}.get(kind, SIZE)
    task = noisy(size, 3 if kind == "colour" else 1)
    if kind == "inpaint":
        mask = tasks.bernoulli_mask(SIZE, seed=1)
        task = tasks.inpaint(task.clean, mask, noise_sigma=0.1, seed=1)
    if kind == "no truth":
        task = tasks.denoise(measurement=task.measurement, noise_sigma=0.1)
    result = made_up(task)
    folder = RunFolder.open(tmp_path / "run", {"command": "posterior"})
    folder.stage("posterior", result.copy)
    page = posterior_page(folder, result, task, words="", headline="Not a posterior: mine").page
    data = data_of(page)
    (own,) = data["networks"].values()
    assert own["positions"] == [1, 2, 3, 4, 5]
    assert data["word"] == "draw"
    assert data["signal"] == (kind == "signal")
    assert ("error" in data["references"]) == (kind != "no truth")
    assert ("mask" in data["references"]) == (kind == "inpaint")
    assert ("chart-score" in data["charts"]) == (kind != "no truth")
    one = data["references"]["deviation"]["channels"]
    assert one == 1  # the root mean square over channels
    if kind == "inpaint":
        mean = result.draws.values[0].mean(axis=0)
        score = float(task.psnr(torch.from_numpy(mean)))
        assert data["said"]["mean"] == f"{score:.2f} dB to clean, over the hole"


@pytest.mark.slow
def test_chains_that_diverged_are_left_out(
    tmp_path: Path, chains: tuple[xr.Dataset, tasks.Task]
) -> None:
    result, task = chains[0].copy(deep=True), chains[1]
    result["draws"][0] = np.nan
    result["loss"][0, 30:] = np.nan
    data = data_of(written(tmp_path / "run", result, task))
    assert list(data["networks"]) == ["chain 1"]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1400, False)])
def test_a_slider_moves_draws_residuals_and_marks(
    tmp_path: Path,
    chains: tuple[xr.Dataset, tasks.Task],
    running: Any,
    width: int,
    dark: bool,
) -> None:
    result, task = chains
    page = written(tmp_path / "run", result, task)
    marks = (
        "Bokeh.documents.flatMap(d => d.roots()).flatMap(p => p.center)"
        ".filter(each => each.name === 'mark').map(each => each.location)"
    )
    power = (
        "Bokeh.documents.flatMap(d => d.roots()).flatMap(p => p.renderers)"
        ".find(r => r.name === 'at-iteration').data_source.data.power"
    )

    def pixels(side: str, part: str) -> np.ndarray:
        found = opened_page.evaluate(
            "([side, part]) => [...document.querySelector(`#${side} figure[data-part=${part}] "
            "canvas`).getContext('2d').getImageData(0, 0, 14, 12).data]",
            [side, part],
        )
        return np.array(found).reshape(*SIZE, 4)[..., 0]

    with opened(running, page, width=width, dark=dark) as found:
        opened_page = found.page
        assert found.overflow() <= 0
        opened_page.locator("#position").focus()
        opened_page.keyboard.press("Home")
        first = int(result.draw_iteration[0])
        assert opened_page.evaluate(marks) == [first] * 3
        at_first = opened_page.evaluate(power)
        shown = pixels("left", "image")
        assert np.abs(shown - 255 * np.clip(result.draws.values[0, 0, 0], 0, 1)).max() <= 1.1
        opened_page.keyboard.press("ArrowRight")
        assert opened_page.evaluate(marks) == [int(result.draw_iteration[1])] * 3
        assert opened_page.evaluate(power) != at_first
        scale = data_of(page)["scale"]
        residual = (result.draws.values[0, 1] - task.measurement.numpy())[0]
        expected = 255 * np.clip(0.5 + residual / (2 * scale), 0, 1)
        near = np.abs(pixels("left", "measured") - expected).max()
        assert near <= 1 + 1 / (2 * scale)  # two values in 8 bits, drawn in steps of their own
        # the maps stand beside it, without differences
        sides = {side: opened_page.locator(f"#{side} select").input_value()
                 for side in ("right", "third", "fourth")}  # fmt: skip
        assert list(sides.values()) == ["mean", "deviation", "error"]
        assert opened_page.locator("#third figure[data-part=clean]").is_hidden()
        top = data_of(page)["ranges"]["deviation"][1]
        deviation = sampling.uncertainty.maps(result)["std"].values[0]
        assert np.abs(pixels("third", "image") - 255 * np.clip(deviation / top, 0, 1)).max() <= 2
        canvas = opened_page.locator("#third figure[data-part=image] canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        opened_page.mouse.move(
            box["x"] + box["width"] * 3.5 / 14, box["y"] + box["height"] * 2.5 / 12
        )
        said = opened_page.locator("#third .value").text_content()
        assert said.startswith("image, x 3, y 2: ")
        assert float(said.split()[-1]) == pytest.approx(deviation[2, 3], abs=1.5e-3)
        opened_page.get_by_label("chain 1", exact=True).click()
        seen = (
            "Bokeh.documents.flatMap(d => d.roots()).flatMap(p => p.renderers)"
            ".filter(r => r.tags.includes('chain 1')).map(r => r.visible)"
        )
        assert opened_page.evaluate(seen) == [False] * 4
        assert found.complaints == []
