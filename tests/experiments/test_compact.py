"""Results in few bytes hold what the fit gave."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from dipkernels import fit, networks, tasks
from dipkernels.results import load, save
from helpers.experiments import harness

compact = importlib.import_module("experiments.compact")


def stored(result: xr.Dataset, path: Path) -> xr.Dataset:
    save(compact.compact(result), path)
    return compact.restored(load(path))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fit_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    clean = torch.rand(3, 9, 14, generator=torch.Generator().manual_seed(3))
    mask = torch.rand(9, 14, generator=torch.Generator().manual_seed(4)) > 0.3
    prior = networks.create("deep-decoder", image_size=(9, 14), width=8).to(dtype=dtype)
    result = fit(prior, tasks.inpaint(clean, mask), iterations=5)
    found = stored(result, tmp_path / "fit.nc")
    assert set(found.variables) == set(result.variables)
    # Errors are exact; another logarithm may differ in its last bits.
    xr.testing.assert_allclose(found, result, rtol=1e-14, atol=1e-14)
    assert found.attrs == result.attrs
    assert found["psnr_clean"].attrs == result["psnr_clean"].attrs == {"units": "dB"}
    raw = load(tmp_path / "fit.nc")
    assert ("mse_clean" in raw) is (dtype == torch.float32)  # float64 would lose digits
    assert "iteration" not in raw.coords


def test_curves_take_half_their_bytes_and_numbers_of_iterations_none(tmp_path: Path) -> None:
    draw, length = np.random.default_rng(5), 5001
    errors = draw.uniform(1e-3, 1e-1, (length, 2)).astype(np.float32).astype(float)
    errors[7], errors[9] = 0, np.nan  # an exact fit, a run that diverged
    with np.errstate(divide="ignore"):
        psnr = -10 * np.log10(errors)
    result = xr.Dataset(
        {"psnr_clean": (("iteration", "region"), psnr), "psnr": 3.0},
        {"iteration": np.arange(length), "region": ["hole", "whole"]},
    )
    found = stored(result, tmp_path / "curve.nc")
    xr.testing.assert_allclose(found, result, rtol=1e-14, atol=1e-14)
    # Random digits don't get smaller; 20 kB are what netCDF needs for names and dimensions.
    assert (tmp_path / "curve.nc").stat().st_size < 4 * errors.size + 20_000


def test_pictures_stay_packed_and_other_iterations_stay(tmp_path: Path) -> None:
    pixels = np.random.default_rng(6).uniform(size=(3, 60, 70))
    whole = xr.Dataset({"final": (("channel", "y", "x"), pixels)}, {"iteration": [0, 10, 20]})
    kept = harness.reduced(whole.assign(psnr_noisy=("iteration", [1.5, 2.5, 3.5])),
                           ["psnr_noisy"], pictures=["final"])  # fmt: skip
    found = stored(kept, tmp_path / "picture.nc")
    np.testing.assert_array_equal(found["iteration"], [0, 10, 20])
    np.testing.assert_array_equal(found["psnr_noisy"], [1.5, 2.5, 3.5])
    np.testing.assert_allclose(found["final"], pixels, atol=0.5001 / 254)
    assert (tmp_path / "picture.nc").stat().st_size < pixels.size + 20_000
