"""The verdict on SGLD at its smallest, and its chain against the package's own."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from dipkernels import fit
from dipkernels.base.seeds import derive
from dipkernels.errors import MissingExtraError
from dipkernels.sampling import gp_dip
from helpers.experiments import ROOT, check_smallest_run, script

sys.path.insert(0, str(ROOT.parent))

from experiments.sgld_verdict import longer
from experiments.sgld_verdict.arms import ARMS, Network, Recipe, denoising, run_arm
from experiments.sgld_verdict.chains import Sampler
from experiments.sgld_verdict.curves import (
    LOOKS,
    binned,
    curve,
    doubling,
    kept_of_arm,
    kept_of_chains,
    value,
)

NETWORK = Network(size=12, width=4, scales=1, code_channels=2)
CPU = torch.device("cpu")


@pytest.mark.slow
def test_smallest_run_writes_its_tables_and_resumes(tmp_path: Path) -> None:
    # 3 arms with 3 pictures each; 2 samplers of 2 chains
    tables = {"results.csv": 9, "chains.csv": 4}
    check_smallest_run("sgld_verdict", tmp_path, tables, {"psnr", "chains", "ablations"})
    chains = pd.read_csv(tmp_path / "out" / "chains.csv")
    assert set(chains["start"]) == {"stopped", "overfitted"}
    assert (chains["evaluations"] == 20).all()  # with those of the start
    # no traces and no starts: what the report reads, whatever the number of iterations
    assert not list((tmp_path / "out").glob("*.safetensors"))
    longer.main(["--preset", "smoke", "--output", str(tmp_path / "out")])
    followed = pd.read_csv(tmp_path / "out" / "longer.csv")
    assert (followed["evaluations"] == 40).all()
    # the same chains, followed for longer; their starts were fitted anew
    keys = ["start", "seed"]
    same = followed.merge(chains[chains["sampler"] == "sghmc 1"], on=keys, suffixes=("", "_short"))
    assert (same["before"] == same["before_short"]).all() and len(same) == 2
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_without_arviz_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz", None)
    for module in (script("sgld_verdict"), longer):
        with pytest.raises(MissingExtraError, match="ArviZ"):
            module.main(["--preset", "smoke", "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_recipe_is_that_of_the_package() -> None:
    task, prior = denoising("astronaut", 12), NETWORK.prior(3, CPU)
    # an independent path: the package's own loop, with its own scores and its own mean of draws
    whole = gp_dip(prior, task, iterations=30, burn_in=10, thin=3, seed=5)
    ours = run_arm(prior, task, ARMS["recipe"], derive("chain-0", 5), 30, burn_in=10, thin=3)
    np.testing.assert_array_equal(ours["loss"], whole["loss"][0])
    np.testing.assert_allclose(ours["iterate"], whole["psnr_clean"][0], rtol=1e-6)
    # float32 sums against the package's float64 ones
    np.testing.assert_allclose(ours["average"], whole["psnr_mean"][0], rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "sgd+input+wd"])
def test_without_noise_on_the_weights_it_is_a_fit(name: str) -> None:
    task, prior = denoising("astronaut", 12), NETWORK.prior(3, CPU)
    noisy = {"input_noise": 1 / 30, "weight_decay": 5e-8} if name != "sgd" else {}
    expected = fit(prior, task, learning_rate=0.01, iterations=19, seed=3, **noisy)
    ours = run_arm(prior, task, ARMS[name], 3, 20, burn_in=4, thin=1)
    score = expected.sel(region="whole")
    np.testing.assert_allclose(ours["iterate"], score["psnr_clean"], rtol=1e-6)
    np.testing.assert_allclose(ours["moving"], score["psnr_average_clean"], rtol=1e-5)


def test_norms_that_are_held_stay_while_the_others_grow() -> None:
    task, prior = denoising("astronaut", 12), NETWORK.prior(3, CPU)
    start = Recipe(prior, task, 0, ARMS["recipe"], 9).norm()
    for name, held in (("recipe", False), ("recipe, norms held", True)):
        dynamics = Recipe(prior, task, 0, ARMS[name], 9)
        for _ in range(9):
            dynamics.step(*dynamics.evaluate())
        assert (abs(float(dynamics.norm() / start) - 1) < 1e-5) is held


def test_bins_average_the_curve_and_its_slope_is_per_doubling() -> None:
    iterations = np.arange(4096.0)
    values = 3 * np.log2(np.maximum(iterations, 1)) + 7
    centres, means = binned(values)
    np.testing.assert_allclose(means, 3 * np.log2(centres) + 7, atol=0.02)
    assert abs(doubling(centres, means) - 3) < 0.02


def test_what_is_kept_of_a_run_is_its_curves_and_what_is_read_out() -> None:
    draw, count = np.random.default_rng(3), 30_000
    norm = np.where(np.arange(count) % 25 == 0, draw.random(count), np.nan)
    whole = xr.Dataset(
        {name: ("iteration", draw.random(count)) for name in ("iterate", "average", "loss")}
        | {"norm": ("iteration", norm)},
        {"iteration": np.arange(count)},
        {"rollbacks": 2},
    )
    whole["average"][:9000] = np.nan
    kept = kept_of_arm(whole, [10, 20_000, 40_000])
    assert kept.nbytes < 20_000
    assert (kept.attrs["iterations"], kept.attrs["rollbacks"]) == (count, 2)
    for name in ("iterate", "average"):
        centres, means = binned(whole[name].values)
        there = np.isfinite(means)
        for found, wanted in zip(curve(kept, name), (centres[there], means[there]), strict=True):
            np.testing.assert_array_equal(found, wanted)
        assert value(kept, name, 20_000) == float(whole[name][20_000])
        assert value(kept, name, count - 1) == float(whole[name][-1])
        assert value(kept, name, 40_000) is None
    assert kept.sizes["look"] <= LOOKS
    assert {int(kept["look"][0]), int(kept["look"][-1])} == {0, count - 25}
    np.testing.assert_array_equal(kept["norm"], norm[kept["look"].values])


def test_chains_are_kept_as_far_as_they_count() -> None:
    draw = np.random.default_rng(4)
    dims, shape = ("chain", "iteration"), (2, 900)
    whole = xr.Dataset(
        {name: (dims, draw.random(shape)) for name in ("iterate", "average", "loss")}
        | {"ended_at": ("chain", [-1, 300])},
        attrs={"noise_variance": 0.25},
    )
    kept = kept_of_chains(whole, [900, 600])
    for chain, length in enumerate((900, 600)):
        one, cut = kept.isel(chain=chain), whole.isel(chain=chain, iteration=slice(0, length))
        wanted = {"iterate": cut.iterate, "average": cut.average, "misfit": cut.loss / 0.25}
        for name, values in wanted.items():
            np.testing.assert_array_equal(curve(one, name), binned(values.values))
        assert int(one["length"]) == length
        assert float(one["before"]) == float(cut["iterate"][0])
        assert float(one["misfit_before"]) == float(cut["loss"][0] / 0.25)
        assert float(one["average_end"]) == float(cut["average"][-1])
    assert list(kept["ended_at"]) == [-1, 300]


def test_a_sampler_is_read_from_its_name() -> None:
    assert Sampler.parse("sghmc 0.1 input") == Sampler("sghmc", 0.1, True, True)
    with pytest.raises(ValueError, match="warm"):
        Sampler.parse("sgld 1 warm")
