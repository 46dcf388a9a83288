"""The pages of scores, audits, covariances and Gaussian processes."""

from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from dipkernels import audit, gp, networks, score, tasks
from dipkernels.errors import InvalidInputError
from dipkernels.reports import audit_page, covariance_page, gp_page, score_page
from dipkernels.reports.regressed import process_row
from dipkernels.reports.verdicts import (
    audit_verdict,
    covariance_verdict,
    process_verdict,
    scores_verdict,
)
from dipkernels.stages.registry import find_stage
from dipkernels.stages.subject import Subject
from dipkernels.storage import RunFolder, open_run
from helpers.pages import NASTY, data_of, opened, pixels_of, without_scripts

SIZE = (8, 10)


def decoder(size: tuple[int, ...] = SIZE, width: int = 6) -> networks.ImagePrior:
    return networks.create(
        "deep-decoder", image_size=size, channels=1, width=width, upsamplings=1, output="none"
    )


def noisy(size: tuple[int, ...] = SIZE) -> tasks.Task:
    clean = torch.rand(1, *size, generator=torch.Generator().manual_seed(3))
    return tasks.denoise(clean, noise_sigma=0.1, seed=1)


def of_scores(path: Path) -> tuple[Path, Any]:
    task = noisy()
    names = {"narrow": 4, NASTY: 8}
    found = {name: score(decoder(width=w), task, seed=(0, 1)) for name, w in names.items()}
    folder = RunFolder.open(path, {"command": "score", "image": NASTY})
    for number, each in enumerate(found.values()):
        folder.stage(f"{number}/score", each.copy)
    return score_page(folder, found, task), found


def of_audit(path: Path) -> tuple[Path, Any]:
    task = noisy()
    effort: dict[str, Any] = {"iterations": 6, "freeze": 2, "steps": 4, "modes": 2, "probes": 2}
    found = audit(decoder(), task, folder=path, **effort)
    return audit_page(RunFolder(path), found, task), found


def of_covariance(path: Path) -> tuple[Path, Any]:
    found = find_stage("covariance").run(Subject(decoder()), samples=16)
    folder = RunFolder.open(path, {"command": "covariance", "codes": "fixed"})
    folder.stage("covariance", found.copy)
    return covariance_page(folder, found, name=NASTY), found


def of_process(path: Path) -> tuple[Path, Any]:
    task = noisy()
    found = gp.GaussianProcess(gp.rbf(1.5, 0.1), 0.5).posterior(task).dataset(draws=4)
    folder = RunFolder.open(path, {"command": "gp", "image": NASTY})
    folder.stage("gp", found.copy)
    return gp_page(folder, found, task, name=NASTY), found


PAGES: dict[str, Callable[[Path], tuple[Path, Any]]] = {
    "score": of_scores,
    "audit": of_audit,
    "covariance": of_covariance,
    "gp": of_process,
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=[] if kind == "gp" else pytest.mark.slow) for kind in PAGES],
)
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Any]:
    """Write each page once."""
    page, found = PAGES[request.param](tmp_path_factory.mktemp(request.param) / "run")
    return request.param, page, found


def test_each_begins_with_its_verdict_and_ends_with_both_boxes(
    written: tuple[str, Path, Any],
) -> None:
    kind, page, _ = written
    raw, text = without_scripts(page), unescape(without_scripts(page))
    assert page.stat().st_size < 6e6
    begins = {
        "score": "The kernel of ",
        "audit": "gradient-descent takes deep-decoder to ",
        "covariance": "Images of ",
        "gp": "The mean of ",
    }[kind]
    first = raw[raw.index("<body>") :].partition('id="verdict">')[2]
    assert first.startswith(begins)
    assert "<script>alert" not in page.read_text(encoding="utf-8")
    assert ("The measured image itself: " in text) == (kind != "covariance")
    assert "@software{dipkernels" in text
    box = raw.partition('<pre id="in-python">')[2].partition("</pre>")[0]
    if kind == "score":  # its folder is made by hand, without the networks' names
        assert "plot_scores" in box
    else:
        scope: dict[str, Any] = {}
        table = "print(run.table())\n"
        exec(unescape(box).replace("print(found.psnr.dims, run.table())\n", "").replace(table, ""),
             scope)  # fmt: skip
        assert scope["found"].equals(open_run(page.parent).stages[kind])


def test_a_page_holds_what_was_found(written: tuple[str, Path, Any]) -> None:
    kind, page, found = written
    data, text = data_of(page), unescape(without_scripts(page))
    if kind == "score":
        assert set(data["charts"]) == {"chart-scores"}
        for each in found.values():
            assert f"{each.score:.2f} +- {each.score_spread:.2f}" in text
    if kind == "audit":
        assert list(data["networks"]) == [
            f"{o}, {s}" for o in ("gradient-descent", "adam") for s in ("measured", "predicted")
        ]
        own = data["networks"]["adam, predicted"]
        assert own["positions"] == found.iteration.values.tolist()
        clean = pixels_of(data["references"]["clean"], 0)
        for number, said in enumerate(own["said"]):
            image = pixels_of(own["frames"], number)
            psnr = found.psnr.sel(optimiser="adam", source="predicted").values[number]
            assert said == f"{psnr:.2f} dB to clean"
            # in 8 bits, over some units of white at most
            assert -10 * np.log10(np.square(image - clean).mean()) == pytest.approx(psnr, abs=0.1)
    if kind == "covariance":
        (own,) = data["networks"].values()
        for number, image in enumerate(found.draws.values):
            step = (own["frames"]["high"][number] - own["frames"]["low"][number]) / 255
            assert pixels_of(own["frames"], number) == pytest.approx(image, abs=0.51 * step)
        assert pixels_of(data["references"]["lags"], 0).shape[1:] == found.kernel.shape
        for test, p in zip(found.test.values, found.p_value.values, strict=True):
            assert str(test) in text
            assert f"{float(p):.3g}" in text
    if kind == "gp":
        row = process_row("gp", found, noisy())
        assert f"{row['psnr']:.2f}" in text
        error = np.square(found["mean"].values - noisy().clean.numpy())
        ratio = np.sqrt((error / found["standard_deviation"].values ** 2).mean())
        assert row["z_rms"] == pytest.approx(ratio)  # float64 throughout
        assert row["psnr"] == pytest.approx(-10 * np.log10(error.mean()))
        assert set(data["references"]) == {"mean", "deviation", "error", "clean", "measured"}
        assert data["networks"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("size", [(16,), (4, 6, 8)])
def test_signals_and_volumes_have_pages(tmp_path: Path, size: tuple[int, ...]) -> None:
    task = noisy(size)
    found = gp.GaussianProcess(gp.rbf(1.5, 0.1), 0.5).posterior(task).dataset(draws=4)
    page = gp_page(RunFolder.open(tmp_path / "gp", {}), found, task)
    assert data_of(page)["signal"] == (len(size) == 1)
    drawn = find_stage("covariance").run(Subject(decoder(size)), samples=8)
    page = covariance_page(RunFolder.open(tmp_path / "covariance", {}), drawn)
    assert ("lags" in data_of(page)["references"]) == (len(size) > 1)


@pytest.mark.slow
def test_without_the_images_an_audit_has_its_curves(tmp_path: Path) -> None:
    _, found = of_audit(tmp_path / "run")
    data = data_of(audit_page(RunFolder.open(tmp_path / "other", {}), found, noisy()))
    assert set(data["charts"]) == {"chart-psnr", "chart-modes", "chart-response"}
    assert "networks" not in data


def test_other_datasets_are_refused(tmp_path: Path) -> None:
    folder, other = RunFolder.open(tmp_path / "run", {}), xr.Dataset({"x": 1.0})
    with pytest.raises(InvalidInputError, match="at least one result"):
        score_page(folder, {}, noisy())
    with pytest.raises(InvalidInputError, match="is no audit"):
        audit_page(folder, other, noisy())
    with pytest.raises(InvalidInputError, match="stage 'covariance'"):
        covariance_page(folder, other)
    with pytest.raises(InvalidInputError, match=r"images of shape \(1, 8, 10\)"):
        gp_page(folder, other, noisy())


def test_verdicts_say_what_the_numbers_tell() -> None:
    def row(name: str, value: float, band: float, seeds: int = 1) -> dict[str, object]:
        ends = {"score_lower": value - band, "score_upper": value + band, "score_spread": 0.1}
        more = {"score_resolved": band < 1, "seeds": seeds}
        return {"prior": name, "score": value} | ends | more

    said = scores_verdict([row("a", 22.0, 0.1), row("b", 21.9, 0.2), row("c", 15.0, 2.0)], 20.0)
    assert said == (
        "The kernel of a predicts the highest peak: 22.00 +- 0.10 dB, 2.0 dB above the measured "
        "image (20.00 dB) (one seed: no spread). b can't be distinguished from it. c is predicted "
        "to stay below the measured image. The peak of c is not resolved."
    )
    # bands apart, but within the spread over seeds, by Welch's test
    close = [row("a", 22.0, 0.01, 4), row("b", 21.95, 0.01, 4), row("c", 21.0, 0.01, 4)]
    assert "b can't be distinguished from it." in scores_verdict(close, None)
    fit = {"optimiser": "adam", "measured_peak_psnr": 24.0, "predicted_peak_psnr": 23.0}
    fit |= {"largest_gap": 1.5, "relative_change": 0.8, "alignment": 0.6}
    sound, said = audit_verdict([fit], "skip")
    assert not sound
    assert said.startswith("adam takes skip to 24.00 dB, 1.00 dB above the predicted peak; both ")
    assert "changes by 80% of its norm (alignment 0.60)" in said
    tests = [("symmetry of axes", 0.5), ("zero kurtosis", 0.01)]
    assert covariance_verdict("vit", tests, (0.5, 0.1)) == (
        False,
        "Images of vit at initialisation: tests reject zero kurtosis at 5% and can't reject "
        "symmetry of axes. Excess kurtosis 0.50 +- 0.1 (0: Gaussian).",
    )
    assert (
        "no test rejects symmetry of axes at 5%."
        in covariance_verdict("vit", tests[:1], (0.0, 1.0))[1]
    )
    process = {"prior": "rbf", "mean_deviation": 0.05, "psnr": 19.0, "z_rms": 2.0}
    sound, said = process_verdict(process, 20.0, "whole image")
    assert not sound
    assert "reaches 19.00 dB over the whole image, 1.0 dB below the measured image" in said
    assert said.endswith("Errors are 2.00 times the standard deviation, which is too small.")
    assert "about right" in process_verdict(process | {"z_rms": 0.9}, None, "hole")[1]
    assert "has no score" in process_verdict({"prior": "rbf", "mean_deviation": 1.0}, None, "")[1]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1400, False)])
def test_a_browser_shows_it(
    written: tuple[str, Path, Any], running: Any, width: int, dark: bool
) -> None:
    kind, path, result = written
    with opened(running, path, width=width, dark=dark) as found:
        page = found.page
        assert found.overflow() <= 0
        assert page.locator(".chart .bk-Figure, .chart > div").count() >= 1
        if width > 760:
            head = page.locator("#results th:nth-child(1) button")
            head.click()
            first = page.locator("#results tbody tr:not(.fixed) td:first-child")
            names = [text.strip() for text in first.all_text_contents()]
            assert names == sorted(names, key=str.lower)
        if kind in ("audit", "covariance"):
            page.locator("#position").focus()
            page.keyboard.press("Home")
            before = page.locator("#left .at").text_content()
            page.keyboard.press("End")
            assert page.locator("#left .at").text_content() != before
        if kind == "audit":
            marks = page.evaluate(
                "Bokeh.documents.flatMap(d => d.roots()).flatMap(p => p.center)"
                ".filter(each => each.name === 'mark').map(each => each.location)"
            )
            assert marks == [1 + int(result.iteration[-1])] * 2
        if kind == "gp":
            assert page.locator("#position").count() == 0
            assert page.locator("#right figure[data-part=clean]").is_hidden()
            canvas = page.locator("#right figure[data-part=image] canvas")
            canvas.scroll_into_view_if_needed()
            box = canvas.bounding_box()
            page.mouse.move(box["x"] + box["width"] * 0.55, box["y"] + box["height"] * 0.4)
            said = page.locator("#right .value").text_content()
            assert float(said.split()[-1]) == pytest.approx(
                float(result.standard_deviation[0, 3, 5]), abs=1e-3
            )
        assert found.complaints == []
