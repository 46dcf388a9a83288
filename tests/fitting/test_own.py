"""Optimisers and schedules of one's own: those of torch, by a loop of torch's."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import ImagePrior, fit, tasks
from dipkernels.errors import InvalidInputError, OutputError
from dipkernels.fitting import (
    FitSettings,
    load_adam_metric,
    register_optimiser,
    register_schedule,
)
from dipkernels.fitting.schedules import SCHEDULES
from dipkernels.fitting.settings import OPTIMISERS
from dipkernels.planning import plan

N = 25
PAGE = Path(__file__).parents[2] / "docs" / "fitting.md"
Make = Callable[[dict[str, Tensor], float], torch.optim.Optimizer]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Take back what a test registers."""
    optimisers, schedules = dict(OPTIMISERS), dict(SCHEDULES)
    yield
    for known, before in ((OPTIMISERS, optimisers), (SCHEDULES, schedules)):
        known.clear()
        known.update(before)


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 1)).double()


def subject() -> tuple[ImagePrior, tasks.Task]:
    return ImagePrior(network, draw(1, 2, 6, 8)), tasks.denoise(draw(1, 6, 8, seed=1), seed=0)


def grouped(parameters: dict[str, Tensor], rate: float) -> torch.optim.Optimizer:
    biases = [leaf for key, leaf in parameters.items() if key.endswith("bias")]
    kernels = [leaf for key, leaf in parameters.items() if not key.endswith("bias")]
    groups = [{"params": kernels}, {"params": biases, "lr": 3 * rate, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, weight_decay=0.3)


MAKES: dict[str, Make] = {
    "own-nadam": lambda parameters, rate: torch.optim.NAdam(parameters.values(), lr=rate),
    "own-rprop": lambda parameters, rate: torch.optim.Rprop(parameters.values(), lr=rate),
    "own-groups": grouped,
    "own-asgd": lambda parameters, rate: torch.optim.ASGD(parameters.values(), lr=rate),
}


@pytest.mark.parametrize("name", MAKES)
def test_a_fit_is_the_loop_of_torch(name: str) -> None:
    register_optimiser(name, MAKES[name], learning_rate=0.02)
    register_schedule("linear-down", lambda i, n: 1 - i / n)
    prior, task = subject()
    module = network()
    module.load_state_dict(prior.init(0))
    stepper = MAKES[name](dict(module.named_parameters()), 0.02)
    falling = torch.optim.lr_scheduler.LambdaLR(stepper, lambda i: 1 - i / N)
    expected = []
    for _ in range(N):
        stepper.zero_grad()
        loss = nn.functional.mse_loss(module(prior.code)[0], task.measurement)
        expected.append(loss.item())
        loss.backward()
        stepper.step()
        falling.step()
    result = fit(prior, task, optimiser=name, schedule="linear-down", iterations=N)
    assert result.attrs["learning_rate"] == 0.02
    # a step of Rprop is one of signs, which rounding hardly turns
    np.testing.assert_allclose(result.loss[:N], expected, rtol=1e-7)
    together = fit(prior, task, optimiser=name, schedule="linear-down", iterations=N, seed=[0, 1])
    np.testing.assert_allclose(together.loss.sel(seed=0), result.loss, rtol=1e-7)


class NormScaled(torch.optim.Optimizer):
    """A step as long as the tensor, as those of LARS."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for leaf in group["params"]:
                leaf -= group["lr"] * leaf.norm() * leaf.grad / leaf.grad.norm()


def test_one_that_mixes_runs_fits_them_one_by_one() -> None:
    register_optimiser("own-lars", lambda p, rate: NormScaled(p.values(), rate), learning_rate=0.01)
    prior, task = subject()
    result = fit(prior, task, optimiser="own-lars", iterations=30)
    assert result.loss[-1] < 0.5 * result.loss[0]
    with pytest.raises(InvalidInputError, match=r"depends on all runs .* got 2: call fit for"):
        fit(prior, task, optimiser="own-lars", iterations=3, seed=[0, 1])
    with pytest.raises(InvalidInputError, match="'own-lars' is for one run, and a monitor"):
        fit(prior, task, optimiser="own-lars", iterations=3, monitors=["twin"])


def test_a_checkpoint_goes_on_and_knows_its_optimiser(tmp_path: Path) -> None:
    def make(decay: float) -> Make:
        return lambda p, rate: torch.optim.AdamW(p.values(), lr=rate, weight_decay=decay)

    register_optimiser("own-adamw", make(0.1))
    prior, task = subject()
    options: dict[str, Any] = {"optimiser": "own-adamw", "checkpoint": tmp_path / "fit"}
    whole = fit(prior, task, optimiser="own-adamw", iterations=20)
    fit(prior, task, iterations=8, **options)
    resumed = fit(prior, task, iterations=20, **options)
    np.testing.assert_array_equal(resumed.loss, whole.loss)
    # its moments may have another decay than Adam's in a fit
    with pytest.raises(InvalidInputError, match="wasn't one by Adam"):
        load_adam_metric(tmp_path / "fit")
    del OPTIMISERS["own-adamw"]
    register_optimiser("own-adamw", make(0.2))
    with pytest.raises(OutputError, match="steps of the optimiser"):
        fit(prior, task, iterations=30, **options)


class Counting(torch.optim.Optimizer):
    """Steps that shrink with a number of the group."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "k": 0, "ends": (1, 2)})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["k"] += 1
            for leaf in group["params"]:
                if leaf.grad is not None:
                    leaf -= group["lr"] / group["k"] * leaf.grad


def test_numbers_of_its_groups_are_kept(tmp_path: Path) -> None:
    register_optimiser("own-counting", lambda p, rate: Counting(p.values(), rate))
    prior, task = subject()
    options: dict[str, Any] = {"optimiser": "own-counting", "learning_rate": 0.5}
    whole = fit(prior, task, iterations=20, **options)
    options["checkpoint"] = tmp_path / "fit"
    fit(prior, task, iterations=8, **options)
    resumed = fit(prior, task, iterations=20, **options)
    np.testing.assert_array_equal(resumed.loss, whole.loss)


def test_gradients_of_what_it_leaves_alone_do_not_add_up() -> None:
    def kernels(parameters: dict[str, Tensor], rate: float) -> torch.optim.Optimizer:
        chosen = [leaf for key, leaf in parameters.items() if key.endswith("weight")]
        return torch.optim.SGD(chosen, lr=rate)

    register_optimiser("own-kernels", kernels)
    prior, task = subject()
    clipped = {"optimiser": "own-kernels", "learning_rate": 0.1, "gradient_clip": 0.05}
    result = fit(prior, task, iterations=30, **clipped)  # type: ignore[arg-type]
    module = network()
    module.load_state_dict(prior.init(0))
    stepper = torch.optim.SGD([p for n, p in module.named_parameters() if "weight" in n], lr=0.1)
    for i in range(31):
        module.zero_grad()
        loss = nn.functional.mse_loss(module(prior.code)[0], task.measurement)
        # torch adds 1e-6 to the norm
        assert result.loss[i] == pytest.approx(loss.item(), rel=1e-5)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 0.05)
        stepper.step()


def test_it_is_known_by_its_options() -> None:
    known = []
    for options in ({}, {"betas": (0.5, 0.999)}, {"amsgrad": True}, {"eps": 1e-7}):
        register_optimiser("own-adam", lambda p, rate, o=options: torch.optim.Adam(  # type: ignore[misc]
            p.values(), lr=rate, **o))  # fmt: skip
        known.append(tuple(OPTIMISERS.pop("own-adam").known_by))
    assert len(set(known)) == 4


def test_a_schedule_is_known_by_its_factors(tmp_path: Path) -> None:
    register_schedule("own-falling", lambda i, n: 1 - i / n)
    prior, task = subject()
    options: dict[str, Any] = {"schedule": "own-falling", "checkpoint": tmp_path / "fit"}
    fit(prior, task, iterations=8, **options)
    SCHEDULES["own-falling"] = lambda i, n: 1 - i / (2 * n)
    with pytest.raises(OutputError, match="factors of the schedule"):
        fit(prior, task, iterations=8, **options)
    SCHEDULES["own-falling"] = lambda i, n: 1 / (i - 30)
    with pytest.raises(InvalidInputError, match=r"gives -0.0333.* at iteration 0 of 40"):
        fit(prior, task, schedule="own-falling", iterations=40)


class Nameless(torch.optim.Optimizer):
    """One whose rate has another name."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"rate": 0.1})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        raise AssertionError


def plain(parameters: dict[str, Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters.values(), lr=rate)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("adam", plain, "there is an optimiser 'adam' already"),
        ("own-a", lambda p, rate: torch.optim.LBFGS(list(p.values()), lr=rate), "can't take a st"),
        ("own-b", lambda p, rate: None, "it must be a torch.optim.Optimizer, got NoneType"),
        ("own-c", lambda p: plain(p, 1), r"can't take a step: TypeError"),
        ("own-d", lambda p, rate: plain(p, 0.0), "leaves its parameters where they are"),
        ("own-i", lambda p, rate: Nameless(p.values()), "its groups must have 'lr'"),
    ],
)
def test_what_is_none_is_refused(name: str, make: Make, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        register_optimiser(name, make)
    assert name == "adam" or name not in OPTIMISERS


@pytest.mark.parametrize(
    ("name", "factor", "message"),
    [
        ("cosine", lambda i, n: 1.0, "there is a schedule 'cosine' already"),
        ("own-e", lambda i, n: -1.0, "gives -1.0 at iteration 0 of 10"),
        ("own-f", lambda i, n: 1 / i, "failed at iteration 0 of 10: ZeroDivisionError"),
        ("own-g", lambda i, n: float("nan") if i == 3 else 1, "gives nan at iteration 3"),
    ],
)
def test_a_factor_is_finite(name: str, factor: Callable[[int, int], float], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        register_schedule(name, factor)
    assert name == "cosine" or name not in SCHEDULES


def test_settings_and_plans_know_it() -> None:
    with pytest.raises(InvalidInputError, match=r"optimiser must be one of .*, got 'own-h'"):
        FitSettings(optimiser="own-h")
    register_optimiser("own-h", plain)
    with pytest.raises(InvalidInputError, match="momentum has no effect on 'own-h'"):
        FitSettings(optimiser="own-h", momentum=0.9)
    planned = plan(*subject(), optimiser="own-h", iterations=7, timed=False)
    assert planned.iterations == 7 and planned.matvecs == 0  # no search of a learning rate


def test_the_recipe_for_tensorboard_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="the extra neural-tangents is not installed")
    (code,) = (
        block.partition("```")[0]
        for block in PAGE.read_text(encoding="utf-8").split("```python\n")[1:]
        if "SummaryWriter" in block
    )
    monkeypatch.chdir(tmp_path)
    prior, task = subject()
    exec(
        code.replace("iterations=1000", "iterations=21"), {"prior": prior, "task": task, "fit": fit}
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written = EventAccumulator(str(tmp_path / "board"))
    written.Reload()
    steps = {event.step: event.value for event in written.Scalars("psnr/clean")}
    result = fit(prior, task, iterations=21)
    assert sorted(steps) == [0, 10, 20]
    for step, value in steps.items():  # TensorBoard stores float32
        expected = float(result.psnr_clean.sel(region="whole")[step])
        assert value == pytest.approx(expected, rel=1e-6)
