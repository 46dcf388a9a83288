"""Snapshots of a fit: when, how exact, through checkpoints; and the fit goes on as without them."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from dipkernels import fit, networks, tasks
from dipkernels.errors import InvalidInputError
from dipkernels.fitting import FitInterrupted, FitSettings, snapshot_images
from dipkernels.fitting.snapshots import Snapshots
from dipkernels.planning.rehearsal import SNAPSHOTS, rehearse_fit
from dipkernels.storage.netcdf import load, save

SIZE = (8, 12)


def prior(size: tuple[int, ...] = SIZE, channels: int = 3) -> networks.ImagePrior:
    return networks.create(
        "deep-decoder", image_size=size, channels=channels, width=6, upsamplings=1
    )


def noisy(size: tuple[int, ...] = SIZE, channels: int = 3, seed: int = 3) -> tasks.Task:
    draw = torch.rand(channels, *size, generator=torch.Generator().manual_seed(seed))
    return tasks.denoise(draw, seed=1)


def kept_of(count: int, most: int) -> list[int]:
    snapshots = Snapshots(most, 1, [1.0])
    for iteration in range(count + 1):
        snapshots.add(iteration, torch.zeros(1, 1, 1, 1))
    return snapshots.iterations


@pytest.mark.parametrize("count", [5, 60, 1000, 4000])
def test_snapshots_spread_over_the_logarithm_of_iterations(count: int) -> None:
    kept = kept_of(count, 40)
    assert len(kept) == min(39, count + 1)
    assert kept[0] == 0
    # From where iterations are denser than snapshots: none is over three times the even spacing.
    gaps = [math.log((b + 1) / (a + 1)) for a, b in itertools.pairwise(kept) if b > a + 1]
    assert max(gaps, default=0) < 3 * math.log(count + 1) / 40


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_few_snapshots_are_the_first_and_what_has_room(most: int) -> None:
    kept = kept_of(100, most)
    assert len(kept) == most - 1
    assert kept[:1] == [0] * (most > 1)


def test_an_image_is_that_of_its_iteration_to_8_bits() -> None:
    seen = {}
    result = fit(
        prior(),
        noisy(),
        iterations=9,
        callback=lambda i, image, _: seen.update({i: image.numpy().copy()}),
    )
    found = snapshot_images(result)
    assert found.snapshot.values.tolist() == list(seen)
    assert result.snapshots.dtype == np.uint8
    exact = np.stack([seen[int(i)] for i in found.snapshot])
    reach = float((result.snapshot_high - result.snapshot_low).max())
    # half a step of 8 bits, and the rounding of float32
    assert np.abs(found.values - exact).max() <= reach / 510 + 1e-6


def test_values_beyond_0_and_1_are_kept() -> None:
    snapshots = Snapshots(3, 1, [2.0])
    image = torch.tensor([-1.0, 0.0, 2.0, 5.0]).reshape(1, 1, 2, 2)
    found = snapshots.variables(1, image, (), (1, 2, 2))
    read = snapshot_images(xr.Dataset(found))
    assert read.values.ravel() == pytest.approx([-0.5, 0, 1, 2.5], abs=3 / 510 + 1e-6)
    assert float(read.min()) == -0.5  # the ends exactly


def test_the_fit_is_the_same_with_and_without() -> None:
    with_, without = (fit(prior(), noisy(), iterations=12, snapshots=n) for n in (5, 0))
    own = [name for name in with_.variables if str(name).startswith("snapshot")]
    assert own
    assert not any(str(name).startswith("snapshot") for name in without.variables)
    xr.testing.assert_equal(with_.drop_vars(own), without)
    assert with_.sizes["snapshot"] == 5
    with pytest.raises(InvalidInputError, match="snapshots=0"):
        snapshot_images(without)


def test_a_continued_fit_has_the_snapshots_of_one_that_went_through(tmp_path: Path) -> None:
    whole = fit(prior(), noisy(), iterations=14, snapshots=6)
    file = tmp_path / "fit.safetensors"

    def interrupt(iteration: int, *_: object) -> None:
        if iteration == 8:
            raise KeyboardInterrupt

    fit(prior(), noisy(), iterations=5, snapshots=6, checkpoint=file)
    with pytest.raises(FitInterrupted):  # not saved: the next call begins at iteration 5
        fit(prior(), noisy(), iterations=14, snapshots=6, checkpoint=file, callback=interrupt)
    extended = fit(prior(), noisy(), iterations=14, snapshots=6, checkpoint=file)
    xr.testing.assert_equal(extended, whole)
    fewer = fit(prior(), noisy(), iterations=14, snapshots=3, checkpoint=file)
    assert fewer.sizes["snapshot"] == 3
    assert set(fewer.snapshot.values) <= set(whole.snapshot.values)
    none = fit(prior(), noisy(), iterations=14, snapshots=0, checkpoint=file)
    assert "snapshots" not in none


def test_of_several_runs_the_first_seed_of_each_image_is_kept(tmp_path: Path) -> None:
    pair = [noisy(seed=3), noisy(seed=4)]
    both = fit(prior(), pair, seed=[0, 1], iterations=4)
    assert both.snapshots.dims == ("image", "snapshot", "channel", "y", "x")
    images = snapshot_images(both)
    for i, task in enumerate(pair):
        alone = fit(prior(), task, iterations=4)
        # several runs differ from single ones by float32 rounding, which may turn an 8-bit step
        assert images[i].values == pytest.approx(snapshot_images(alone).values, abs=1.5 / 255)
    save(both, tmp_path / "fit.nc")
    xr.testing.assert_equal(load(tmp_path / "fit.nc"), both)


def test_of_volumes_the_middle_slices_are_kept_and_of_signals_all() -> None:
    size = (4, 6, 8)
    volume = fit(prior(size, 1), noisy(size, 1), iterations=2)
    planes = {"yx": volume.final[:, 2], "zx": volume.final[:, :, 3], "zy": volume.final[..., 4]}
    for plane, exact in planes.items():
        found = snapshot_images(volume, f"snapshots_{plane}").isel(snapshot=-1)
        assert found.dims == ("channel", *plane)
        assert found.values == pytest.approx(exact.values, abs=1.5 / 255)
    with pytest.raises(InvalidInputError, match="snapshots_yx"):
        snapshot_images(volume)
    signal = fit(prior((16,), 1), noisy((16,), 1), iterations=2)
    assert snapshot_images(signal).dims == ("snapshot", "channel", "x")


def test_a_run_that_diverges_keeps_its_last_image() -> None:
    # a convolution: its loss is quadratic, so that a step above the limit makes it grow for ever
    code = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    linear = networks.ImagePrior(lambda: nn.Conv2d(3, 3, 3, padding=1), code)
    result = fit(linear, noisy(), iterations=60, learning_rate=3.0, optimiser="gradient-descent")
    assert result.status == "diverged"
    images = snapshot_images(result)
    assert int(images.snapshot[-1]) == result.sizes["iteration"] - 1 < 60
    assert images.notnull().all()
    scale = float(np.ptp(result.final.values))
    assert images[-1].values == pytest.approx(result.final.values, abs=scale / 255)


def test_the_plan_counts_what_they_take() -> None:
    settings = FitSettings(snapshots=40), FitSettings(snapshots=0)
    kept, none = (rehearse_fit(prior(), [noisy()], 1, each).parts for each in settings)
    # all but those of the iterations that are rehearsed
    assert 37 * 3 * 8 * 12 <= kept[SNAPSHOTS] <= 41 * (3 * 8 * 12 + 8)
    assert SNAPSHOTS not in none
    with pytest.raises(InvalidInputError, match="snapshots must not be negative, got -1"):
        FitSettings(snapshots=-1)
