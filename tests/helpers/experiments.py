"""Runs of the experiments at their smallest."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd

from dipkernels.storage.netcdf import load

ROOT = Path(__file__).parents[2] / "experiments"
sys.path.insert(0, str(ROOT.parent))
harness = importlib.import_module("experiments.harness")


def script(name: str) -> ModuleType:
    """Load the script of an experiment."""
    label = f"experiments.{name}.run"
    spec = importlib.util.spec_from_file_location(label, ROOT / name / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[label] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def check_smallest_run(
    name: str,
    folder: Path,
    tables: dict[str, int],
    figures: set[str],
    results: str = "out",
    *,
    rewritten: bool = False,
) -> None:
    """Run an experiment, look at what it wrote, remove one result, and run it again.

    With ``rewritten`` the tables and figures are removed, too, and made again from what is stored:
    the tables with the same text.
    """
    module = script(name)
    arguments = ["--preset", "smoke", "--output", str(folder / "out")]
    module.main(arguments)
    for table, rows in tables.items():
        assert len(pd.read_csv(folder / "out" / table)) == rows
    assert {p.stem for p in (folder / "out").glob("*.png")} == figures
    stored = {p: p.stat().st_mtime_ns for p in (folder / results).rglob("*.nc")}
    first = min(stored)
    first.unlink()
    before = {path: path.read_text() for path in (folder / "out").glob("*.csv")}
    for path in (*before, *(folder / "out").glob("*.png")) if rewritten else ():
        path.unlink()
    module.main(arguments)
    if rewritten:
        assert {path: path.read_text() for path in before} == before
        assert {p.stem for p in (folder / "out").glob("*.png")} == figures
        assert not list(folder.rglob("*.safetensors"))
    again = {p: p.stat().st_mtime_ns for p in stored}
    assert {p for p in stored if again[p] != stored[p]} == {first}


def images_in(file: Path) -> set[str]:
    """Name the variables of a result that are images."""
    return {str(name) for name, values in load(file).data_vars.items() if "y" in values.dims}
