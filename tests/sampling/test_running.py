"""Runs of chains: resuming, interruption, divergence, errors; and what Cheng et al. ran."""

import os
import signal
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from dipkernels import ImagePrior, Task, fit, sampling, tasks
from dipkernels.base.seeds import derive
from dipkernels.errors import DipkernelsError, DivergenceError, InvalidInputError, OutputError
from dipkernels.fitting import FitSettings, load_parameters
from dipkernels.sampling.collector import Collector
from dipkernels.sampling.posterior import initialisation_prior
from dipkernels.sampling.settings import step_factor
from dipkernels.storage.checkpoints import read_checkpoint, save_checkpoint


def make_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1)
    )


def make_prior(dtype: torch.dtype = torch.float64) -> ImagePrior:
    code = torch.rand(1, 3, 7, 10, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return ImagePrior(make_net, code, name="small")


def make_task() -> Task:
    clean = torch.rand(1, 7, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return tasks.denoise(clean, noise_sigma=0.2).hold_out(0.2)


def run(method: str, iterations: int, **options: Any) -> xr.Dataset:
    prior, task = make_prior(), make_task()
    options = {"chains": 2, "burn_in": 9, "thin": 4, "seed": 3} | options
    if method == "gp-dip":
        return sampling.gp_dip(prior, task, iterations=iterations, **options)
    posterior = sampling.WeightPosterior(prior, task)
    options = {"step_size": 1e-4} | options
    return sampling.sample(posterior, method=method, iterations=iterations, **options)


METHODS = ["sgld", "psgld", "sghmc", "gp-dip"]


def assert_equal(a: xr.Dataset, b: xr.Dataset) -> None:
    for name in a.data_vars:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=str(name))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_resumed_chains_have_the_bits_of_uninterrupted_ones(method: str, tmp_path: Path) -> None:
    whole = run(method, 30)
    run(method, 17, checkpoint=tmp_path / "c")
    assert_equal(run(method, 30, checkpoint=tmp_path / "c"), whole)
    # all there already: nothing runs
    assert_equal(run(method, 30, checkpoint=tmp_path / "c"), whole)
    with pytest.raises(OutputError, match="seed: 3 there, 4 now"):
        run(method, 30, checkpoint=tmp_path / "c", seed=4)
    with pytest.raises(InvalidInputError, match="30 iterations already"):
        run(method, 20, checkpoint=tmp_path / "c")


# In dipkernels 0.1 fits that are watched as chains carried what only a fit's own loop needs.
def test_chains_of_the_first_layout_are_continued(tmp_path: Path) -> None:
    whole = run("gp-dip", 30)
    run("gp-dip", 17, checkpoint=tmp_path / "c")
    identity, state = read_checkpoint(tmp_path / "c")
    assert set(state) == {"dynamics", "collector", "seconds"}
    assert set(state["dynamics"]) == {
        "parameters", "optimiser", "rates", "iteration", "generators", "accepted", "accepted_mse",
        "rollbacks", "draws",
    }  # fmt: skip
    state["dynamics"] |= {"record": {}, "seconds": 0.0, "stopper": None}
    save_checkpoint(tmp_path / "c", identity, state)
    assert_equal(run("gp-dip", 30, checkpoint=tmp_path / "c"), whole)


def test_settings_are_options_in_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    posterior = sampling.WeightPosterior(make_prior(), make_task())
    options: dict[str, Any] = {"method": "sghmc", "iterations": 14, "chains": 2, "step_size": 1e-4}
    settings = sampling.ChainSettings(**options | {"iterations": 30}, friction=0.2, seed=3)
    found = sampling.sample(posterior, settings, iterations=14)
    assert_equal(found, sampling.sample(posterior, **options, friction=0.2, seed=3))
    with pytest.raises(InvalidInputError, match="sample has no option steps; it has: method, iter"):
        sampling.sample(posterior, steps=3)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    with pytest.raises(InvalidInputError, match="settings must be a ChainSettings"):
        sampling.sample(posterior, FitSettings())  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_chains_share_nothing(method: str) -> None:
    two, one = run(method, 14), run(method, 14, chains=1)
    # batched and alone differ by rounding
    np.testing.assert_allclose(two.draws[0], one.draws[0], rtol=1e-8)
    assert not np.allclose(two.draws[0], two.draws[1], rtol=1e-2)


def test_ctrl_c_saves_and_the_same_call_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("sgld", 40)
    add, file = Collector.add, tmp_path / "c"

    def add_and_interrupt(self: Collector, *values: Any) -> None:
        add(self, *values)
        if self.iterations == 22:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Collector, "add", add_and_interrupt)
        with pytest.raises(sampling.SamplingInterrupted) as caught:
            run("sgld", 40, checkpoint=file)
    part = caught.value.result
    assert part.status == "interrupted" and part.sizes["iteration"] == 22
    assert part.draw_iteration.values.tolist() == [13, 17, 21]
    assert_equal(run("sgld", 40, checkpoint=file), whole)


def test_a_chain_that_diverges_ends_alone() -> None:
    prior = make_prior()
    start = prior.init_many([0, 1])
    good = run("sgld", 25, start=start)
    start["3.weight"] = start["3.weight"].clone()
    start["3.weight"][0] = 1e200
    bad = run("sgld", 25, start=start)
    assert bad.ended_at.values.tolist() == [0, -1]
    assert np.isnan(bad["mean"][0]).all() and np.isnan(bad.draws[0]).all()
    np.testing.assert_array_equal(bad.draws[1], good.draws[1])
    start["3.weight"][1] = 1e200
    with pytest.raises(DivergenceError, match="smaller step"):
        run("sgld", 25, start=start)


@pytest.mark.slow
def test_a_chain_whose_gradient_vanishes_is_said(tmp_path: Path) -> None:
    prior, task = make_prior(), make_task()
    fit(prior, task, iterations=300, learning_rate=0.02, checkpoint=tmp_path / "fit")
    fitted = load_parameters(tmp_path / "fit")
    dead = {**prior.init(0), "1.bias": torch.full((4,), -100.0, dtype=torch.float64)}  # of a ReLU
    start = {key: torch.stack([dead[key], fitted[key]]) for key in fitted}
    result = run("sghmc", 40, start=start, step_size=1e-6)
    flat = result.draws[0, -1].values
    assert np.ptp(flat) < 1e-12
    found = sampling.diagnose(result)
    assert float(found["explained"][0]) < 0.01 < 0.2 < float(found["explained"][1])
    assert "chain(s) 0 show no more than a grey: the gradient vanishes" in str(
        sampling.verdict(found)
    )


def test_results_hold_what_they_say() -> None:
    task = make_task()
    result = run("sgld", 30, schedule="polynomial")
    assert result.draws.dims == ("chain", "draw", "channel", "y", "x")
    assert result.draw_iteration.values.tolist() == [13, 17, 21, 25, 29]
    last = torch.from_numpy(result.draws[1, -1].values)
    assert float(result.psnr_clean[1, 29]) == pytest.approx(float(task.psnr(last)), rel=1e-12)
    assert float(result.loss[1, 29]) == pytest.approx(float(task.misfit(last)), rel=1e-12)
    mean = torch.from_numpy(result["mean"][1].values)
    assert float(result.psnr_mean[1, 29]) == pytest.approx(float(task.psnr(mean)), rel=1e-12)
    held = float(task.held_out_mse(mean))
    assert float(result.held_out_mean[1, 29]) == pytest.approx(held, rel=1e-12)
    assert np.isnan(result.psnr_mean[:, :10]).all()
    # the step of the polynomial schedule, (1 + 100 t)^(-1/3), weighs the moments
    np.testing.assert_allclose(result.weight, (1 + 100 * np.arange(30) / 30) ** (-1 / 3))
    every = run("sgld", 30, schedule="polynomial", thin=1)
    weights = every.weight.values[10:]
    expected = np.average(every.draws[1], axis=0, weights=weights)
    np.testing.assert_allclose(result["mean"][1], expected, rtol=1e-12)
    spread = np.average((every.draws[1] - expected) ** 2, axis=0, weights=weights)
    spread /= 1 - np.square(weights).sum() / weights.sum() ** 2
    np.testing.assert_allclose(result["std"][1], np.sqrt(spread), rtol=1e-10)


def test_other_units_give_the_same_chains() -> None:
    prior, task = make_prior(), make_task()
    wide = ImagePrior(make_net, prior.code, output=lambda image: 255 * image, name="small")
    options: dict[str, Any] = {"iterations": 20, "chains": 1, "step_size": 1e-4}
    a = sampling.sample(sampling.WeightPosterior(prior, task), **options)
    b = sampling.sample(sampling.WeightPosterior(wide, task.in_range(255.0)), **options)
    np.testing.assert_allclose(b["mean"], a["mean"], rtol=1e-9)
    np.testing.assert_allclose(b.held_out, a.held_out, rtol=1e-9)
    assert b.noise_sigma == pytest.approx(a.noise_sigma)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "hmc"}, "method must be one of"),
        ({"method": "psgld", "step_size": None}, "psgld needs step_size"),
        ({"friction": 0.1}, "friction has no effect on 'sgld'"),
        ({"cycles": 2}, "needs cycles="),
        ({"schedule": "cyclical"}, "needs cycles="),
        ({"thin": 40}, "thin must be from 1 to 20"),
        ({"burn_in": 29}, "burn_in must be"),
        ({"start": {}}, "start must hold 0.weight"),
        ({"start": {"0.weight": torch.zeros(4, 3, 3, 3), "head": torch.zeros(2)}}, "got .*'head'"),
        ({"iterations": 2, "burn_in": None, "thin": None}, "a chain and 3 iterations, got 2 and 2"),
        ({"iterations": 1, "burn_in": 0, "thin": None}, "a chain and 2 iterations"),
        ({"schedule": "linear"}, "schedule must be one of"),
        ({"chains": 0}, "needs a chain"),
        ({"step_size": -1.0}, "step_size must be positive"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        run(**({"method": "sgld", "iterations": 30} | options))


def test_a_start_that_is_no_dict_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    with pytest.raises(InvalidInputError, match="start must be a mapping of tensors"):
        run("sgld", 30, start=[1])


def test_wrong_targets_are_told() -> None:
    prior, task = make_prior(), make_task()
    for options, message in (
        ({"noise_sigma": 0.0}, "needs noise"),
        ({"weight_prior": "flat"}, "weight_prior must be"),
        ({"weight_prior": -1.0}, "deviation of the weight prior"),
        ({"temperature": 0.0}, "temperature must be positive"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            sampling.WeightPosterior(prior, task, **options)
    flat = ImagePrior(lambda: nn.Conv1d(2, 1, 3, padding=1), torch.rand(1, 2, 9))
    signal = tasks.denoise(torch.rand(1, 9), noise_sigma=0.1)
    with pytest.raises(DipkernelsError, match="no 4-D parameter"):
        sampling.gp_dip(flat, signal, iterations=30, burn_in=9, thin=4)


def test_a_weight_prior_that_is_no_density_is_told() -> None:
    prior, task = make_prior(), make_task()
    sound = sampling.isotropic_prior(prior, 0.3)
    for field, value, message in (
        ("mean", float("nan"), "must be finite"),
        ("deviation", float("nan"), "must be finite"),
        ("deviation", float("inf"), "must be finite"),
        ("deviation", 0.0, "deviations positive"),
    ):
        broken = {**getattr(sound, field), "0.bias": torch.full((4,), value, dtype=torch.float64)}
        parts = {"mean": sound.mean, "deviation": sound.deviation, field: broken}
        with pytest.raises(InvalidInputError, match=message):
            sampling.WeightPosterior(
                prior, task, weight_prior=sampling.WeightPrior(**parts, name="x")
            )
    with pytest.raises(InvalidInputError, match="schedule must be one of"):
        step_factor("linear", 0, 10)
    with pytest.raises(InvalidInputError, match=r"0\.bias|parameters"):
        sampling.linearised(sampling.WeightPosterior(prior, task), {"0.bias": torch.zeros(4)})


class Scaled(nn.Module):
    """A network with a parameter that has no axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, padding=1)
        self.gain = nn.Parameter(1 + 0.1 * torch.randn(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.conv(x)


def test_a_parameter_without_axes_is_sampled_as_one_of_one_number() -> None:
    class Listed(Scaled):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(self.gain.detach().reshape(1))

    task, code = make_task(), make_prior().code
    scalar, vector = ImagePrior(Scaled, code), ImagePrior(Listed, code)
    calls: list[Any] = [
        lambda p, method=method: sampling.sample(
            sampling.WeightPosterior(p, task),
            method=method,
            step_size=1e-4,
            iterations=12,
            chains=2,
        )
        for method in ("sgld", "psgld", "sghmc")
    ]
    options: dict[str, Any] = {"iterations": 12, "weight_decay": 1e-3, "chains": 2}
    calls += [
        lambda p: sampling.gp_dip(p, task, burn_in=5, thin=1, **options),
        lambda p: sampling.averaged(p, task, gradient_clip=0.1, **options),
        lambda p: sampling.mc_dropout(p, task, draws=3, **options),
        lambda p: sampling.linearised(sampling.WeightPosterior(p, task), p.init(0), draws=3),
        lambda p: sampling.deep_ensemble(p, task, members=2, iterations=5, weight_decay=1e-3),
    ]
    for call in calls:
        a, b = call(scalar), call(vector)
        np.testing.assert_allclose(a.draws, b.draws, rtol=1e-6, err_msg=str(a.method))


def test_ctrl_c_in_burn_in_leaves_no_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    add = Collector.add

    def add_and_interrupt(self: Collector, *values: Any) -> None:
        add(self, *values)
        if self.iterations == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Collector, "add", add_and_interrupt)
    with pytest.raises(sampling.SamplingInterrupted) as caught:
        run("sgld", 40)
    part = caught.value.result
    # not an image of zeros
    assert np.isnan(part["mean"]).all() and np.isnan(part["std"]).all()
    assert part.sizes["draw"] == 0 and np.isfinite(part.loss).all()


def test_the_weight_prior_has_the_moments_of_the_initialisation() -> None:
    found = initialisation_prior(make_prior())
    # PyTorch draws kernels and offsets of 27 inputs from U(-27^-1/2, 27^-1/2)
    assert float(found.deviation["0.weight"]) == pytest.approx(1 / 9, rel=0.03)  # 1728 entries
    assert float(found.mean["0.weight"]) == pytest.approx(0, abs=0.012)
    # gains are set to 1, not drawn
    assert found.mean["1.weight"].tolist() == [1.0] * 4 and found.deviation["1.weight"] == 1


def test_weight_decay_and_its_prior_descend_alike() -> None:
    prior, task, decay = make_prior(), make_task(), 1e-3
    posterior = sampling.WeightPosterior(
        prior, task, weight_prior=sampling.weight_decay_prior(prior, task, decay)
    )
    w = prior.init(2)
    objective = lambda w: (  # noqa: E731
        task.misfit(prior.image(w)) + decay / 2 * sum((v**2).sum() for v in w.values())
    )
    a = torch.func.grad(objective)(w)
    b = torch.func.grad(posterior.log_density)(w)
    n = task.measurement.numel()
    for key in w:
        torch.testing.assert_close(-b[key] * 2 * task.noise_sigma**2 / n, a[key])


@pytest.mark.parametrize("backtracking", [5.0, 0.05])
def test_gp_dip_is_adam_with_noise_on_four_axes(backtracking: float) -> None:
    """Against a plain loop over a torch module with torch's own weight decay."""
    prior, task, seed = make_prior(), make_task(), 3
    # torch decays what the step is taken from, this package what its gradient is of: without
    # backtracking they are the same
    decay = 1e-2 if backtracking > 1 else 0.0
    found = sampling.gp_dip(
        prior, task, iterations=26, burn_in=9, thin=4, seed=seed, weight_decay=decay,
        backtracking=backtracking,
    )  # fmt: skip
    chain = derive("chain-0", seed)
    net = prior.module(prior.init(chain)).train()
    jitter, shake = (
        torch.Generator().manual_seed(derive(stream, chain)) for stream in ("input-noise", "gp-dip")
    )
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=decay)
    losses, kept, accepted, rollbacks = [], [], None, 0
    for i in range(26):
        optimiser.zero_grad()
        draw = torch.empty_like(prior.code).normal_(generator=jitter)
        image = net(prior.code + draw / 30)[0]
        if i > 9 and (i - 9) % 4 == 0:
            kept.append(image.detach().numpy())
        loss = task.misfit(image)
        loss.backward()
        losses.append(float(loss.detach()))
        # Ulyanov et al.: the gradient of the bad parameters, taken from the last good ones
        if accepted and 10 * np.log10(losses[-1] / accepted[0]) > backtracking:
            rollbacks += 1
            with torch.no_grad():
                for parameter, good in zip(net.parameters(), accepted[1], strict=True):
                    parameter.copy_(good)
        else:
            accepted = losses[-1], [p.detach().clone() for p in net.parameters()]
        optimiser.step()
        for parameter in net.parameters():
            if parameter.dim() == 4:
                noise = torch.empty_like(parameter).normal_(generator=shake)
                parameter.data.add_(0.02 * noise)
    np.testing.assert_allclose(found.loss[0], losses, rtol=1e-8)
    np.testing.assert_allclose(found["mean"][0], np.mean(kept, axis=0), rtol=1e-8)
    np.testing.assert_allclose(found["std"][0], np.std(kept, axis=0, ddof=1), rtol=1e-6)
    assert not np.isnan(found.draws).any() and found.sizes["draw"] == 4
    assert found.rollbacks.values.tolist() == [rollbacks]
    assert rollbacks > 3 if backtracking < 1 else rollbacks == 0


def test_published_run_keeps_their_259_draws() -> None:
    settings = sampling.ChainSettings(iterations=20000, burn_in=7000, thin=50)
    assert settings.draws == 259


class Deep(nn.Module):
    """A product of weights, whose derivative grows a hundredfold from where they are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(0.1 * torch.randn(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights.prod(dim=0)


class Dying(nn.Module):
    """An image behind a last ReLU, which a step that is too large closes for good."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(0.3 + 0.01 * torch.rand(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weights**3).relu()


def run_leaving(network: type[nn.Module], **options: Any) -> xr.Dataset:
    code = 1 + torch.rand(1, 1, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    prior = ImagePrior(network, code, name="leaving")
    task = tasks.denoise(code[0] / 2, noise_sigma=0.3)
    posterior = sampling.WeightPosterior(prior, task, weight_prior=1.0)
    options = {"iterations": 40, "burn_in": 20, "thin": 4, "chains": 2, "seed": 3} | options
    return sampling.sample(posterior, **options)


@pytest.mark.parametrize("network", [pytest.param(Deep, marks=pytest.mark.slow), Dying])
def test_chains_that_leave_upward_start_anew_with_a_tenth_of_the_step(
    network: type[nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    found = run_leaving(network)
    times = found.attrs["retreats"]
    assert 1 <= times <= 3
    assert found.ended_at.values.tolist() == [-1, -1]
    assert np.isfinite(found.draws.values).all() and np.ptp(found.draws.values[:, -1]) > 0.1
    said = [r.getMessage() for r in caplog.records if "start anew with a tenth" in r.getMessage()]
    assert len(said) == times
    if network is Deep:  # what is asked for is what is done
        with pytest.raises(DivergenceError, match="smaller step"):
            run_leaving(network, step_size=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("at", [12, 30], ids=["before", "after"])
def test_chains_that_begin_anew_resume_bit_by_bit(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_leaving(Deep)
    add, file, seen = Collector.add, tmp_path / "c", []

    def add_and_interrupt(self: Collector, *values: Any) -> None:
        add(self, *values)
        seen.append(1)
        if len(seen) == at:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Collector, "add", add_and_interrupt)
        with pytest.raises(sampling.SamplingInterrupted):
            run_leaving(Deep, checkpoint=file)
    resumed = run_leaving(Deep, checkpoint=file)
    assert_equal(resumed, whole)
    assert resumed.attrs["retreats"] == whole.attrs["retreats"] > 0
    assert resumed.attrs["step_size"] == whole.attrs["step_size"]


def test_a_run_that_begins_anew_is_that_of_the_smaller_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = {"iterations": 20, "burn_in": 18, "thin": 1}
    found = run_leaving(Deep, **short)
    smaller = 0.2 / 10 ** found.attrs["retreats"]
    given = run_leaving(Deep, **short, step_size=smaller)
    np.testing.assert_allclose(found.loss[:, :18], given.loss[:, :18], rtol=1e-2)
    calm = run("sghmc", 14, step_size=None)
    assert calm.attrs["retreats"] == 0
