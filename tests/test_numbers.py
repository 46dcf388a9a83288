"""Odd numbers: constants, one pixel, no noise, NaN, huge rates: right, or a sentence."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import (
    NTK,
    GaussianProcess,
    ImagePrior,
    fit,
    gp,
    kernels,
    linalg,
    networks,
    tasks,
    theory,
)
from dipkernels.errors import (
    DipkernelsError,
    DivergenceError,
    InvalidInputError,
    MemoryLimitError,
)
from dipkernels.fitting import summary
from dipkernels.priors.draws import draw_images
from dipkernels.spectra import prior_spectrum, radial_power


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))


def prior(height: int, width: int, dtype: torch.dtype = torch.float32) -> ImagePrior:
    code = torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(0))
    return ImagePrior(net, code).to(dtype=dtype)


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 1, 1)

    def forward(self, code: Tensor) -> Tensor:
        return self.layer(code) * math.nan


@pytest.mark.parametrize(
    "kernel", [gp.rbf(3.0), gp.rbf(1.0), gp.matern(1.5)], ids=["flat", "rbf", "matern"]
)
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("hidden", [False, True])
def test_what_was_measured_without_noise_is_the_mean(kernel, periodic, hidden):
    image = torch.rand(1, 6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = torch.ones(6, 7, dtype=torch.bool)
    if hidden and kernel.lengthscale > 2:
        pytest.skip("the system of what is hidden is singular without noise, and said to be")
    if hidden:
        mask[2:4, 3:5] = False
    task = (
        tasks.inpaint(None, mask, measurement=image * mask, noise_sigma=0.0)
        if hidden
        else (tasks.denoise(measurement=image, noise_sigma=0.0))
    )
    found = GaussianProcess(kernel, mean=0.5, periodic=periodic).posterior(task, 0.0)
    torch.testing.assert_close(found.mean[:, mask], image[:, mask], rtol=0, atol=1e-12)
    if kernel.lengthscale > 2:  # no process on its torus: draws are refused
        return
    draws = found.draws(2)
    # a draw is a mean and the deviation of a prior's draw, which cancels where it's measured
    expected = image[:, mask].expand(2, -1, -1)
    torch.testing.assert_close(draws[..., mask], expected, rtol=0, atol=1e-9)


def test_networks_that_make_nan_are_named():
    code = torch.rand(1, 2, 8, 8)
    broken = ImagePrior(Broken, code)
    for act in (lambda: broken.sample(2), lambda: prior_spectrum(broken, 2)):
        with pytest.raises(DivergenceError, match=r"ImagePrior\(Broken.* makes images with NaN"):
            act()


@pytest.mark.parametrize("size", [(16, 1), (1, 16), (1, 1), (2, 1)])
def test_the_covariance_of_narrow_images_is_finite(size):
    found = kernels.covariance(prior(*size), samples=16)
    assert bool(np.isfinite(found.kernel).all())


def test_a_trace_of_16_bits_is_summed_in_32():
    half, single = prior(32, 32, torch.float16), prior(32, 32)
    parameters = {key: 8 * value for key, value in single.init(0).items()}
    exact = NTK(single, parameters).trace(4).value
    short = {key: value.half() for key, value in parameters.items()}
    # float16 has 11 bits, and J^T v is a sum over 1024 pixels: the same to within 2 %
    assert NTK(half, short).trace(4).value == pytest.approx(exact, rel=0.02)
    assert exact > torch.finfo(torch.float16).max


@pytest.mark.parametrize("rate", [1e9, 1e30, 1e300])
@pytest.mark.parametrize("optimiser", ["adam", "gradient-descent"])
def test_a_rate_that_ruins_the_start_is_seen(rate, optimiser):
    task = tasks.denoise(torch.rand(1, 8, 8), noise_sigma=0.1)
    found = fit(prior(8, 8), task, iterations=20, learning_rate=rate, optimiser=optimiser)
    assert found.status == "diverged"
    assert bool(np.isfinite(found.loss).all())


@pytest.mark.parametrize("optimiser", ["adam", "sgd", "l-bfgs"])
def test_a_rate_below_all_numbers_of_32_bits_moves_nothing(optimiser):
    task = tasks.denoise(torch.rand(1, 8, 8), noise_sigma=0.1)
    found = fit(prior(8, 8), task, iterations=3, learning_rate=1e-60, optimiser=optimiser)
    assert found.status == "finished"
    assert len(set(found.loss.values)) == 1


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("skip", {"scales": 10**6}, "scales must be at most 1000, got 1000000"),
        ("vit", {"depth": 10**9}, "depth must be at most 1000"),
        ("resnet", {"blocks": 10**6}, "blocks must be at most 1000"),
        ("conv", {"layers": 10**6}, "layers must be at most 1000"),
        ("mixer", {"depth": 10**6}, "depth must be at most 1000"),
        ("skip", {"width": 10**6}, "'skip' with these options needs about .* TB of memory"),
        ("deep-decoder", {"width": 10**8}, "needs about .* of memory|can't be made"),
    ],
)
def test_networks_beyond_all_memory_are_refused_at_once(name, options, words):
    with pytest.raises((InvalidInputError, MemoryLimitError), match=words):
        networks.create(name, image_size=16, **options)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constants_are_fitted_and_predicted(value):
    task = tasks.denoise(torch.full((1, 6, 7), value), noise_sigma=0.1)
    small = prior(6, 7)
    assert bool(np.isfinite(fit(small, task, iterations=3).loss).all())
    curve = theory.learning_curve(theory.expand(NTK(small, small.init(0)), task, steps=4, probes=2))
    assert bool(np.isfinite(curve.psnr).all())


def test_one_known_pixel_and_hundreds_of_channels_are_fitted():
    one = torch.zeros(6, 7, dtype=torch.bool)
    one[2, 3] = True
    task = tasks.inpaint(torch.rand(1, 6, 7), one)
    assert bool(np.isfinite(fit(prior(6, 7), task, iterations=3).loss).all())
    many = networks.create("conv", image_size=6, channels=300, width=4)
    task = tasks.denoise(torch.rand(300, 6, 6), noise_sigma=0.1)
    assert bool(np.isfinite(fit(many, task, iterations=3).loss).all())


def test_a_rule_that_chose_nothing_says_so():
    task = tasks.denoise(torch.rand(1, 8, 8), noise_sigma=0.1)
    found = fit(prior(8, 8), task, iterations=3, stop="es-emv")
    said = summary(found.assign(chosen=-1) if int(found.chosen) >= 0 else found)
    assert "es-emv found no iteration to choose" in said
    assert "-1" not in said


def test_wrong_numbers_are_refused():
    small = prior(8, 8)
    task = tasks.denoise(torch.rand(1, 8, 8), noise_sigma=0.1)
    for act in (
        lambda: theory.expand(NTK(small, small.init(0)), task, seed=-1),
        lambda: radial_power(torch.rand(1, 1, 8, 8), edges=[math.nan]),
        lambda: networks.create("skip", image_size=16, kernel_size_down=2**31),
        lambda: networks.create("skip", image_size=16, kernel_size_down=1001),
        *(
            lambda rate=rate: ImagePrior(net, torch.rand(1, 2, 8, 8), learning_rate=rate)
            for rate in (math.nan, math.inf, -1, 0)
        ),
    ):
        with pytest.raises(InvalidInputError, match=r"seed|edges|kernel|learning_rate"):
            act()


def test_draws_that_are_left_leave_gradients_on():
    images = draw_images(prior(4, 4), 4, batch=1)
    next(images)
    assert torch.is_grad_enabled()
    with pytest.raises(DipkernelsError, match="at least 1 sample"):
        next(draw_images(prior(4, 4), 0))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e308, 1e200])
def test_operators_whose_norms_no_number_holds_are_named(value):
    operator = linalg.DenseOperator(value * torch.eye(6, dtype=torch.float64))
    for act in (linalg.top_eigenpairs, linalg.krylov_probes):
        with pytest.raises(DivergenceError, match="a product with the operator is NaN or infinite"):
            act(operator, 2)
