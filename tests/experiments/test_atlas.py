"""The atlas: its numbers against other roads to them, a smallest run, a network of one's own."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_1samp, ttest_rel

from dipkernels import NTK, networks, sampling, theory
from dipkernels.errors import InvalidInputError
from helpers.experiments import ROOT, script
from helpers.pages import browser, opened, without_scripts

run = script("atlas")
from experiments.atlas import measure, page, plan, publish, report  # noqa: E402  # found by the script

PAGE = ROOT.parent / "docs" / "atlas.md"
SMOKE = measure.Preset(8, 0.1, (), ("camera", "astronaut"), 4, 2)
COMMITTED = ROOT / "atlas" / report.RESULTS


def test_ranks_are_those_of_paired_differences() -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(size=(7, 4)) + 2 * np.arange(7)[:, None] + 5 * draw.normal(size=4)
    first, last = report.ranks(values)
    for i, one in enumerate(values):
        lows = [ttest_rel(v, one).confidence_interval(0.95).low for v in np.delete(values, i, 0)]
        highs = [ttest_rel(v, one).confidence_interval(0.95).high for v in np.delete(values, i, 0)]
        assert first[i] == 1 + sum(low > 0 for low in lows)
        assert last[i] == 7 - sum(high < 0 for high in highs)
    assert (first <= last).all()
    assert first.min() == 1 and last.max() == 7
    alone = report.ranks(values[:, :1])  # of one image nothing can be told
    assert (alone[0] == 1).all() and (alone[1] == 7).all()


def test_a_summary_has_student_intervals_over_images() -> None:
    draw = np.random.default_rng(1)
    rows = [
        {"network": name, "image": image, "rising": 0}
        | dict.fromkeys(("family", "origin", "source", "options"), "x")
        | dict.fromkeys(("parameters", "half_power", "rate"), 1)
        | {key: draw.normal() for key in (*report.MEASURES, "coverage", "regret_reference")}
        for name in ("a", "b", "c")
        for image in ("one", "two", "three")
    ]
    table = pd.DataFrame(rows)
    found = report.summarise(table).set_index("network")
    assert list(found.peak) == sorted(found.peak, reverse=True)
    for (name, key), values in table.melt(["network"], ["peak", "miss"]).groupby(
        ["network", "variable"]
    ):
        low, high = ttest_1samp(values.value.astype(float), 0).confidence_interval(0.95)
        row = found.loc[name]
        assert (row[f"{key}_lower"], row[f"{key}_upper"]) == pytest.approx((low, high))
        assert row[f"{key}_sd"] == pytest.approx(values.value.astype(float).std())


@pytest.fixture(scope="module")
def measured() -> tuple[Any, Any, list]:
    """Make a small network's kernels and the tasks of two images."""
    prior = networks.create("deep-decoder", image_size=8, channels=1, width=6)
    return prior, measure.kernels_of(prior), [measure.problem(i, SMOKE) for i in SMOKE.images]


@pytest.mark.slow
def test_the_kernels_peak_is_that_of_products(measured: tuple[Any, Any, list]) -> None:
    prior, kernels, problems = measured
    exact = prior.to(dtype=torch.float64)
    ntk = NTK(exact, exact.init(0))
    # rows of the Jacobian are in float32, the products in float64
    assert np.abs(kernels.ntk - ntk.to_dense().numpy()).max() < 1e-5 * np.abs(kernels.ntk).max()
    for task, peak in zip(problems, measure.kernel_peaks(kernels, problems), strict=True):
        expansion = theory.expand(
            ntk, task.to(dtype=torch.float64), noise="realised", steps=64, tolerance=1e-6
        )
        # times are a grid there and refined here: the curve is flat at its top
        assert theory.predicted_peak(expansion).psnr == pytest.approx(peak.psnr, abs=2e-3)


@pytest.mark.slow
def test_coverage_is_that_of_the_linearised_posterior(measured: tuple[Any, Any, list]) -> None:
    prior, kernels, problems = measured
    found = measure.calibration(kernels, problems)
    exact = prior.to(dtype=torch.float64)
    n, sigma = 64, SMOKE.noise_sigma
    for i, task in enumerate(problems):
        posterior = sampling.WeightPosterior(exact, task.to(dtype=torch.float64))
        drawn = sampling.linearised(
            posterior, exact.init(0), draws=2, tolerance=1e-10, max_iterations=500
        )
        gain = kernels.covariance @ torch.linalg.inv(
            kernels.covariance + sigma**2 * torch.eye(n, dtype=torch.float64)
        )
        deviation = (kernels.covariance - gain @ kernels.covariance).diagonal().sqrt().numpy()
        assert task.clean is not None
        z = (task.clean.numpy().ravel() - drawn["mean"].values.ravel()) / deviation
        # rows of the Jacobian are in float32, those of the other road in float64
        assert found["z_rms"][i] == pytest.approx(np.sqrt(np.square(z).mean()), rel=1e-3)
        assert found["coverage"][i] == pytest.approx((np.abs(z) < 1.64485).mean(), abs=1.01 / n)


def test_the_plan_has_every_network_and_many_more() -> None:
    found = plan.planned()
    assert {network.name for network in found} >= set(networks.names())
    assert len(found) >= 60
    assert sum(bool(network.needs) for network in found) >= 8


@pytest.mark.slow
def test_every_network_of_the_plan_can_be_made() -> None:
    for network in plan.planned():
        if network.is_there:
            assert network.prior(24).shape == (1, 24, 24)


def test_a_plan_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    for text, said in (
        ("one: {skip: {nmae: skip}}", "skip: unknown keys ['nmae']"),
        ("one: {skip: null}\ntwo: {skip: null}", "names skip twice"),
    ):
        file.write_text(text)
        with pytest.raises(InvalidInputError, match=re.escape(said)):
            plan.planned(file)
    with pytest.raises(InvalidInputError, match="no network skipp"):
        plan.planned(only=["skipp"])
    with pytest.raises(InvalidInputError, match="has a network Mine already"):
        plan.own(["nets.py:Mine"], ["Mine"])


def own_network(folder: Path) -> str:
    """Write the file that the documentation shows; name what is in it."""
    text = PAGE.read_text(encoding="utf-8")
    (shown,) = re.findall(r":caption: nets.py\n(.*?)```", text, flags=re.DOTALL)
    (folder / "nets.py").write_text(shown, encoding="utf-8")
    assert "--network nets.py:two_convolutions" in text
    lines = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[0]
    (folder / "plan.yaml").write_text(lines, encoding="utf-8")
    assert [network.prior(8).shape for network in plan.planned(folder / "plan.yaml")] == [
        (1, 8, 8)
    ] * 2
    return f"{folder / 'nets.py'}:two_convolutions"


@pytest.mark.slow
def test_smoke_and_a_network_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--preset", "smoke", "--output", str(tmp_path / "out")]
    run.main(arguments)
    found = pd.read_csv(tmp_path / "out" / report.SUMMARY)
    assert sorted(found.network) == ["deep-decoder", "mixer"]
    stored = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.nc")}
    assert len(stored) == 2
    run.main([*arguments, "--network", own_network(tmp_path)])
    assert {p: p.stat().st_mtime_ns for p in stored} == stored
    found = pd.read_csv(tmp_path / "out" / report.SUMMARY)
    assert sorted(found.network) == ["deep-decoder", "mixer", "two_convolutions"]
    again = report.read(tmp_path / "out")
    assert set(again.tiles) == set(found.network)
    shown = without_scripts(tmp_path / "out" / report.PAGE)
    for network in found.network:
        assert f'id="{network}"' in shown
    assert str(tmp_path / "out" / report.PAGE) in capsys.readouterr().out


def test_the_committed_tables_agree_with_each_other_and_with_the_text() -> None:
    atlas = report.read()
    kept = pd.read_csv(COMMITTED.with_name(report.SUMMARY)).set_index("network")
    made = report.summarise(atlas.results).set_index("network").loc[kept.index]
    numbers = kept.select_dtypes("number").columns
    assert np.abs(made[numbers] - kept[numbers]).max().max() < 2e-3  # four digits, three decimals
    text = COMMITTED.with_name("README.md").read_text(encoding="utf-8")
    between = text.split(publish.BEGIN)[1].split(publish.END)[0]
    assert between.strip() == publish.measured(atlas)


@pytest.mark.slow
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    path = page.committed_page(tmp_path)
    assert path.stat().st_size < 6e6
    with browser() as running:
        for width, dark in ((1400, False), (390, True)):
            with opened(running, path, width=width, dark=dark) as found:
                at = found.page

                def shown(where: str) -> int:
                    return int(at.locator(f"{where}:visible").count())  # noqa: B023

                count = shown("#cards > a")
                assert count == shown("#results tbody tr") == len(report.read().tiles)
                at.get_by_label("Filter rows").fill("deep-decoder")
                assert 1 <= shown("#cards > a") == shown("#results tbody tr") < count
                at.get_by_label("Filter rows").fill("")
                at.get_by_label("Only family").select_option("transformer")
                assert 1 <= shown("#cards > a") == shown("#results tbody tr") < count
                at.get_by_label("Only family").select_option("")
                at.get_by_label("Sort by").select_option(label="regret, dB, lowest first")
                best = at.locator("#results tbody tr td:first-child").first.text_content()
                assert at.locator("#cards > a").first.get_attribute("id") == best
                assert found.overflow() <= 0
                assert found.complaints == []
