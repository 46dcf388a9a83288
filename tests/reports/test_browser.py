"""Pages in a real browser: clicks, keys, widths, dark mode, no complaints, and without scripts."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dipkernels import fit, images, networks, tasks
from dipkernels.reports import write_report
from dipkernels.stages.comparison import ComparisonSettings
from dipkernels.storage import RunFolder
from helpers.pages import data_of, opened

pytestmark = pytest.mark.slow

NAMES = ("first", "second <b>", "third")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the page of a comparison, of which the fits are there."""
    task = tasks.denoise(images.load("camera", size=(16, 24)), noise_sigma=0.1, seed=1)
    priors = {
        name: networks.create("deep-decoder", image_size=(16, 24), channels=1, width=width)
        for name, width in zip(NAMES, (4, 8, 16), strict=True)
    }
    settings = ComparisonSettings(image="<i>camera</i>")
    path = tmp_path_factory.mktemp("page") / "run"
    folder = RunFolder.open(path, settings.record(task, priors))
    for name, prior in priors.items():
        result = fit(prior, task, iterations=60, seed=[0, 1], learning_rate=0.03)
        folder.stage(f"{name}/fit_adam", partial(result.assign_attrs, prior=name))
    return write_report(folder, list(NAMES), task)


def pixels(page: Any, pane: str, part: str) -> np.ndarray:
    """Read what a canvas shows."""
    found = page.evaluate(
        """([pane, part]) => {
            const canvas = document.querySelector(`#${pane} figure[data-part=${part}] canvas`);
            const { width, height } = canvas;
            return [...canvas.getContext("2d").getImageData(0, 0, width, height).data];
        }""",
        [pane, part],
    )
    return np.array(found).reshape(16, 24, 4)[..., 0]


def mark(page: Any) -> float:
    """Say where the mark on the curves is, in iterations."""
    return page.evaluate(
        "Bokeh.documents.flatMap(d => d.roots()).flatMap(p => p.center)"
        ".find(each => each.name === 'mark').location - 1"
    )


def power(page: Any, name: str) -> list[float]:
    """Read a curve of the chart that follows the slider."""
    return page.evaluate(
        "name => [...Bokeh.documents.flatMap(d => d.roots()).flatMap(p => p.renderers)"
        ".find(r => r.name === 'at-iteration' && r.tags[0] === name).data_source.data.power]",
        name,
    )


def test_the_slider_moves_images_marks_and_errors_together(running: Any, report: Path) -> None:
    data = data_of(report)
    with opened(running, report) as found:
        page = found.page
        left = page.locator("#left select").input_value()
        assert mark(page) == data["start"]
        slider = page.locator("#position")
        slider.focus()
        page.keyboard.press("Home")
        assert page.locator("#position-said").text_content() == "iteration 0"
        first, at_first = pixels(page, "left", "image"), power(page, left)
        assert mark(page) == 0
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp"):
            page.keyboard.press(key)
        assert page.locator("#position-said").text_content() == "iteration 2"
        assert mark(page) == 2
        page.keyboard.press("End")
        assert mark(page) == 60
        assert not np.array_equal(pixels(page, "left", "image"), first)
        last = power(page, left)
        assert last == pytest.approx(data["networks"][left]["power"][-1])
        assert last != pytest.approx(at_first)
        said = page.locator("#left .at").text_content()
        assert said == f"iteration 60: {data['networks'][left]['said'][-1]}"
        assert " dB to clean, " in said
        assert found.complaints == []


def test_images_are_those_of_the_fit(running: Any, report: Path) -> None:
    result = RunFolder(report.parent).stored("third/fit_adam")
    assert result is not None
    one = result.isel(seed=0)
    scale = data_of(report)["scale"]
    with opened(running, report) as found:
        page = found.page
        page.locator("#left select").select_option("third")
        page.locator("#position").focus()
        page.keyboard.press("End")
        shown = pixels(page, "left", "image")
        assert np.abs(shown - 255 * one.final.values[0]).max() <= 1.01
        error = (one.final - one.clean).values[0]
        expected = 255 * np.clip(0.5 + error / (2 * scale), 0, 1)
        # two values in 8 bits, and the difference is drawn in steps of its own
        assert np.abs(pixels(page, "left", "clean") - expected).max() <= 0.5 + 1 / (2 * scale) + 0.5
        # the value under the pointer
        canvas = page.locator("#left figure[data-part=image] canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 20.5 / 24, box["y"] + box["height"] * 3.5 / 16)
        said = page.locator("#left .value").text_content()
        assert said.startswith("image, x 20, y 3: ")
        assert float(said.split()[-1]) == pytest.approx(float(one.final[0, 3, 20]), abs=1.01 / 255)


def test_networks_are_toggled_and_two_stand_side_by_side(running: Any, report: Path) -> None:
    seen = (
        "name => Bokeh.documents.flatMap(d => d.roots()).flatMap(p => p.renderers)"
        ".filter(r => r.tags.includes(name)).map(r => r.visible)"
    )
    with opened(running, report) as found:
        page = found.page
        box = page.get_by_label("second <b>")
        # to clean and to measured with their bands, and the error by frequency
        assert page.evaluate(seen, "second <b>") == [True] * 5
        box.click()
        assert page.evaluate(seen, "second <b>") == [False] * 5
        assert page.evaluate(seen, "first") == [True] * 5
        box.focus()
        page.keyboard.press("Space")
        assert page.evaluate(seen, "second <b>") == [True] * 5
        for side, name in (("left", "second <b>"), ("right", "clean")):
            page.locator(f"#{side} select").select_option(name)
        assert not np.array_equal(pixels(page, "left", "image"), pixels(page, "right", "image"))
        assert page.locator("#right figure[data-part=clean]").is_hidden()
        assert found.complaints == []


def test_tables_sort_and_filter(running: Any, report: Path) -> None:
    with opened(running, report) as found:
        page = found.page

        def shown() -> list[str]:
            rows = page.locator("#results tbody tr:visible td:first-child")
            return [text.strip() for text in rows.all_text_contents()]

        assert shown() == [*NAMES, "measured image"]
        peaks = page.locator("#results td:nth-child(3)").evaluate_all(
            "cells => cells.map(cell => Number(cell.dataset.sort))"
        )[:3]
        ascending = [NAMES[i] for i in np.argsort(peaks)]
        head = page.locator("#results th:nth-child(3) button")
        head.click()
        assert shown() == [*ascending, "measured image"]  # which stays last
        head.focus()
        page.keyboard.press("Enter")
        assert shown() == [*ascending[::-1], "measured image"]
        page.get_by_label("Filter rows").fill("SECOND")
        assert shown() == ["second <b>"]
        page.get_by_label("Filter rows").fill("")
        page.get_by_label("Sort by").select_option("0 up")
        assert shown() == [*NAMES, "measured image"]
        assert found.complaints == []


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_the_window_in_light_and_dark(
    running: Any, report: Path, width: int, dark: bool
) -> None:
    with opened(running, report, width=width, dark=dark) as found:
        assert found.overflow() <= 0
        luminance = found.page.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3)"
        )
        assert (sum(map(int, luminance)) < 3 * 128) == dark
        ink = found.page.evaluate(
            "Bokeh.documents[0].roots()[0].below[0].axis_label_text_color.value"
            " ?? Bokeh.documents[0].roots()[0].below[0].axis_label_text_color"
        )
        assert (int(ink[1:3], 16) > 128) == dark
        assert found.complaints == []


def test_without_scripts_it_says_verdict_and_table(running: Any, report: Path) -> None:
    with opened(running, report, scripts=False) as found:
        page = found.page
        assert "comes nearest to the clean image" in page.locator("#verdict").text_content()
        assert page.locator("#results tbody tr").count() == 4
        assert "camera" in page.locator(".lead").text_content()
        assert page.locator("#position").is_hidden()
        assert page.get_by_text("This part needs JavaScript").is_visible()
        assert page.locator("#in-python").is_visible()
