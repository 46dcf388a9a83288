"""The experiment on Gaussian-process inpainting runs at its smallest, and resumes."""

import csv
from pathlib import Path

import pytest

from helpers.experiments import script


@pytest.mark.slow
def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = script("gp_inpainting")
    arguments = ["--preset", "smoke", "--output", str(tmp_path)]
    experiment.main(arguments)
    table = tmp_path / "results.csv"
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["kernel"] for row in rows} == {
        "RBF, fitted", "RBF, published scales", "Matern 3/2, fitted", "Matern 1/2, fitted",
        "infinite width, stationary",
        "infinite width, period 4", "measured, stationary", "measured, period 4",
    }  # fmt: skip
    assert all(5 < float(row["psnr_pasted"]) < 40 for row in rows)
    assert all(float(row["relative_error"]) <= 1e-6 for row in rows)
    assert (tmp_path / "posteriors.png").stat().st_size > 5000
    capsys.readouterr()
    kept = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(kept[:-1]), encoding="utf-8")
    experiment.main(arguments)
    again = table.read_text(encoding="utf-8").splitlines(keepends=True)
    seconds = kept[-1].rfind(",")
    assert again[:-1] == kept[:-1]
    assert again[-1][:seconds] == kept[-1][:seconds]
    assert len(capsys.readouterr().out.splitlines()) == 1
