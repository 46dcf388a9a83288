"""The first comparison at its smallest."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from dipkernels import fit, networks, tasks
from dipkernels.storage.netcdf import load, save
from helpers.experiments import ROOT, script


def pictures(stored: xr.Dataset) -> set[str]:
    return {str(name) for name, variable in stored.items() if "x" in variable.dims}


@pytest.mark.slow
def test_smallest_run_writes_its_report_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, output = script("first_comparison"), tmp_path / "out"
    arguments = ["--preset", "smoke", "--output", str(output)]
    run.main(arguments)
    assert list(pd.read_csv(output / "summary.csv").prior) == ["deep-decoder"]
    drawn = {path.name for path in (output / "figures").glob("*.png")}
    assert drawn == {path.name for path in (ROOT / "first_comparison").glob("*.png")}
    found = {path.stem: load(path) for path in output.rglob("*.nc")}
    assert {stage: pictures(each) for stage, each in found.items()} == {
        "fit_adam": {"initial", "best", "final", "clean", "measurement"},
        "kernel": {"eigenvector"},
        "prediction": set(),
        "fit_gradient_descent": set(),
    }
    assert found["kernel"].sizes["rank"] == 6
    assert not list(output.rglob("*.safetensors"))
    stored = {path: path.stat().st_mtime_ns for path in output.rglob("*.nc")}
    first = min(stored)
    first.unlink()
    monkeypatch.setattr(run, "write_report", lambda folder, *_: folder.path / "report.html")
    run.main(arguments)
    assert {p for p in stored if p.stat().st_mtime_ns != stored[p]} == {first}


def test_of_several_seeds_all_curves_are_kept_and_the_images_of_the_first(tmp_path: Path) -> None:
    run, side = script("first_comparison"), 160
    prior = networks.create("deep-decoder", image_size=side, width=4)
    generator = torch.Generator().manual_seed(0)
    task = tasks.denoise(torch.rand(3, side, side, generator=generator))
    whole = fit(prior, task, iterations=3, seed=(0, 1))
    save(run.reduce_fit(whole), tmp_path / "fit.nc")
    kept = load(tmp_path / "fit.nc")
    for name in run.CURVES:
        np.testing.assert_array_equal(kept[name], whole[name])
    for name in run.PICTURES:
        first = whole[name].isel(seed=0) if "seed" in whole[name].dims else whole[name]
        wanted = first.values[:, ::2, ::2].clip(0, 1)  # of more than 96 pixels every second
        np.testing.assert_allclose(kept[name], wanted, rtol=0, atol=0.5001 / 254)  # rounding
    # five pictures of 3 x 80 x 80 bytes, and 32 kB for the form of the file
    assert (tmp_path / "fit.nc").stat().st_size < 5 * 3 * 80**2 + 2**15


def test_eigenvectors_look_the_same(tmp_path: Path) -> None:
    run = script("first_comparison")
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((8, 3, 120, 150)) * draw.uniform(0.01, 5, (8, 1, 1, 1))
    values = ("rank", np.arange(8, 0, -1.0))
    dims = ("rank", "channel", "y", "x")
    whole = xr.Dataset({"eigenvector": (dims, vectors), "top_eigenvalue": values})
    save(run.reduce_kernel(whole), tmp_path / "kernel.nc")
    kept = load(tmp_path / "kernel.nc")
    np.testing.assert_array_equal(kept.top_eigenvalue, values[1][:6])
    for stored, vector in zip(kept.eigenvector.values, vectors, strict=False):
        # half a level of 2 / 254; of more than 96 pixels every second
        wanted = vector[..., ::2, ::2] / np.abs(vector).max()
        np.testing.assert_allclose(stored, wanted, rtol=0, atol=1.001 / 254)
