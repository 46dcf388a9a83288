"""Heckel & Soltanolkotabi: dual kernels, speed of fits, Jacobians."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import tasks
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import NTK
from dipkernels.literature import (
    dual_kernel,
    fitting_speed,
    image_and_noise,
    jacobian,
    jacobian_norms,
    predicted_speed,
    two_layer_generator,
)
from dipkernels.literature.dual_kernels import PUBLISHED_SCALE, circulant, gaussian, triangle
from dipkernels.literature.jacobians import convolution_weights
from dipkernels.networks import ImagePrior
from helpers.priors import make

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, where experiments are

from experiments.low_pass.jacobians import (
    _loss_gradient,
    accumulated,
    jacobian_along_fit,
    subspace_overlap,
    unexplained,
)

# Smallest and largest eigenvalue as printed by the code behind figure 6, and its digits.
PUBLISHED = {
    "triangle 1": (triangle(1), 0.16667, 0.16667),
    "triangle 10": (triangle(10), 0.00487, 1.957),
    "triangle 30": (triangle(30), 0.00156, 5.896),
    "gaussian 0.005": (gaussian(0.005, 300), 0.0211, 0.496),
    "gaussian 0.01": (gaussian(0.01, 300), 0.00915, 0.983),
    "gaussian 0.05": (gaussian(0.05, 300), 0.00177, 4.901),
}


@pytest.mark.parametrize(("taps", "least", "most"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_spectra_to_the_printed_digits(taps: Tensor, least: float, most: float) -> None:
    found = PUBLISHED_SCALE * dual_kernel(taps, (300,)).spectrum("ntk")
    for value, printed in ((found.min(), least), (found.max(), most)):
        digits = len(str(printed).split(".")[1])
        assert round(float(value), digits) == printed


def test_dual_kernel_by_its_definition_pair_by_pair() -> None:
    taps = torch.rand(4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.3
    rows = circulant(taps, (13,)).numpy()
    expected = np.empty((13, 13))
    for i in range(13):
        for j in range(13):
            inner = rows[i] @ rows[j]
            cosine = np.clip(inner / np.linalg.norm(rows[i]) / np.linalg.norm(rows[j]), -1, 1)
            expected[i, j] = (1 - math.acos(cosine) / math.pi) * inner / 2
    found = dual_kernel(taps, (13,)).to_dense("ntk")
    # The angle's derivative is infinite at lag 0: rounding of 1e-16 becomes its root there.
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-8)
    values = torch.linalg.eigvalsh(found)
    spectrum = dual_kernel(taps, (13,)).spectrum("ntk").sort().values
    torch.testing.assert_close(values, spectrum, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(11,), (4, 3)], ids=str)
def test_wide_two_layer_network_tends_to_the_dual_kernel(size: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(2)
    taps = torch.rand((3,) * len(size), generator=random, dtype=torch.float64)
    limit = dual_kernel(taps, size).to_dense("ntk")
    errors = {}
    for width in (64, 4096):
        prior = two_layer_generator(taps, size, width)
        jacobians = [jacobian(prior, prior.init(seed)) for seed in range(4)]
        kernels = [J @ J.T for J in jacobians]
        errors[width] = float(torch.stack([(k - limit).norm() for k in kernels]).mean())
    # Entries are means over `width` independent channels: 64 times as many, an eighth of the error;
    # the mean of four norms over many entries scatters by some 15 %.
    assert errors[64] / errors[4096] == pytest.approx(8, rel=0.5)
    assert errors[4096] < 0.05 * float(limit.norm())


def test_two_layer_network_is_the_formula() -> None:
    taps = torch.rand(3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    prior = two_layer_generator(taps, (7,), 6)
    weights = prior.init(0)["mix.weight"][:, :, 0].T  # C
    v = torch.tensor([1.0] * 3 + [-1.0] * 3, dtype=torch.float64) / math.sqrt(6)
    expected = torch.relu(circulant(taps, (7,)) @ weights) @ v
    # The signs are kept in float32 by the module's buffer until they are cast.
    torch.testing.assert_close(prior.image(prior.init(0))[0], expected, rtol=1e-6, atol=1e-6)


def test_wrong_filters_and_widths_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no more taps"):
        dual_kernel(triangle(5), (8,))
    with pytest.raises(InvalidInputError, match="as many axes"):
        circulant(triangle(2), (8, 8))
    with pytest.raises(InvalidInputError, match="at least 1"):
        triangle(0)
    with pytest.raises(InvalidInputError, match="a whole number"):
        triangle(2.5)
    with pytest.raises(InvalidInputError, match="a whole number"):
        gaussian(0.1, 3.5)
    with pytest.raises(InvalidInputError, match="positive"):
        gaussian(0.0, 10)
    with pytest.raises(InvalidInputError, match="even"):
        two_layer_generator(triangle(2), (8,), 5)


@pytest.mark.parametrize("size", [(2, 14), (1, 9, 7)], ids=["1D", "2D"])
def test_targets_have_the_norm_of_the_image(size: tuple[int, ...]) -> None:
    image = torch.rand(size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    targets = image_and_noise(image, seed=3)
    for target in targets.values():
        torch.testing.assert_close(target.norm(), image.norm(), rtol=1e-12, atol=0)
    assert abs(float(targets["centred noise"].mean())) < 1e-12
    assert abs(float(targets["centred image"].mean())) < 1e-12
    with pytest.raises(InvalidInputError, match="constant"):
        image_and_noise(torch.ones(1, 4, 4))


def linear_prior() -> ImagePrior:
    """A network that is linear in its parameters: theory must be exact for it."""
    code = torch.randn(1, 30, 5, 4, generator=torch.Generator().manual_seed(5)).double()
    return ImagePrior(lambda: nn.Conv2d(30, 1, 1, bias=False), code)


def test_predicted_speed_is_exact_for_a_linear_network() -> None:
    prior = linear_prior()
    image = torch.rand(1, 5, 4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    targets = image_and_noise(image)
    found = fitting_speed(prior, targets, iterations=30, steps=20)
    # 20 steps span all 20 outputs: rounding is left, squared misfits being of order 1.
    np.testing.assert_allclose(found.measured, found.misfit, rtol=0, atol=1e-9)
    dense = NTK(prior, prior.init(0)).to_dense()
    residual = targets["noise"].flatten() - prior.image(prior.init(0)).flatten()
    rate = residual @ dense @ residual / residual.square().sum()
    rate = float(rate / torch.linalg.eigvalsh(dense)[-1])
    assert float(found.rate.sel(target="noise")) == pytest.approx(rate, rel=1e-9)


def test_bounds_of_the_predicted_speed_hold_the_dense_curve() -> None:
    prior = linear_prior()
    image = torch.rand(1, 5, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    ntk = NTK(prior, prior.init(1))
    found = predicted_speed(ntk, {"image": image}, iterations=400, steps=6)
    values, vectors = torch.linalg.eigh(ntk.to_dense())
    share = (vectors.T @ (image.flatten() - ntk.image.flatten())) ** 2
    step = 2 * found.learning_rate / 20
    powers = (1 - step * values)[None] ** (2 * torch.arange(401)[:, None])
    dense = (powers @ share / share.sum()).numpy()
    assert (found.misfit_lower[0] <= dense + 1e-12).all()
    assert (found.misfit_upper[0] >= dense - 1e-12).all()
    assert float((found.misfit_upper - found.misfit_lower).max()) > 1e-3  # not an empty bracket


def test_targets_of_another_shape_are_refused() -> None:
    prior = linear_prior()
    ntk = NTK(prior, prior.init(0))
    with pytest.raises(InvalidInputError, match="shape"):
        predicted_speed(ntk, {"image": torch.rand(1, 4, 5)}, iterations=3)
    image = torch.rand(1, 5, 4, dtype=torch.float64)
    for options in ({"iterations": 0}, {"iterations": 3, "steps": 0}):
        with pytest.raises(InvalidInputError, match="at least 1"):
            predicted_speed(ntk, {"image": image}, **options)
    diverging = predicted_speed(ntk, {"image": image}, iterations=400, learning_rate=1e4)
    assert np.isinf(diverging.misfit[0, -1])


def test_jacobian_norms_are_roots_of_quadratic_forms() -> None:
    prior = make("deep-decoder", (9, 12), channels=1)
    image = torch.rand(1, 9, 12, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    found = jacobian_norms(prior, {"a": image, "b": image**2}, [3, 5])
    assert found.seed.values.tolist() == [3, 5]
    for seed in (5,):  # the second of both
        ntk = NTK(prior, prior.init(seed), layers=convolution_weights(prior))
        form = ntk.quadratic_form(torch.stack([image.flatten(), (image**2).flatten()], dim=1))
        np.testing.assert_allclose(found.norm.sel(seed=seed), form.sqrt(), rtol=1e-10)
    with pytest.raises(InvalidInputError, match="expected"):
        jacobian_norms(prior, {"a": image[0]}, [0])
    with pytest.raises(InvalidInputError, match="nope is no parameter"):
        jacobian_norms(prior, {"a": image}, [0], layers=["nope"])
    with pytest.raises(InvalidInputError, match="layers must be several words"):
        jacobian(prior, prior.init(0), layers=convolution_weights(prior)[0])
    code = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(1))
    flat = ImagePrior(lambda: nn.Linear(4, 9), code)  # no convolutions: not 0, but an error
    with pytest.raises(InvalidInputError, match="no weights of convolutions"):
        jacobian_norms(flat, {"a": torch.ones(2, 9)}, [0])


def test_jacobian_by_finite_differences_and_its_accumulation() -> None:
    prior = make("conv", (10,), channels=1, normalisation="none", activation="gelu")
    parameters = prior.init(0)
    found = jacobian(prior, parameters)
    key = convolution_weights(prior)[0]
    bumped = {name: value.clone() for name, value in parameters.items()}
    bumped[key].view(-1)[2] += 1e-6
    difference = (prior.image(bumped) - prior.image(parameters)).flatten() / 1e-6
    # One-sided differences of a smooth function: first order in the step of 1e-6.
    torch.testing.assert_close(found[:, 2], difference, rtol=1e-4, atol=1e-6)
    start = torch.randn(found.shape[1], generator=torch.Generator().manual_seed(9)).double()
    lower = torch.ones(10, 10, dtype=torch.float64).tril()
    expected = lower @ found + start
    torch.testing.assert_close(accumulated(found, start), expected, rtol=0, atol=1e-12)


def test_subspaces_by_principal_angles() -> None:
    random = np.random.default_rng(0)
    a, b = (np.linalg.qr(random.standard_normal((9, 5)))[0] for _ in range(2))
    found = subspace_overlap(torch.tensor(a), torch.tensor(b), [1, 4])
    cosines = np.linalg.svd(a[:, :4].T @ b[:, :4])[1]
    assert found[1] == pytest.approx(np.mean(cosines**2), rel=1e-12)
    signal = random.standard_normal(9)
    outside = unexplained(torch.tensor(a), torch.tensor(signal), [3])
    left = signal - a[:, :3] @ (a[:, :3].T @ signal)
    assert outside[0] == pytest.approx(np.linalg.norm(left) / np.linalg.norm(signal), rel=1e-12)
    with pytest.raises(InvalidInputError, match="ranks"):
        subspace_overlap(torch.tensor(a), torch.tensor(b), [6])
    with pytest.raises(InvalidInputError, match="ranks"):
        unexplained(torch.tensor(a), torch.tensor(signal), [0])


def test_accumulated_gradients_are_what_forgetting_to_reset_them_gives() -> None:
    prior = make("deep-decoder", (16,), channels=1, upsamplings=2, width=6)
    clean = torch.linspace(0, 1, 16, dtype=torch.float64)[None]
    task = tasks.denoise(clean, noise_sigma=0.2, seed=1)
    found = jacobian_along_fit(
        prior, task, {"clean": clean}, iterations=[1, 4], ranks=[2, 5], learning_rate=0.01
    )
    # The published procedure, by torch's own optimiser and accumulating gradients.
    module = prior.module(prior.init(0)).train()
    leaves = dict(module.named_parameters())
    optimiser = torch.optim.Adam(leaves.values(), lr=0.01)
    for _ in range(4):
        optimiser.zero_grad()
        loss = (module(prior.code)[0] - task.measurement).square().mean()
        loss.backward()
        optimiser.step()
    rows = []
    for pixel in range(16):
        module(prior.code)[0, 0, pixel].backward()
        grads = [leaves[key].grad.flatten().clone() for key in convolution_weights(prior)]
        rows.append(torch.cat(grads))
    values = torch.linalg.svdvals(torch.stack(rows))
    published = found.singular_value.sel(variant="accumulated", iteration=4)
    np.testing.assert_allclose(published, values, rtol=1e-6, atol=1e-9)
    # A decoder's image doesn't depend on the scale of normalised layers: no full rank asked for.
    correct = found.singular_value.sel(variant="correct", iteration=4)
    assert not np.allclose(correct, values, rtol=0.1)
    np.testing.assert_allclose(found.overlap.sel(iteration=1), 1, rtol=1e-10)
    # The sum's left singular vectors are sines of half-integer frequency.
    x = (np.arange(16) + 1)[:, None]
    waves = np.sin(np.pi * (2 * np.arange(2) + 1) * (2 * x) / (2 * 33))
    waves = torch.tensor(np.linalg.qr(waves)[0])
    left = torch.linalg.svd(torch.stack(rows)).U
    share = subspace_overlap(waves, left, [2])
    np.testing.assert_allclose(
        found.with_sums.sel(variant="accumulated", iteration=4, rank=2), share, atol=1e-6
    )
    with pytest.raises(InvalidInputError, match="ascending"):
        jacobian_along_fit(prior, task, {}, iterations=[3, 2], ranks=[1], learning_rate=0.01)
    good = {"signals": {"a": clean}, "iterations": [1], "ranks": [1], "learning_rate": 0.01}
    for wrong, text in (
        ({"iterations": []}, "ascending"),
        ({"ranks": []}, "ranks"),
        ({"ranks": [17]}, "ranks"),
        ({"signals": {"a": clean[:, :5]}}, "signals"),
        ({"signals": {}}, "signals"),
    ):
        with pytest.raises(InvalidInputError, match=text):
            jacobian_along_fit(prior, task, **{**good, **wrong})


def test_the_gradient_before_is_of_what_was_measured() -> None:
    prior = make("deep-decoder", (16,), channels=1, upsamplings=2, width=6)
    clean = torch.linspace(0, 1, 16, dtype=torch.float64)[None]
    mask = torch.ones(16, dtype=torch.bool)
    mask[3:9] = False
    task = tasks.inpaint(clean, mask, noise_sigma=0.1)
    parameters = prior.init(0)
    chosen = convolution_weights(prior)
    leaves = {key: value.clone().requires_grad_() for key, value in parameters.items()}
    task.misfit(prior.image(leaves)).backward()
    expected = torch.cat([leaves[key].grad.flatten() for key in chosen])
    found = _loss_gradient(prior, task, parameters, chosen)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
