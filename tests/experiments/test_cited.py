"""The experiments on the theories cited run at their smallest, resume, and write what they say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2] / "experiments"
WRITTEN = {
    "low_pass": {
        "dual_kernels.csv": 6,
        "jacobian_norms.csv": 8,
        "jacobian_along_fit.csv": 12,
        "fitting_speed.csv": 20,
    },
    "gp_kernels": {"covariances.csv": 16, "width.csv": 2, "with_normalisation.csv": 2},
    "non_local": {"vanilla.csv": 2, "along_fit.csv": 8},
}
FIGURES = {
    "low_pass": {"dual_kernels", "jacobian_norms", "jacobian_along_fit", "fitting_speed"},
    "gp_kernels": {"covariances", "samples"},
    "non_local": {"filters"},
}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_run", ROOT / name / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", WRITTEN)
def test_smallest_run_writes_its_tables_and_resumes(name: str, tmp_path: Path) -> None:
    run = load(name)
    arguments = ["--preset", "smoke", "--output", str(tmp_path / "out")]
    run.main(arguments)
    for table, rows in WRITTEN[name].items():
        assert len(pd.read_csv(tmp_path / "out" / table)) == rows
    assert {p.stem for p in (tmp_path / "out").glob("*.png")} == FIGURES[name]
    stored = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.nc")}
    first = next(iter(stored))
    first.unlink()
    run.main(arguments)
    again = {p: p.stat().st_mtime_ns for p in stored}
    assert {p for p in stored if again[p] != stored[p]} == {first}
