"""Fits on a linearisation that is taken anew every so many steps, against loops in plain torch."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp

from dipkernels import ImagePrior, fit, networks, planning, tasks
from dipkernels.errors import InvalidInputError
from dipkernels.fitting import FitSettings, load_parameters

SIZE = (9, 11)


def make_prior() -> ImagePrior:
    made = networks.create("conv-decoder", image_size=SIZE, channels=2, width=6)
    return made.to(dtype=torch.float64)


def make_task(seed: int = 0) -> tasks.Task:
    generator = torch.Generator().manual_seed(8)
    clean = torch.rand(2, *SIZE, generator=generator, dtype=torch.float64)
    mask = tasks.bernoulli_mask(SIZE, known=0.7, seed=2)
    return tasks.inpaint(clean, mask, noise_sigma=0.1, seed=seed)


ADAM: dict[str, Any] = {"optimiser": "adam", "learning_rate": 0.02, "iterations": 11}
DESCENT: dict[str, Any] = {"optimiser": "gradient-descent", "learning_rate": 0.01, "iterations": 11}
SGD: dict[str, Any] = {"optimiser": "sgd", "momentum": 0.8, "learning_rate": 0.02, "iterations": 11}


def by_hand(
    prior: ImagePrior, task: tasks.Task, every: int, settings: dict[str, Any]
) -> list[Tensor]:
    """Images of a fit whose linearisations are products in forward mode."""
    leaves = {key: value.clone().requires_grad_() for key, value in prior.init(5).items()}
    rate = settings["learning_rate"]
    if settings["optimiser"] == "adam":
        stepper: torch.optim.Optimizer = torch.optim.Adam(leaves.values(), lr=rate)
    else:
        stepper = torch.optim.SGD(leaves.values(), lr=rate, momentum=settings.get("momentum", 0.0))
    images, origin = [], prior.init(5)
    for i in range(settings["iterations"] + 1):
        if i % every == 0:
            origin = {key: leaf.detach().clone() for key, leaf in leaves.items()}
        moved = {key: leaf - origin[key] for key, leaf in leaves.items()}
        start, change = jvp(prior.image, (origin,), (moved,))
        image = start + change
        images.append(image.detach())
        stepper.zero_grad()
        task.misfit(image).backward()
        stepper.step()
    return images


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 4, 50])
@pytest.mark.parametrize("settings", [ADAM, DESCENT, SGD], ids=lambda s: s["optimiser"])
def test_steps_are_those_of_a_plain_loop(every: int, settings: dict[str, Any]) -> None:
    """In float64 sums in another order differ by 1e-13, which Adam's first steps magnify."""
    prior, task, images = make_prior(), make_task(), []
    result = fit(
        prior,
        task,
        seed=5,
        relinearise=every,
        callback=lambda i, image, p: images.append(image.clone()),
        **settings,
    )
    expected = by_hand(prior, task, every, settings)
    torch.testing.assert_close(torch.stack(images), torch.stack(expected), rtol=0, atol=1e-7)
    assert result.attrs["relinearise"] == every
    errors = [float(task.mse(image)) for image in expected]
    hole = -10 * np.log10(errors)
    np.testing.assert_allclose(result.psnr_clean.sel(region="hole"), hole, atol=1e-5)


def test_anew_at_every_step_is_the_network_s_own_descent() -> None:
    prior, task = make_prior(), make_task()
    own, anew = fit(prior, task, **ADAM), fit(prior, task, relinearise=1, **ADAM)
    np.testing.assert_array_equal(own.loss, anew.loss)
    np.testing.assert_array_equal(own.final, anew.final)
    other = fit(prior, task, relinearise=5, **ADAM)
    assert float(own.loss[0]) == float(other.loss[0])
    assert abs(own.loss - other.loss).max() > 1e-3 * own.loss[-1]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [ADAM, DESCENT], ids=lambda s: s["optimiser"])
def test_never_anew_is_the_frozen_network(settings: dict[str, Any]) -> None:
    """Also with what else is descended, or done to the gradient."""
    prior, task = make_prior(), make_task()
    more = {"weight_decay": 1e-3, "total_variation_weight": 1e-3, "gradient_clip": 0.5}
    frozen = fit(prior.linearised(prior.init(3)), task, seed=3, **settings, **more)
    never = fit(prior, task, seed=3, relinearise=12, **settings, **more)
    np.testing.assert_allclose(never.loss, frozen.loss, rtol=1e-7)
    np.testing.assert_allclose(never.final, frozen.final, atol=1e-7)


@pytest.mark.slow
def test_each_run_is_linearised_where_it_is() -> None:
    prior, pair = make_prior(), [make_task(0), make_task(1)]
    together = fit(prior, pair, seed=[0, 4], relinearise=3, monitors=["twin"], **ADAM)
    apart = fit(prior, pair[0], seed=4, relinearise=3, monitors=["twin"], **ADAM)
    np.testing.assert_allclose(together.loss[0, 1], apart.loss, rtol=1e-7)
    np.testing.assert_allclose(together.freedom_share[0, 1], apart.freedom_share, atol=1e-5)
    assert abs(together.loss[0, 1] - together.loss[1, 0]).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("moment", [4, 6, 7])
def test_a_killed_fit_continues_bit_by_bit(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two linearisations, at one, and after it."""
    monkeypatch.setattr("dipkernels.storage.checkpoints.SECONDS", 0.0)
    monkeypatch.setattr("dipkernels.storage.checkpoints.SHARE", math.inf)
    prior, task, file = make_prior(), make_task(), tmp_path / "state.safetensors"
    whole = fit(prior, task, relinearise=3, **ADAM)

    def die(iteration: int, *_: object) -> None:
        if iteration == moment:
            raise LookupError

    with pytest.raises(LookupError):
        fit(prior, task, relinearise=3, checkpoint=file, callback=die, **ADAM)
    result = fit(prior, task, relinearise=3, checkpoint=file, **ADAM)
    np.testing.assert_array_equal(result.loss, whole.loss)
    np.testing.assert_array_equal(result.final, whole.final)
    assert {k: v.shape for k, v in load_parameters(file).items()} == prior.parameter_shapes
    longer = fit(prior, task, relinearise=3, checkpoint=file, **ADAM | {"iterations": 14})
    np.testing.assert_array_equal(
        longer.loss, fit(prior, task, relinearise=3, **ADAM | {"iterations": 14}).loss
    )


class _Opaque(torch.autograd.Function):
    # An operation that torch can't differentiate in forward mode.
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


class Cubed(nn.Module):
    """A convolution whose result is cubed."""

    def __init__(self, cube: Any) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 2, 3, padding=1)
        self.cube = cube

    def forward(self, x: Tensor) -> Tensor:
        return self.cube(self.first(x))


def test_networks_without_forward_mode_take_backward_passes() -> None:
    generator = torch.Generator().manual_seed(1)
    code = torch.rand(1, 3, *SIZE, generator=generator, dtype=torch.float64)
    losses = []
    for cube in (lambda x: x**3, _Opaque.apply):
        prior = ImagePrior(lambda cube=cube: Cubed(cube), code)
        losses.append(fit(prior, make_task(), relinearise=4, **ADAM).loss)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)


def test_runs_that_diverge_end_as_others_do() -> None:
    prior = make_prior()
    pair = [tasks.denoise(torch.full((2, *SIZE), x, dtype=torch.float64)) for x in (0.5, 0.6)]
    frozen = fit(prior, pair, relinearise=2, **DESCENT | {"learning_rate": 1e300})
    assert set(frozen.status.values) == {"diverged"}


@pytest.mark.slow
def test_it_is_planned_for_and_recorded() -> None:
    planned = planning.plan(make_prior(), make_task(), iterations=6, relinearise=3, timed=False)
    assert planned.fits
    assert "relinearise" not in FitSettings().record()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relinearise": 0}, "relinearise must be at least 1 step, got 0"),
        ({"relinearise": 2, "input_noise": 0.1}, "input_noise doesn't go with relinearise"),
        ({"relinearise": 2, "optimiser": "l-bfgs"}, "l-bfgs doesn't go with relinearise"),
        ({"relinearise": 2, "compile": "default"}, "compile doesn't go with relinearise"),
        ({"relinearise": 2, "precision": "bf16"}, "precision 'bf16' doesn't go with"),
        ({"relinearise": 2, "channels_last": True}, "channels_last doesn't go with relinearise"),
    ],
)
def test_what_does_not_go_with_it(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        FitSettings(**options)


def test_a_frozen_network_is_not_linearised_again() -> None:
    prior = make_prior()
    with pytest.raises(InvalidInputError, match="relinearise has no effect on"):
        fit(prior.linearised(prior.init(0)), make_task(), relinearise=2, iterations=3)
