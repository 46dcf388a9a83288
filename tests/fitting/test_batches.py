"""Several images from several initialisations in one fit, against the same fits one by one."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from dipkernels import networks, tasks
from dipkernels.base.seeds import as_seeds
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting import fit
from dipkernels.networks import ImagePrior
from dipkernels.storage import netcdf as results

SIZE = (9, 14)
SEEDS = [3, 0, 8]


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def make_tasks() -> list[tasks.Task]:
    masks = [tasks.bernoulli_mask(SIZE, known=0.6, seed=i) for i in (1, 2)]
    return [
        tasks.inpaint(draw(2, *SIZE, seed=i), mask, noise_sigma=0.02 * (i + 1), seed=i)
        for i, mask in enumerate(masks)
    ]


def make_prior(name: str = "skip", **options: Any) -> ImagePrior:
    options = options or {"width": 6, "scales": 2, "skip_channels": 2, "code_channels": 3}
    prior = networks.create(name, image_size=SIZE, channels=2, **options)
    return prior.to(dtype=torch.float64)


@pytest.fixture(params=["batched", "one after another"])
def batching(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of evaluating the network, whatever the device would choose."""
    devices = ("cpu",) if request.param == "batched" else ()
    monkeypatch.setattr("dipkernels.fitting.descent.BATCHING_DEVICES", devices)
    return str(request.param)


_apart: dict[str, xr.Dataset] = {}


def fit_apart(prior: ImagePrior, index: int, seed: int, settings: dict[str, Any]) -> xr.Dataset:
    """Fit one image from one initialisation, once for both ways of batching."""
    key = repr((index, seed, settings))
    if key not in _apart:
        _apart[key] = fit(prior, make_tasks()[index], seed=seed, **settings)
    return _apart[key]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"input_noise": 0.05, "weight_decay": 1e-3, "schedule": "cosine"},
        {"total_variation_weight": 1e-5, "backtracking": 0.2, "learning_rate": 0.5},
        {"optimiser": "gradient-descent", "learning_rate": 0.3},
        {
            "optimiser": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "gradient_clip": 0.01,
            "weight_decay": 1e-2,
        },
    ],
    ids=lambda settings: "-".join(settings) or "adam",
)
def test_runs_together_equal_runs_apart(settings: dict[str, Any], batching: str) -> None:
    prior, all_tasks = make_prior(), make_tasks()
    settings = {"iterations": 8, **settings}
    together = fit(prior, all_tasks, seed=SEEDS, **settings)
    assert together.loss.dims == ("image", "seed", "iteration")
    assert together.psnr_clean.dims == ("image", "seed", "iteration", "region")
    assert together.final.dims == ("image", "seed", "channel", "y", "x")
    assert together.clean.dims == together.measurement.dims == ("image", "channel", "y", "x")
    assert list(together.seed) == SEEDS
    for i in range(len(all_tasks)):
        for seed in SEEDS:
            apart = fit_apart(prior, i, seed, settings)
            ours = together.sel(image=i, seed=seed)
            # The order of sums differs; eight steps make of 1e-16 some 1e-12.
            for name in ("loss", "psnr_noisy", "psnr_clean", "psnr_average_clean", "ssim", "psnr"):
                np.testing.assert_allclose(ours[name], apart[name], rtol=1e-8, err_msg=name)
            for name in ("initial", "final", "average", "best", "clean", "measurement", "mask"):
                np.testing.assert_allclose(ours[name], apart[name], rtol=0, atol=1e-8)
            assert int(ours.peak_iteration) == apart.attrs["peak_iteration"]
            assert float(ours.peak_psnr) == pytest.approx(apart.attrs["peak_psnr"], rel=1e-8)
            assert str(ours.status.values) == apart.status == "finished"
            if "backtracking" in settings:
                assert int(ours.rollbacks) == int(apart.rollbacks)
    if "backtracking" in settings:
        assert together.rollbacks.sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_each_initialisation_has_the_step_of_its_own_kernel(momentum: float | None) -> None:
    prior, task = ImagePrior(Small, draw(1, 3, *SIZE, seed=5)), make_tasks()[0]
    settings: dict[str, Any] = {"optimiser": "gradient-descent" if momentum is None else "sgd"}
    settings |= {"momentum": momentum, "weight_decay": 0.01, "gradient_clip": 0.05}
    together = fit(prior, task, seed=SEEDS, iterations=8, **settings)
    apart = [fit(prior, task, seed=seed, iterations=8, **settings) for seed in SEEDS]
    rates = [one.attrs["learning_rate"] for one in apart]
    assert len(set(rates)) == len(SEEDS)
    np.testing.assert_allclose(together.attrs["learning_rate"], rates, rtol=1e-12)
    for seed, one in zip(SEEDS, apart, strict=True):
        np.testing.assert_allclose(together.loss.sel(seed=seed), one.loss, rtol=1e-8)


class Small(nn.Sequential):
    """Two layers, so that the kernel depends on where it starts."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize("name", ["vit", "deep-decoder"])
def test_other_networks_together_equal_apart(name: str, batching: str) -> None:
    options = {"width": 12, "depth": 1, "heads": 2, "mlp_width": 8} if name == "vit" else {}
    prior = make_prior(name, **(options or {"width": 5}))
    task = make_tasks()[0]
    together = fit(prior, task, seed=SEEDS, iterations=5)
    assert together.loss.dims == ("seed", "iteration")
    for seed in SEEDS:
        apart = fit(prior, task, seed=seed, iterations=5)
        np.testing.assert_allclose(together.loss.sel(seed=seed), apart.loss, rtol=1e-8)


def test_one_seed_or_task_in_a_list_keeps_its_dimension(tmp_path: Any) -> None:
    prior, task = make_prior(), make_tasks()[0]
    result = fit(prior, [task], seed=[4], iterations=2)
    assert result.loss.dims == ("image", "seed", "iteration")
    assert fit(prior, [task], iterations=2).loss.dims == ("image", "iteration")
    results.save(result, tmp_path / "fit.nc")
    loaded = results.load(tmp_path / "fit.nc")
    assert loaded.loss.equals(result.loss)
    assert loaded.status.values.tolist() == [["finished"]]


def test_seeds_may_be_any_whole_numbers() -> None:
    for seed in (3, np.int64(3), torch.tensor(3)):
        assert as_seeds(seed) == ([3], False)
    for seeds in ([3, 0], np.array([3, 0]), (3, 0), range(3, -1, -3), torch.tensor([3, 0])):
        assert as_seeds(seeds) == ([3, 0], True)


def test_callbacks_see_all_runs() -> None:
    prior, all_tasks = make_prior(), make_tasks()
    seen: list[tuple[int, Tensor, dict[str, Tensor]]] = []
    fit(prior, all_tasks, seed=SEEDS, iterations=2, callback=lambda *args: seen.append(args))
    iteration, images, parameters = seen[0]
    assert (iteration, images.shape) == (0, (6, 2, *SIZE))
    # The parameters change under the callback: compare the shapes, and the first images.
    for key, shape in prior.parameter_shapes.items():
        assert parameters[key].shape == (6, *shape)
    for run, seed in enumerate(SEEDS * 2):
        expected = prior.image(prior.init(seed))
        torch.testing.assert_close(images[run], expected, rtol=0, atol=1e-12)


class Fragile(nn.Module):
    """Not a number once its weight has grown; how soon depends on where it starts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)
        self.distance = nn.Parameter(torch.rand(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + 0 * self.distance.log() + self.distance


@pytest.mark.slow
def test_a_run_that_diverges_leaves_the_others_alone() -> None:
    prior = ImagePrior(Fragile, draw(1, 3, *SIZE, seed=5))
    task = tasks.denoise(draw(2, *SIZE) - 30.0, noise_sigma=0.1)  # draws the distance below 0
    seeds = list(range(6))
    settings: dict[str, Any] = {"iterations": 60, "learning_rate": 0.013}
    apart = [fit(prior, task, seed=seed, **settings) for seed in seeds]
    ends = [one.sizes["iteration"] for one in apart]
    assert len(set(ends)) > 1
    together = fit(prior, task, seed=seeds, **settings)
    assert together.sizes["iteration"] == max(ends)
    for seed, one in enumerate(apart):
        ours = together.sel(seed=seed)
        assert str(ours.status.values) == one.status
        n = one.sizes["iteration"]
        np.testing.assert_allclose(ours.loss[:n], one.loss, rtol=1e-8)
        assert np.isnan(ours.loss[n:]).all()
        np.testing.assert_allclose(ours.final, one.final, rtol=1e-8)
    assert {"diverged", "finished"} == set(together.status.values.tolist())


def test_all_runs_diverged_from_the_start_is_an_error() -> None:
    class Endless(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 0

    prior = ImagePrior(lambda: Endless(3, 2, 1), draw(1, 3, *SIZE))
    with pytest.raises(DivergenceError, match="not finite"):
        fit(prior, make_tasks()[0], seed=[0, 1], iterations=3)


def test_tasks_must_be_alike() -> None:
    prior, (first, _) = make_prior(), make_tasks()
    other = tasks.denoise(draw(2, *SIZE))
    with pytest.raises(InvalidInputError, match="fitted together must be alike"):
        fit(prior, [first, other], iterations=1)
    smaller = tasks.denoise(draw(2, 9, 13))
    with pytest.raises(InvalidInputError, match=r"the task has \(2, 9, 13\)"):
        fit(prior, [other, smaller], iterations=1)
    with pytest.raises(InvalidInputError, match="needs a task and a seed, got 0, 1"):
        fit(prior, [], iterations=1)
