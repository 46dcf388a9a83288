"""The experiment on what is learned beyond the kernel: its sums, a smallest run."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from helpers.experiments import script


def test_parts_are_means_over_images_of_means_over_seeds() -> None:
    experiment = script("beyond_the_kernel")
    numbers = np.random.default_rng(0).normal(size=(3, 2, 4))  # images, seeds, arms
    arms = ("noisy", "flow", "adam-flow", "adam")
    rows = [
        {"prior": "net", "image": i, "seed": s, "arm": arm, "psnr": numbers[i, s, a]}
        for i in range(3)
        for s in range(2)
        for a, arm in enumerate(arms)
    ]
    rows = [row | {"rising": row["arm"] == "adam" and row["image"] == 1} for row in rows]
    rows += [row | {"arm": "adam-frozen"} for row in rows if row["arm"] == "flow"]
    found = experiment.summarise(pd.DataFrame(rows)).set_index("part")
    gains = (numbers[..., 1:] - numbers[..., :-1]).mean(axis=1)
    for part, of in zip(experiment.PARTS, gains.T, strict=True):
        low, high = ttest_1samp(of, 0).confidence_interval(0.95)
        row = found.loc[part]
        assert (row.decibels, row.lower, row.upper) == pytest.approx((of.mean(), low, high))
    beyond = found.loc["network less adam-frozen"]
    assert beyond.decibels == pytest.approx((numbers[..., 3] - numbers[..., 1]).mean())
    assert (found.loc["kernel"].rising, beyond.rising) == (0, pytest.approx(1 / 3))
    one = experiment.summarise(pd.DataFrame([row for row in rows if row["image"] == 0]))
    assert all(math.isnan(value) for value in one.lower)


def test_the_page_has_the_numbers_of_the_table() -> None:
    experiment = script("beyond_the_kernel")
    folder = Path(experiment.__file__).parent
    found = pd.read_csv(folder / "summary.csv").set_index(["prior", "part"])
    again = experiment.summarise(pd.read_csv(folder / "results.csv")).set_index(["prior", "part"])
    assert np.abs(again.decibels - found.decibels).max() <= 5e-4 + 1e-9  # as they are written
    page = (folder / "README.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| `([a-z0-9-]+)` \| ([^|]+\]) \| ([^|]+\]) \| ([^|]+\]) \|$", re.MULTILINE)
    rows = row.findall(page)
    assert sorted(name for name, *_ in rows) == sorted({prior for prior, _ in found.index})
    for name, *cells in rows:
        for part, cell in zip(experiment.PARTS, cells, strict=True):
            of = found.loc[name, part]
            assert cell == f"{of.decibels:+.2f} [{of.lower:+.2f}, {of.upper:+.2f}]"


@pytest.mark.slow
def test_smoke(tmp_path: Path) -> None:
    experiment = script("beyond_the_kernel")
    arguments = ["--preset", "smoke", "--output", str(tmp_path)]
    experiment.main(arguments)
    found = pd.read_csv(tmp_path / "results.csv")
    assert len(found) == 8
    before = (tmp_path / "results.csv").read_bytes()
    experiment.main(arguments)  # nothing is left to do
    assert (tmp_path / "results.csv").read_bytes() == before
    assert (tmp_path / "parts.png").exists()
