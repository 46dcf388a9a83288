"""The experiment on Gaussian-process inpainting runs at its smallest, and resumes."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "gp_inpainting" / "run.py"


def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("gp_inpainting", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    rows = module.run("smoke", tmp_path)
    assert {row["kernel"] for row in rows} == {
        "RBF, fitted", "RBF, published scales", "Matern 3/2, fitted", "Matern 1/2, fitted",
        "infinite width, stationary",
        "infinite width, period 4", "measured, stationary", "measured, period 4",
    }  # fmt: skip
    assert all(5 < float(row["psnr_pasted"]) < 40 for row in rows)
    assert all(float(row["relative_error"]) <= 1e-6 for row in rows)
    assert (tmp_path / "posteriors.png").stat().st_size > 5000
    capsys.readouterr()
    assert module.run("smoke", tmp_path) == rows
    assert capsys.readouterr().out == ""
