"""The smoke preset of the ranking of architectures, and that a second run does nothing."""

import csv
import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from helpers.experiments import ROOT, harness, script


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.npz"))


@pytest.mark.slow
def test_smoke_preset_runs_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = script("kernel_ranking")
    run.main(["--preset", "smoke", "--output", str(tmp_path)])
    assert len(rows(tmp_path / "measured.csv")) == 6
    kernels = {row["kernel"] for row in rows(tmp_path / "correlations.csv")}
    assert {"initialisation", "after 2, cross-fitted", "covariance's Wiener filter"} <= kernels
    assert (tmp_path / "ranking.png").stat().st_size > 10_000
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")}
    first = capsys.readouterr().out
    run.main(["--preset", "smoke", "--output", str(tmp_path)])
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")} == before
    assert len(capsys.readouterr().out) < len(first)
    assert kept(tmp_path) == []
    assert len(rows(tmp_path / "estimators.csv")) == 3 * 4


@pytest.mark.slow
def test_a_kernel_is_kept_until_its_estimators_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = script("kernel_ranking")
    preset = harness.settings(run.__file__, "smoke", run.Preset)
    preset = replace(preset, seeds=2, priors=preset.priors[:2])
    device, original, calls = torch.device("cpu"), run.run_estimators, []

    def cut_off(*given: object) -> object:
        calls.append(kept(tmp_path))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*given)

    with monkeypatch.context() as patch:
        patch.setattr(run, "run_estimators", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run.run_scores(preset, tmp_path, device)
    assert calls == [["deep-decoder-0.npz"], ["transposed-decoder-0.npz"]]  # one at a time
    scored = rows(tmp_path / "scores.csv")
    made = rows(tmp_path / "estimators.csv")
    # one of a version that kept the kernels of all seeds
    (tmp_path / "spectra" / "deep-decoder-1.npz").touch()
    run.run_scores(preset, tmp_path, device)
    assert rows(tmp_path / "scores.csv")[: len(scored)] == scored  # with their seconds
    names = [row["prior"] for row in rows(tmp_path / "estimators.csv")]
    assert names == [name for name in preset.priors for _ in range(4)]
    assert rows(tmp_path / "estimators.csv")[: len(made)] == made
    assert kept(tmp_path) == []


@pytest.mark.slow
def test_the_kept_baselines_are_those_of_the_kept_tables_and_what_the_page_says(
    tmp_path: Path,
) -> None:
    folder = ROOT / "kernel_ranking"
    run = script("kernel_ranking")
    for name in ("scores.csv", "measured.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    preset = harness.settings(str(folder / "run.py"), "cpu", run.Preset)
    report = sys.modules["experiments.kernel_ranking.report"]
    scores = report._read(tmp_path / "scores.csv", "psnr")
    report._write_baselines(
        preset, tmp_path, scores, report._read(tmp_path / "measured.csv", "peak_psnr")[""]
    )
    found = rows(tmp_path / "baselines.csv")
    page = (folder / "README.md").read_text(encoding="utf-8")
    for row, expected in zip(found, rows(folder / "baselines.csv"), strict=True):
        assert row["what"] == expected["what"]
        for key in ("spearman", "lower", "upper"):  # of three digits
            assert float(row[key]) == pytest.approx(float(expected[key]), abs=0.002)
        numbers = "{spearman} [{lower}, {upper}]".format(**expected)
        assert f"| {row['what']} | {row['priors']} | {numbers} |" in page


def test_the_bit_alone_adds_nothing_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    baselines = importlib.import_module("experiments.kernel_ranking.baselines")
    monkeypatch.setattr(baselines, "RESAMPLES", 50)  # no interval is asserted
    names = (*sorted(baselines.LOW_PASS), "vit", "swin", "mixer", "conv")
    bit = np.array([[name in baselines.LOW_PASS for name in names]] * 3, dtype=float)
    measured = bit + 0.1 * np.random.default_rng(0).normal(size=bit.shape)
    found = {row["what"]: row for row in baselines.baselines(names, bit, measured)}
    assert float(found["score less low-pass or not"]["spearman"]) == 0
    expected = np.mean([spearmanr(b, m).statistic for b, m in zip(bit, measured, strict=True)])
    assert float(found["score"]["spearman"]) == pytest.approx(expected, abs=1e-3)
