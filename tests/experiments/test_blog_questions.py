"""The blog's questions at their smallest, and the bases that they are answered with."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dipkernels.storage.netcdf import load, save
from helpers.experiments import check_smallest_run, script

ROWS = {"fits.csv": 5, "summary.csv": 3, "stopping.csv": 4, "first.csv": 6, "bases.csv": 18}


@pytest.mark.long
def test_smallest_run_writes_its_tables_and_resumes(tmp_path: Path) -> None:
    check_smallest_run("blog_questions", tmp_path, ROWS, {"gains", "curves", "held_out", "first"})
    kept = {p.stem: load(p) for p in (tmp_path / "out").glob("fit-*.nc")}
    whole = {name for name, found in kept.items() if "iteration" in found.psnr_noisy.dims}
    assert whole == {"fit-0-held-camera"}  # where it's drawn


@pytest.mark.parametrize("held", [False, True])
def test_of_long_fits_little_is_kept_and_the_tables_stay(held: bool, tmp_path: Path) -> None:
    script("blog_questions")  # puts the root on the path
    from experiments.blog_questions import figures, fits, tables

    draw, count = np.random.default_rng(0), 10_001
    curves = draw.uniform(10, 20, (2, count))
    curves[0, 7777] = 21  # a peak between the iterations that are evenly spaced
    curves[1, 5001:] = np.nan  # a fit that died
    whole = xr.Dataset(
        {
            "psnr_clean": (("part", "iteration"), curves),
            "psnr_noisy": ("iteration", draw.uniform(10, 30, count)),
        },
        {"part": ["image 1", "image 2"]},
        {"image": "camera", "iterations": count - 1, "noisy_psnr": 20.0, "parameters": 1},
    ).assign_attrs(seconds=1.0)
    if held:
        whole["psnr_held_out"] = "iteration", draw.uniform(10, 20, count)
        whole = whole.assign_coords(rule=["held-out", "oracle"])
        whole["chosen_iteration"] = "rule", [8765, 7777]
        whole["chosen_psnr"] = "rule", [float(curves[0, 8765]), 21.0]
    # as a fit hands it over; files of earlier versions have no such coordinate
    told = fits.told(whole.assign_coords(iteration=np.arange(count, dtype=np.int32)))
    save(told, tmp_path / "fit.nc")
    # up to four curves in 8 bytes a number, iterations in 4, and 30 KB of netCDF itself
    assert (tmp_path / "fit.nc").stat().st_size < 1100 * (8 * (4 if held else 2) + 4) + 30_000
    runs = [
        tables.Results({("skip", "camera", 0): found}, {})
        for found in (load(tmp_path / "fit.nc"), whole)
    ]
    short, full = (tables.fit_table(results) for results in runs)
    assert short["peak iteration"].tolist() == [7777, 5001]
    pd.testing.assert_frame_equal(short, full)
    pd.testing.assert_frame_equal(*(tables.stopping_table(results) for results in runs))
    if held:
        marks = [
            [line.get_xydata().tolist() for line in figures.plot_held_out(each).axes[0].lines[1:]]
            for each in runs
        ]
        assert len(marks[0]) == 2  # the star of the peak and the dot of what was chosen
        assert marks[0] == marks[1]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 17, 24)).cumsum(axis=1).cumsum(axis=2)


@pytest.mark.parametrize("family", ["low-pass", "fourier", "wavelet"])
def test_approximations_improve_up_to_the_image_itself(image: np.ndarray, family: str) -> None:
    script("blog_questions")  # puts the root on the path
    from experiments.blog_questions import bases

    found = bases.approximations(image, family)
    errors = ((found - image) ** 2).mean(axis=(1, 2, 3))
    # odd sides: the wavelet transform is redundant there, and not exactly orthogonal
    assert np.all(np.diff(errors) <= 1e-2 * errors[0])
    np.testing.assert_allclose(found[-1], image, atol=1e-10 * np.abs(image).max())


def test_low_pass_keeps_the_lowest_frequencies(image: np.ndarray) -> None:
    script("blog_questions")
    from experiments.blog_questions import bases

    x = np.arange(24)
    low, high = np.cos(2 * np.pi * x / 24), np.cos(2 * np.pi * x * 7 / 24)
    both = np.broadcast_to(low + 10 * high, (1, 16, 24))
    few = bases.SHARES.searchsorted(0.02)
    only_low = bases.approximations(both, "low-pass")[few]
    np.testing.assert_allclose(only_low, np.broadcast_to(low, (1, 16, 24)), atol=1e-12)
    largest = bases.approximations(both, "fourier")[0]
    np.testing.assert_allclose(largest, np.broadcast_to(10 * high, (1, 16, 24)), atol=1e-12)


def test_distances_are_the_least_over_all_approximations(image: np.ndarray) -> None:
    script("blog_questions")
    from experiments.blog_questions import bases

    member = bases.approximations(image, "wavelet")[20]
    found = bases.distances(np.stack([image, member]), image)
    np.testing.assert_allclose(found["wavelet"], 0, atol=1e-9)
    assert found["fourier"][1] > 0.01 * image.std()


def test_regions_find_where_the_detail_is() -> None:
    script("blog_questions")
    from experiments.blog_questions import bases

    image = np.zeros((1, 20, 20))
    image[0, 5:15, 10:14] = np.random.default_rng(1).standard_normal((10, 4))
    found = bases.regions(image)
    assert found["whole"].all()
    assert found["foreground"][6:14, 11:13].all()
    assert not (found["foreground"] & found["background"]).any()
    assert found["background"].sum() >= 200
