"""What the folder of an experiment holds, and what a repeated run makes of it."""

from pathlib import Path

import xarray as xr

from helpers.experiments import script


def images_in(file: Path) -> set[str]:
    """Name the variables of a result that are images."""
    with xr.open_dataset(file, engine="h5netcdf") as result:
        return {str(name) for name, values in result.data_vars.items() if "y" in values.dims}


def check_repeated_run(name: str, folder: Path, results: str = "out") -> None:
    """Make tables and figures again from what a finished run has stored, and nothing else."""
    out = folder / "out"
    stored = {path: path.stat().st_mtime_ns for path in (folder / results).rglob("*.nc")}
    tables = {path: path.read_text() for path in out.glob("*.csv")}
    figures = set(out.glob("*.png"))
    assert tables and figures and stored
    for path in (*tables, *figures):
        path.unlink()
    script(name).main(["--preset", "smoke", "--output", str(out)])
    assert {path: path.read_text() for path in out.glob("*.csv")} == tables
    assert set(out.glob("*.png")) == figures
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    assert not list(folder.rglob("*.safetensors"))
