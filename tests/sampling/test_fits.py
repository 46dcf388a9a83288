"""Averaged iterates and dropout, against plain loops and against all masks."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from dipkernels import ImagePrior, Task, fit, sampling, tasks
from dipkernels.base.seeds import derive
from dipkernels.errors import DivergenceError, InvalidInputError, OutputError
from dipkernels.fitting import FitSettings
from dipkernels.sampling.descents import Dropout, kernels_of
from dipkernels.storage.checkpoints import read_checkpoint
from helpers.priors import draw

SIZE = (5, 8)


def linear_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 1, 1)).double()


def make_prior(factory: Any = linear_net, channels: int = 2) -> ImagePrior:
    return ImagePrior(factory, draw(1, channels, *SIZE), name="small")


def make_task(channels: int = 1) -> Task:
    clean = 0.5 + 0.2 * draw(channels, *SIZE, seed=1).clamp(-2, 2)
    return tasks.denoise(clean, noise_sigma=0.2).hold_out(0.2)


def small_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1)
    ).double()


# --- What is dropped --------------------------------------------------------------------------


class Mixed(nn.Module):
    """Every kind of kernel: grouped, transposed and plain convolutions, a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 6, 3, padding=1, groups=2)
        self.transposed = nn.ConvTranspose2d(6, 4, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.linear = nn.Linear(4, 5)
        self.last = nn.Conv2d(5, 2, 1)
        self.single = nn.Conv2d(1, 1, 3, padding=1)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(x))
        x = torch.tanh(self.depthwise(torch.relu(self.transposed(x))))
        x = self.last(self.linear(x.movedim(1, -1)).movedim(-1, 1))
        return torch.cat([self.single(x[:, :1]), x[:, 1:]], dim=1)


def test_zero_kernels_are_dropped_inputs() -> None:
    """Against forward hooks that multiply the inputs of the plain module's layers."""
    prior, task = make_prior(Mixed, 4), make_task(2)
    kernels = kernels_of(prior)
    assert list(kernels) == [
        f"{name}.weight" for name in ("grouped", "transposed", "depthwise", "linear", "last")
    ]
    settings = FitSettings(iterations=3)
    dynamics = Dropout(prior, task, [4, 5], settings, rate=0.4, kernels=kernels)
    _, images = dynamics.evaluate()
    for chain, seed in enumerate((4, 5)):
        generator = torch.Generator().manual_seed(derive("mc-dropout", seed))
        kept = torch.empty(4 + 6 + 4 + 4 + 5, dtype=torch.float64)
        factors = iter((kept.bernoulli_(0.6, generator=generator) / 0.6).split([4, 6, 4, 4, 5]))
        net = prior.module(prior.init(seed))
        for name in kernels:
            axes = (-1,) if name == "linear.weight" else (-1, 1, 1)
            factor = next(factors).reshape(axes)
            net.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(
                lambda _, inputs, factor=factor: (inputs[0] * factor,)
            )
        torch.testing.assert_close(images[chain], net(prior.code)[0])


@pytest.mark.slow
def test_draws_have_the_mean_and_variance_over_all_masks(tmp_path: Path) -> None:
    """A linear network of 5 channels: its 32 images are summed with their probabilities."""
    prior, task, rate, draws = make_prior(), make_task(), 0.3, 400
    result = sampling.mc_dropout(
        prior, task, rate=rate, iterations=20, draws=draws, learning_rate=0.02,
        checkpoint=tmp_path / "c",
    )  # fmt: skip
    state = read_checkpoint(tmp_path / "c")[1]["dynamics"]["parameters"]
    w = {key: value[0] for key, value in state.items()}
    images, chances = [], []
    for mask in itertools.product([0.0, 1.0], repeat=5):
        z = torch.tensor(mask, dtype=torch.float64)
        hidden = (w["0.weight"][:, :, 0, 0] * z[:2] / 0.7) @ prior.code[0].flatten(1)
        hidden = hidden + w["0.bias"][:, None]
        image = (w["1.weight"][:, :, 0, 0] * z[2:] / 0.7) @ hidden + w["1.bias"][:, None]
        images.append(image.reshape(task.shape).numpy())
        chances.append(0.7 ** z.sum().item() * rate ** (5 - z.sum().item()))
    mean = np.average(images, axis=0, weights=chances)
    centred = np.array(images) - mean
    variance = np.average(centred**2, axis=0, weights=chances)
    fourth = np.average(centred**4, axis=0, weights=chances)
    found = result.draws.values[0]
    z_mean = (found.mean(axis=0) - mean) / np.sqrt(variance / draws)
    z_variance = (found.var(axis=0) - variance) / np.sqrt((fourth - variance**2) / draws)
    # 40 pixels, Gaussian to the order of draws^-1/2
    assert np.abs(z_mean).max() < 4.5 and np.abs(z_variance).max() < 4.5
    # the streamed moments are those of the draws
    np.testing.assert_allclose(result["mean"][0], found.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(result["std"][0], found.std(axis=0, ddof=1), rtol=1e-9)
    assert result.sizes["iteration"] == 20 + draws and result.sizes["draw"] == draws


@pytest.mark.slow
def test_a_single_layer_has_the_closed_form() -> None:
    """The variance of sum over c of w_c z_c x_c is rate / (1 - rate) sum of (w_c x_c)^2."""
    prior, task = make_prior(lambda: nn.Conv2d(3, 1, 1).double(), 3), make_task()
    rate, draws = 0.2, 400
    result = sampling.mc_dropout(prior, task, rate=rate, iterations=1, draws=draws, seed=3,
                                 learning_rate=1e-12)  # fmt: skip
    w = prior.init(derive("chain-0", 3))
    parts = (w["weight"][0] * prior.code[0]).numpy()
    mean = parts.sum(axis=0) + w["bias"].item()
    variance = rate / (1 - rate) * np.square(parts).sum(axis=0)
    found = result.draws.values[0, :, 0]
    assert np.abs(found.mean(axis=0) - mean).max() < 4.5 * np.sqrt(variance.max() / draws)
    # kurtosis of a sum of 3 such variables is at most that of one, 3.25: its variance errs by
    # sqrt(2.25 / draws) at most
    assert np.abs(found.var(axis=0) / variance - 1).max() < 4.5 * np.sqrt(2.25 / draws)


def test_a_rate_of_almost_zero_is_the_plain_fit() -> None:
    prior, task, options = make_prior(small_net), make_task(), {"learning_rate": 0.01, "seed": 2}
    found = sampling.mc_dropout(prior, task, rate=1e-12, iterations=25, draws=3, **options)
    plain = fit(prior, task, iterations=25, learning_rate=0.01, seed=derive("chain-0", 2))
    np.testing.assert_allclose(found.loss[0, :26], plain.loss, rtol=1e-8)
    np.testing.assert_allclose(found.draws[0], np.stack([plain.final] * 3), rtol=1e-7)


def test_the_fit_drops_anew_at_every_iteration() -> None:
    """Against a plain loop that multiplies activations."""
    prior, task = make_prior(small_net), make_task()
    found = sampling.mc_dropout(
        prior, task, rate=0.25, iterations=6, draws=2, learning_rate=0.01, weight_decay=1e-2,
        layers="3",
    )  # fmt: skip
    assert found.layers == 1
    chain = derive("chain-0", 0)
    net = prior.module(prior.init(chain)).train()
    generator = torch.Generator().manual_seed(derive("mc-dropout", chain))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=1e-2)
    losses = []
    for i in range(8):
        optimiser.zero_grad()
        kept = torch.empty(4, dtype=torch.float64).bernoulli_(0.75, generator=generator)
        hidden = net[2](net[1](net[0](prior.code)))
        loss = task.misfit(net[3](hidden * (kept / 0.75).reshape(1, 4, 1, 1))[0])
        losses.append(loss.item())
        if i < 6:
            loss.backward()
            optimiser.step()
    np.testing.assert_allclose(found.loss[0], losses, rtol=1e-9)


# --- Averages ---------------------------------------------------------------------------------


def test_averages_are_those_of_a_plain_loop() -> None:
    prior, task = make_prior(small_net), make_task()
    found = sampling.averaged(
        prior, task, iterations=21, burn_in=8, thin=3, input_noise=0.1, optimiser="sgd",
        momentum=0.7, learning_rate=0.05, seed=5,
    )  # fmt: skip
    chain = derive("chain-0", 5)
    net = prior.module(prior.init(chain)).train()
    generator = torch.Generator().manual_seed(derive("input-noise", chain))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.7)
    images, weights = [], []
    for _ in range(21):
        optimiser.zero_grad()
        noise = torch.empty_like(prior.code).normal_(generator=generator)
        image = net(prior.code + 0.1 * noise)[0]
        images.append(image.detach().numpy())
        weights.append({k: v.detach().clone() for k, v in net.named_parameters()})
        task.misfit(image).backward()
        optimiser.step()
    np.testing.assert_allclose(found.draws[0], images[11:21:3], rtol=1e-9)
    np.testing.assert_allclose(found["mean"][0], np.mean(images[9:], axis=0), rtol=1e-9)
    np.testing.assert_allclose(found["std"][0], np.std(images[9:], axis=0, ddof=1), rtol=1e-7)
    mean = {key: torch.stack([w[key] for w in weights[9:]]).mean(dim=0) for key in weights[0]}
    np.testing.assert_allclose(found.image_of_mean[0], prior.image(mean), rtol=1e-9)


@pytest.mark.slow
def test_plain_gradients_stand_still_and_say_so() -> None:
    """Without noise on the code the iterates of a convex problem converge: no spread is left."""
    prior, task = make_prior(lambda: nn.Conv2d(2, 1, 1).double()), make_task()
    options: dict[str, Any] = {"optimiser": "gradient-descent", "iterations": 160}
    still = sampling.averaged(prior, task, input_noise=0.0, **options)
    moving = sampling.averaged(prior, task, input_noise=0.1, **options)
    assert float(still["std"].max()) < 1e-4 * float(moving["std"].mean())


# --- As chains --------------------------------------------------------------------------------


def run(method: str, length: int, **options: Any) -> xr.Dataset:
    prior, task = make_prior(small_net), make_task()
    options = {"chains": 2, "seed": 3, "learning_rate": 0.01} | options
    if method == "averaged":
        return sampling.averaged(prior, task, iterations=9 + length, burn_in=7, thin=2, **options)
    return sampling.mc_dropout(prior, task, iterations=9, draws=length, rate=0.3, **options)


@pytest.mark.parametrize("method", ["averaged", "mc-dropout"])
def test_they_resume_and_share_nothing(method: str, tmp_path: Path) -> None:
    whole = run(method, 14)
    run(method, 5, checkpoint=tmp_path / "c")
    resumed = run(method, 14, checkpoint=tmp_path / "c")
    again = run(method, 14, checkpoint=tmp_path / "c")
    for name in whole.data_vars:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=str(name))
        np.testing.assert_array_equal(again[name], whole[name], err_msg=str(name))
    with pytest.raises(OutputError, match="seed: 3 there, 4 now"):
        run(method, 14, checkpoint=tmp_path / "c", seed=4)
    one = run(method, 14, chains=1)
    np.testing.assert_allclose(one.draws[0], whole.draws[0], rtol=1e-9)
    assert not np.allclose(whole.draws[0], whole.draws[1], rtol=1e-2)
    assert whole.method == method and whole.target.startswith("none")


@pytest.mark.parametrize("method", ["averaged", "mc-dropout"])
def test_what_takes_draws_takes_them(method: str) -> None:
    result, task = run(method, 14), make_task()
    maps = sampling.uncertainty.maps(result)
    assert (
        maps["mean"].shape == task.shape and maps.attrs["draws"] == result.draws[:, :, 0, 0, 0].size
    )
    found = sampling.uncertainty.calibration(result, task)
    assert set(found) == {"truth", "held_out"}
    text = sampling.summary(result)
    assert text.startswith("NOT CONVERGED") and method in text


def test_a_fit_that_diverges_is_told() -> None:
    with pytest.raises(DivergenceError, match="all chains diverged"):
        run("averaged", 30, optimiser="gradient-descent", learning_rate=1e200)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, t: sampling.mc_dropout(p, t, rate=0.0), r"rate must be in \(0, 1\)"),
        (lambda p, t: sampling.mc_dropout(p, t, draws=1), "draws must be at least 2"),
        (lambda p, t: sampling.mc_dropout(p, t, averaging=0.9), "averaging can't be chosen"),
        (lambda p, t: sampling.mc_dropout(p, t, input_noise=0.1), "input_noise can't be chosen"),
        (lambda p, t: sampling.mc_dropout(p, t, layers="decoder"), "no parameter's name"),
        (lambda p, t: sampling.averaged(p, t, stop="es-wmv"), "stop can't be chosen"),
        (lambda p, t: sampling.averaged(p, t, optimiser="l-bfgs"), "one fixed objective"),
        (lambda p, t: sampling.averaged(p, t, iterations=2), "3 iterations"),
        (lambda p, t: sampling.averaged(p, t, iterations=9, thin=9), "thin must be from 1 to 4"),
    ],
)
def test_wrong_options_are_told(call: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call(make_prior(), make_task())


def test_a_network_without_channels_to_drop_is_refused() -> None:
    prior = make_prior(lambda: nn.Conv2d(1, 1, 3, padding=1).double(), 1)
    with pytest.raises(InvalidInputError, match="nothing to drop"):
        sampling.mc_dropout(prior, make_task())
