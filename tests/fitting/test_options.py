"""The options of a fit, each against a plain loop or a closed form."""

import math
import subprocess
import sys
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import networks, tasks
from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError
from dipkernels.fitting import fit
from dipkernels.fitting.regularisers import half_squared_norms, total_variation
from dipkernels.fitting.schedules import SCHEDULES, learning_rate_factor
from dipkernels.networks import ImagePrior

SHAPE = (2, 7, 10)


class ConvNet(nn.Module):
    """Convolutions with BatchNorm, as a user may write them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.norm(self.first(x))))


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def make_prior() -> ImagePrior:
    return ImagePrior(ConvNet, draw(1, 3, *SHAPE[1:], seed=9))


def make_task() -> tasks.Task:
    return tasks.denoise(draw(*SHAPE), noise_sigma=0.1, seed=1)


def loop(
    optimiser: torch.optim.Optimizer | None = None,
    *,
    iterations: int,
    rate: float = 0.02,
    penalty: Any = None,
    noise: float = 0.0,
    clip: float | None = None,
    schedule: Any = None,
    **options: Any,
) -> list[float]:
    """Fit as one does in plain PyTorch; the losses before every step and after the last."""
    prior, task = make_prior(), make_task()
    module = ConvNet().double().train()
    module.load_state_dict(prior.init(seed=0), strict=False)  # all but BatchNorm's statistics
    kind = torch.optim.SGD if "momentum" in options else torch.optim.Adam
    stepper = kind(module.parameters(), lr=rate, foreach=False, **options)
    generator = torch.Generator().manual_seed(derive("input-noise", 0))
    losses = []
    for iteration in range(iterations + 1):
        code = prior.code
        if noise:
            code = code + noise * torch.randn(code.shape, generator=generator, dtype=code.dtype)
        image = module(code)[0]
        loss = nn.functional.mse_loss(image, task.measurement)
        losses.append(loss.item())
        stepper.zero_grad()
        (loss if penalty is None else loss + penalty(image)).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        if schedule is not None:
            stepper.param_groups[0]["lr"] = rate * schedule(iteration)
        stepper.step()
    return losses


def assert_same_losses(expected: list[float], **options: Any) -> None:
    settings = {"learning_rate": 0.02, "iterations": len(expected) - 1} | options
    result = fit(make_prior(), make_task(), **settings)
    # Rounding, which a fit doubles every few steps: seen 1e-13 after 60.
    np.testing.assert_allclose(result.loss, expected, rtol=1e-9)


def anisotropic(image: Tensor) -> Tensor:
    down, right = image[:, 1:] - image[:, :-1], image[..., 1:] - image[..., :-1]
    return down.abs().sum() + right.abs().sum()


def isotropic(image: Tensor) -> Tensor:
    total = image.new_zeros(())
    channels, height, width = image.shape
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                here = image[c, i, j]
                beyond = [(i + 1, j)] * (i + 1 < height) + [(i, j + 1)] * (j + 1 < width)
                if beyond:
                    total = total + torch.stack([image[c, k, m] - here for k, m in beyond]).norm()
    return total


def test_momentum_is_that_of_sgd() -> None:
    expected = loop(iterations=60, rate=0.3, momentum=0.9)
    assert_same_losses(expected, optimiser="sgd", momentum=0.9, learning_rate=0.3)
    plain = loop(iterations=60, rate=0.3, momentum=0.0)
    assert_same_losses(plain, optimiser="sgd", learning_rate=0.3)
    assert_same_losses(plain, optimiser="gradient-descent", learning_rate=0.3)
    assert abs(plain[-1] - expected[-1]) > 1e-4


def test_weight_decay_is_that_of_torch() -> None:
    expected = loop(iterations=60, weight_decay=0.03)
    assert_same_losses(expected, weight_decay=0.03)
    assert abs(expected[-1] - loop(iterations=60)[-1]) > 1e-4
    momentum = loop(iterations=60, rate=0.3, momentum=0.9, weight_decay=0.03)
    options = {"optimiser": "sgd", "momentum": 0.9, "learning_rate": 0.3}
    assert_same_losses(momentum, weight_decay=0.03, **options)


@pytest.mark.parametrize(("kind", "sum_"), [("anisotropic", anisotropic), ("isotropic", isotropic)])
def test_total_variation_is_added_to_the_objective(kind: str, sum_: Any) -> None:
    image = draw(*SHAPE, seed=3)
    torch.testing.assert_close(total_variation(image, kind), sum_(image), rtol=1e-13, atol=0)
    batch = torch.stack([image, 2 * image])
    expected = torch.stack([sum_(image), 2 * sum_(image)])
    torch.testing.assert_close(total_variation(batch, kind), expected, rtol=1e-13, atol=0)
    losses = loop(iterations=20, penalty=lambda x: 1e-3 * sum_(x))
    assert_same_losses(losses, total_variation_weight=1e-3, total_variation=kind)
    if kind == "anisotropic":
        assert_same_losses(losses, total_variation_weight=1e-3)


def test_total_variation_of_signals_and_its_derivative_where_flat() -> None:
    signal = draw(3, 11, seed=4)
    expected = signal.diff(dim=1).abs().sum()
    for kind in ("isotropic", "anisotropic"):
        value = total_variation(signal, kind, spatial_dims=1)
        torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    flat = torch.full((1, 4, 5), 0.5, dtype=torch.float64)
    flat[0, 2, 3] = 0.75
    flat.requires_grad_()
    (gradient,) = torch.autograd.grad(total_variation(flat, "isotropic"), flat)
    assert gradient.isfinite().all()
    with pytest.raises(InvalidInputError, match=r"one of .*isotropic.* got 'huber'"):
        total_variation(signal, "huber")


def test_half_squared_norms_have_the_parameters_as_gradient() -> None:
    leaves = {key: draw(3, 2, 4, seed=i).requires_grad_() for i, key in enumerate("ab")}
    norms = half_squared_norms(leaves)
    expected = sum(value.square().sum(dim=(1, 2)) for value in leaves.values()) / 2
    torch.testing.assert_close(norms, expected, rtol=1e-14, atol=0)
    for value, gradient in zip(
        leaves.values(), torch.autograd.grad(norms.sum(), list(leaves.values())), strict=True
    ):
        torch.testing.assert_close(gradient, value.detach(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("clip", [0.01, 0.2])
def test_gradient_clipping_is_that_of_torch(clip: float) -> None:
    # Plain descent, since Adam's steps don't depend on a constant factor. torch divides by the
    # norm plus 1e-6.
    expected = loop(iterations=30, rate=0.3, momentum=0.0, clip=clip)
    result = fit(
        make_prior(),
        make_task(),
        optimiser="gradient-descent",
        learning_rate=0.3,
        iterations=30,
        gradient_clip=clip,
    )
    np.testing.assert_allclose(result.loss, expected, rtol=1e-4)
    assert abs(expected[-1] - loop(iterations=30, rate=0.3, momentum=0.0)[-1]) > 1e-3


def test_input_noise_perturbs_the_code_anew_at_every_iteration() -> None:
    expected = loop(iterations=60, noise=0.1)
    assert_same_losses(expected, input_noise=0.1)
    other = fit(make_prior(), make_task(), iterations=60, input_noise=0.1, seed=1)
    assert abs(other.loss[0] - expected[0]) > 1e-4


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_scale_the_learning_rate(name: str) -> None:
    n = 40
    factors = [learning_rate_factor(name, i, n) for i in range(n)]
    closed = {
        "constant": [1.0] * n,
        "cosine": [math.cos(math.pi * i / n / 2) ** 2 for i in range(n)],
        "exponential": [math.exp(-math.log(100) * i / n) for i in range(n)],
        "step": [10.0 ** -(i // (n / 3)) for i in range(n)],
        "warmup": [0.5] + [1.0] * (n - 1),  # a twentieth of 40 is 2
    }[name]
    np.testing.assert_allclose(factors, closed, rtol=1e-12)
    if name != "constant":
        losses = loop(iterations=n, schedule=lambda i: learning_rate_factor(name, i, n))
        assert_same_losses(losses, schedule=name)


def test_lbfgs_is_that_of_torch_and_solves_a_linear_problem() -> None:
    prior, task = make_prior(), make_task()
    module = ConvNet().double().train()
    module.load_state_dict(prior.init(seed=0), strict=False)
    stepper = torch.optim.LBFGS(
        module.parameters(),
        lr=1.0,
        max_iter=25,
        max_eval=10_000,
        history_size=10,
        line_search_fn="strong_wolfe",
    )
    losses: list[float] = []

    def closure() -> Tensor:
        stepper.zero_grad()
        loss = nn.functional.mse_loss(module(prior.code)[0], task.measurement)
        loss.backward()
        return loss

    stepper.step(closure)
    losses.append(closure().item())
    result = fit(prior, task, optimiser="l-bfgs", iterations=25)
    # 25 directions together or one by one; the path is the same up to rounding.
    np.testing.assert_allclose(result.loss[-1], losses[-1], rtol=1e-6)
    assert (np.diff(result.loss) <= 0).all()

    linear = ImagePrior(lambda: nn.Conv2d(3, 2, 3, padding=1), draw(1, 3, *SHAPE[1:], seed=9))
    jacobian = torch.func.jacrev(linear.image)(linear.init(0))
    matrix = torch.cat([block.reshape(math.prod(SHAPE), -1) for block in jacobian.values()], dim=1)
    target = task.measurement.flatten()
    best = torch.linalg.lstsq(matrix, target[:, None]).solution[:, 0]
    least = (matrix @ best - target).square().mean().item()
    solved = fit(linear, task, optimiser="l-bfgs", iterations=60)
    assert solved.loss[-1] == pytest.approx(least, rel=1e-6)
    assert solved.loss[0] > 1.2 * least


def test_backtracking_goes_back_to_the_last_good_parameters() -> None:
    # A rate at which the loss jumps up now and then.
    seen: list[dict[str, Tensor]] = []

    def watch(iteration: int, image: Tensor, parameters: dict[str, Tensor]) -> None:
        seen.append({key: value.clone() for key, value in parameters.items()})

    settings = {"learning_rate": 0.5, "iterations": 60}
    free = fit(make_prior(), make_task(), **settings)
    rises = 10 * np.log10(free.loss.values[1:] / free.loss.values[:-1])
    assert rises.max() > 1.5
    result = fit(make_prior(), make_task(), backtracking=1.0, callback=watch, **settings)
    assert int(result.rollbacks) > 0
    # Independently: which iterates are accepted, and that a step starts from the last of them.
    accepted, last = [0], float(result.loss[0])
    for i, loss in enumerate(result.loss.values[1:], start=1):
        if 10 * math.log10(loss / last) <= 1.0:
            accepted.append(i)
            last = loss
    assert int(result.rollbacks) == 60 - len(accepted) + 1 - (60 not in accepted)
    rejected = next(i for i in range(1, 60) if i not in accepted)
    before = max(i for i in accepted if i < rejected)
    # Adam moves a parameter by at most about ten rates; from the bad ones it would be farther.
    change = max(
        float((seen[rejected + 1][key] - seen[before][key]).abs().max()) for key in seen[0]
    )
    start = make_prior().init(0)
    assert change <= 0.5 * 10
    assert all(torch.equal(seen[0][key], start[key]) for key in start)


def test_bf16_and_channels_last_change_little(capfd: pytest.CaptureFixture[str]) -> None:
    clean = draw(3, 20, 28).float()
    task = tasks.denoise(clean, noise_sigma=0.1)
    prior = networks.create("skip", image_size=(20, 28), width=16, scales=2)
    plain, laid, half = (
        fit(prior, task, iterations=3, **options)
        for options in ({}, {"channels_last": True}, {"precision": "bf16"})
    )
    # Single precision; but Adam's first steps are signs of gradients, of which small ones round to
    # either (8e-4 was measured on another processor). bfloat16 has three digits.
    np.testing.assert_allclose(laid.loss, plain.loss, rtol=1e-2)
    np.testing.assert_allclose(half.loss, plain.loss, rtol=0.1)
    assert not np.array_equal(half.loss, plain.loss)
    assert half.final.dtype == np.float32


def test_another_range_changes_the_loss_and_nothing_else_but_adams_epsilon() -> None:
    task = tasks.inpaint(draw(*SHAPE), tasks.bernoulli_mask(SHAPE[1:], seed=2), noise_sigma=0.1)
    task = task.hold_out(0.2)
    size = SHAPE[1:]
    unit, byte = (
        networks.create("conv-decoder", image_size=size, channels=2, width=6, output=output).to(
            dtype=torch.float64
        )
        for output in ("sigmoid", "255")
    )
    settings: dict[str, Any] = {"iterations": 30, "stop": "discrepancy", "learning_rate": 0.01}
    settings["monitors"] = ["moving-variance"]
    expected = fit(unit, task, **settings)
    result = fit(byte, task.in_range(255.0), **settings)
    np.testing.assert_allclose(result.loss[0], 255**2 * expected.loss[0], rtol=1e-12)
    # Adam adds 1e-8 to a root mean square gradient of 1e-3 here, and of 65 there.
    names = ["psnr_noisy", "psnr_clean", "psnr_held_out", "psnr_average_clean", "ssim", "mse"]
    for name in [*names, "moving_variance"]:
        np.testing.assert_allclose(result[name], expected[name], rtol=2e-3, err_msg=name)
    for name in ("final", "best", "average", "clean", "measurement", "chosen_image"):
        np.testing.assert_allclose(result[name], expected[name], atol=2e-3, err_msg=name)
    assert result.noise_sigma == pytest.approx(expected.noise_sigma, rel=1e-12)
    with pytest.raises(InvalidInputError, match="data_range must be positive and finite, got 0"):
        task.in_range(0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 0.9}, "momentum has no effect on 'adam'"),
        ({"optimiser": "gradient-descent", "momentum": 0.9}, "no effect on 'gradient-descent'"),
        ({"optimiser": "sgd", "momentum": 1.0}, r"momentum must be in \(0, 1\), got 1.0"),
        ({"total_variation": "isotropic"}, "no effect while total_variation_weight is 0"),
        ({"total_variation": "huber", "total_variation_weight": 1.0}, "one of .* got 'huber'"),
        ({"total_variation_weight": -1.0}, "total_variation_weight must be finite and not neg"),
        ({"input_noise": float("nan")}, "input_noise must be a finite number, got nan"),
        ({"weight_decay": -0.1}, "weight_decay must be finite and not negative, got -0.1"),
        ({"gradient_clip": 0.0}, "gradient_clip must be positive and finite, got 0.0"),
        ({"backtracking": -5.0}, "backtracking must be positive and finite, got -5.0"),
        ({"schedule": "linear"}, "schedule must be one of .*'cosine'.* got 'linear'"),
        ({"precision": "half"}, "precision must be one of .*'bf16'.* got 'half'"),
        ({"precision": "tf32"}, "'tf32' has no effect on cpu"),
        ({"compile": "fast"}, "compile must be one of .* got 'fast'"),
        ({"optimiser": "l-bfgs", "input_noise": 0.1}, "input_noise doesn't go with l-bfgs"),
        ({"optimiser": "l-bfgs", "gradient_clip": 1.0}, "gradient_clip doesn't go with l-bfgs"),
        ({"optimiser": "l-bfgs", "backtracking": 5.0}, "backtracking doesn't go with l-bfgs"),
        ({"optimiser": "l-bfgs", "schedule": "cosine"}, "'cosine' doesn't go with l-bfgs"),
        ({"optimiser": "l-bfgs", "channels_last": True}, "channels_last doesn't go with l-bfgs"),
        ({"optimiser": "l-bfgs", "seed": [0, 1]}, "l-bfgs fits one run at a time, got 2"),
        ({"channels_last": True, "seed": [0, 1]}, "channels_last is for one run, got 2"),
        ({"iterations": True}, "iterations must be a whole number, got True"),
        ({"seed": True}, "seed must be a whole number .* got True"),
        ({"seed": 2**70}, "seed must be a whole number of 64 bits"),
        ({"seed": [1, 1]}, r"seeds must differ, got \[1, 1\]"),
        ({"seed": []}, "needs a task and a seed, got 1, 0"),
    ],
)
def test_options_that_cannot_be_or_do_nothing(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        fit(make_prior(), make_task(), **({"iterations": 2} | settings))


WRONG_TYPES: list[tuple[dict[str, Any], str]] = [
    ({"iterations": "3"}, "iterations must be a whole number, got '3'"),
    ({"iterations": 10.5}, "iterations must be a whole number, got 10.5"),
    ({"iterations": float("nan")}, "iterations must be a whole number, got nan"),
    ({"averaging": None}, "averaging must be a number, got None"),
    ({"learning_rate": "0.1"}, "learning_rate must be a number or None, got '0.1'"),
    ({"learning_rate": [0.1]}, "learning_rate must be a number or None, got [0.1]"),
    ({"input_noise": None}, "input_noise must be a number, got None"),
    ({"backtracking": True}, "backtracking must be a number or None, got True"),
    ({"channels_last": "yes"}, "channels_last must be True or False, got 'yes'"),
    ({"optimiser": 3}, "optimiser must be a word, got 3"),
    ({"seed": "3"}, "seed must be a whole number from 0 to 2**63 - 1, or several, got '3'"),
    ({"seed": 1.5}, "or several, got 1.5"),
    ({"seed": [0, 1.5]}, "or several, got [0, 1.5]"),
    ({"seed": None}, "or several, got None"),
    ({"task": "denoise"}, "task must be a Task, or several, got 'denoise'"),
    ({"task": None}, "task must be a Task, or several, got None"),
    ({"prior": 3}, "prior must be an ImagePrior, got 3"),
    ({"monitors": "blur-sharpness"}, "monitors must be several values, each a Monitor (with load,"),
    ({"monitors": [3]}, "each a Monitor (with load, state, update) or a word, got [3]"),
    ({"monitors": None}, "monitors must be several values, each a Monitor (with load,"),
    ({"stop": 3}, "stop must be a Rule or a word or None, got 3"),
    ({"checkpoint": 3}, "checkpoint must be a word or a path or None, got 3"),
    ({"callback": 3}, "callback must be a function or None, got 3"),
]


@pytest.mark.parametrize(("settings", "expected"), WRONG_TYPES)
def test_wrong_types_are_one_sentence(
    settings: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    task = tasks.denoise(torch.rand(3, 9, 14))
    prior = networks.create("deep-decoder", image_size=(9, 14), width=4)
    with pytest.raises(InvalidInputError) as caught:
        fit(**({"prior": prior, "task": task, "iterations": 2} | settings))
    assert expected in " ".join(str(caught.value).split())


COMPILED = """
import numpy as np
from dipkernels import fit, images, networks, tasks
task = tasks.denoise(images.load("astronaut", size=(20, 28)))
prior = networks.create("vit", image_size=(20, 28), width=12, depth=1, heads=3)
plain, compiled = (
    fit(prior, task, iterations=5, seed=[0, 3], compile=mode) for mode in (None, "default")
)
print(np.abs(compiled.loss / plain.loss - 1).max().item())
"""


@pytest.mark.long
def test_compiled_networks_fit_the_same() -> None:
    # Half a minute, which torch.compile needs to start; apart, since it can't see through the
    # checks of shapes that the tests run under.
    shown = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    # Single precision, five steps of Adam.
    assert 0 <= float(shown.stdout) < 1e-4
