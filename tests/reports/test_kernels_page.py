"""The page of kernels: its numbers, its images, its verdict, and what it does in a browser."""

import copy
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dipkernels import networks
from dipkernels.errors import InvalidInputError
from dipkernels.plotting.spectra import counted
from dipkernels.plotting.style import styles
from dipkernels.reports import kernels_page
from dipkernels.reports.kernels import kernel_charts, kernel_row
from dipkernels.reports.verdicts import kernels_verdict
from dipkernels.stages.registry import find_stage
from dipkernels.stages.subject import Subject
from dipkernels.storage import RunFolder
from helpers.commands import call
from helpers.pages import NASTY, data_of, opened, pixels_of, without_scripts


@pytest.fixture(scope="module")
def kernel() -> xr.Dataset:
    """Measure a small kernel, of fewer steps than it has eigenvalues."""
    prior = networks.create("deep-decoder", image_size=(6, 8), channels=1, width=6, upsamplings=1)
    return find_stage("kernel").run(Subject(prior), steps=6, probes=2)


def written(path: Path, kernels: dict[str, xr.Dataset]) -> Path:
    folder = RunFolder.open(path, {"command": "spectrum", "seed": 0})
    for name, each in kernels.items():
        folder.stage(f"{name[0]}/kernel", each.copy)
    return kernels_page(folder, kernels)


def test_a_page_holds_the_numbers_and_images_of_its_kernels(
    tmp_path: Path, kernel: xr.Dataset
) -> None:
    page = written(tmp_path / "run", {"a": kernel, NASTY: kernel})
    data, text = data_of(page), unescape(without_scripts(page))
    assert NASTY in text
    assert "<script>alert" not in page.read_text(encoding="utf-8")
    assert list(data["networks"]) == ["a", NASTY]
    own = data["networks"]["a"]
    assert own["positions"] == kernel["rank"].values.tolist()
    for rank, vector in enumerate(kernel.eigenvector.values):
        shown = pixels_of(own["frames"], rank)
        assert shown == pytest.approx(vector / np.abs(vector).max(), abs=1.01 / 255)  # 8 bits
    assert set(data["charts"]) == {"chart-response", "chart-eigenvalues", "chart-density"}
    table = pd.read_csv(page.parent / "kernels.csv")
    assert table.prior.tolist() == ["a", NASTY]
    assert table.trace[0] == pytest.approx(kernel.trace)
    assert f"{kernel.largest_eigenvalue:.3g}" in text
    box = without_scripts(page).partition('<pre id="in-python">')[2].partition("</pre>")[0]
    scope: dict[str, Any] = {}
    exec(unescape(box), scope)
    assert scope["kernel"].equals(kernel)


def test_eigenvalues_that_are_placed_lie_above_the_smallest_node(kernel: xr.Dataset) -> None:
    row = kernel_row("a", kernel)
    lowest = kernel.nodes.values.min(axis=1)
    held = kernel.weights.values[[0, 1], kernel.nodes.values.argmin(axis=1)].mean()
    assert row["placed"] <= 48 - held + 1e-9  # Rademacher probes: weights add up to the size
    step = 10 ** (9 / 299)  # of the grid on which they are counted
    assert lowest.min() / step <= row["placed_down_to"] * kernel.largest_eigenvalue
    assert row["largest_share"] == pytest.approx(kernel.largest_eigenvalue / kernel.trace)
    assert counted(kernel).index[-1] == pytest.approx(48)


def test_verdicts_name_who_prefers_low_frequencies(kernel: xr.Dataset) -> None:
    def row(name: str, half: float) -> dict[str, object]:
        more = {"half_power_frequency": half, "placed": 20.0, "placed_down_to": 1e-4}
        return kernel_row(name, kernel) | more

    rows = [row("a", 0.2), row("b", 0.1), row("c", np.inf)]
    assert kernels_verdict(rows) == (
        "b prefers low frequencies most: its response falls to half at 0.100 cycles per pixel (one "
        "seed). a at 0.200 follows. The response of c never falls to half. About 20 of 48 "
        "eigenvalues of a (and more of the others) are resolved, those above 1e-04 of the largest; "
        "of the rest only the number and the sum are known."
    )
    assert kernels_verdict(rows[1:2]).startswith("The kernel of b is a low-pass filter: its resp")
    assert "c is no low-pass filter: its response falls to half at no frequency" in kernels_verdict(
        rows[2:]
    )
    assert kernels_verdict(rows[2:] * 2).startswith("No network prefers low frequencies")


def test_a_slider_through_iterations_marks_no_eigenvalue(kernel: xr.Dataset) -> None:
    kernels = {"a": kernel}
    for marked in (False, True):
        _, (_, _, make), _ = kernel_charts(kernels, styles(kernels), marked=marked)
        assert [each.name for each in make().center].count("mark") == marked


def test_other_datasets_are_refused(tmp_path: Path, kernel: xr.Dataset) -> None:
    folder = RunFolder.open(tmp_path / "run", {})
    for given, said in (({}, "at least one"), ({"a": kernel.drop_vars("nodes")}, "stage 'kernel'")):
        with pytest.raises(InvalidInputError, match=said):
            kernels_page(folder, given)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["24", "4x6x4"])
def test_commands_write_it_of_signals_and_volumes(
    tmp_path: Path, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--size", size, "--channels", "1", "--steps", "4", "--quiet")
    path = tmp_path / "out"
    if "x" in size:
        assert call("ntk", "deep-decoder", *options, "--output", str(path)) == 0
    else:
        assert call("spectrum", "deep-decoder", *options, "--output", str(path)) == 0
    assert f"Report: {path / 'index.html'}" in capsys.readouterr().out
    assert (path / "index.html").stat().st_size < 6e6


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1400, False)])
def test_a_browser_shows_curves_and_eigenvectors(
    tmp_path: Path, kernel: xr.Dataset, running: Any, width: int, dark: bool
) -> None:
    other = copy.deepcopy(kernel)
    other["eigenvector"] = -other.eigenvector
    page = written(tmp_path / "run", {"first": kernel, "second": other})
    plots = "Bokeh.documents.flatMap(d => d.roots())"
    with opened(running, page, width=width, dark=dark) as found:
        assert found.overflow() <= 0
        slider = found.page.locator("#position")
        slider.focus()
        found.page.keyboard.press("ArrowRight")
        assert found.page.locator("#position-said").text_content() == "rank 2"
        mark = f"{plots}.flatMap(p => p.center).find(each => each.name === 'mark').location"
        assert found.page.evaluate(mark) == 2
        assert found.page.locator("#left .at").text_content().startswith("rank 2: eigenvalue ")
        reads = [
            found.page.evaluate(
                "side => [...document.querySelector(`#${side} canvas`).getContext('2d')"
                ".getImageData(0, 0, 8, 6).data]",
                side,
            )
            for side in ("left", "right")
        ]
        left, right = (np.array(each).reshape(6, 8, 4)[..., 0] for each in reads)
        vector = kernel.eigenvector.values[1, 0]
        expected = 255 * (0.5 + 0.5 * vector / np.abs(vector).max())  # grey is 0
        assert np.abs(left - expected).max() <= 1.6  # twice rounded to 8 bits
        assert np.abs(left + right - 255).max() <= 2
        seen = f"name => {plots}.flatMap(p => p.renderers).filter(r => r.tags.includes(name))"
        assert set(found.page.evaluate(f"({seen}.map(r => r.visible))", "second")) == {True}
        found.page.get_by_label("second", exact=True).click()
        assert set(found.page.evaluate(f"({seen}.map(r => r.visible))", "second")) == {False}
        assert set(found.page.evaluate(f"({seen}.map(r => r.visible))", "first")) == {True}
        assert found.complaints == []
