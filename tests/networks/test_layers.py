"""Layers of the convolutional families against dense matrices, formulas and closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap

from dipkernels import networks
from dipkernels.networks import layers, resampling
from dipkernels.networks.generators import BinomialFilter
from dipkernels.networks.layers import Style, bounded_weight
from helpers.convolutions import activate, double, normalise, pooled, transposed
from helpers.priors import draw, perturbed

SIZES = [(6,), (9,), (5, 8), (7, 4)]


def largest(weight: Tensor) -> float:
    return float(np.linalg.svd(weight.numpy().reshape(len(weight), -1), compute_uv=False)[0])


@pytest.mark.parametrize("name", layers.ACTIVATIONS)
def test_activations_are_their_formulas(name: str) -> None:
    x = 3 * draw(40, seed=1)
    expected = activate(x.numpy(), name)
    # Rounding of float64.
    np.testing.assert_allclose(layers.ACTIVATIONS[name]()(x).numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", layers.NORMALISATIONS)
def test_normalisations_take_the_statistics_of_the_image(kind: str, size: tuple[int, ...]) -> None:
    made = next(iter(Style(len(size), kind).norm(3)), nn.Identity())
    made = made.double().eval()  # evaluation must change nothing
    assert not list(made.buffers())
    values = perturbed({k: v.detach() for k, v in made.named_parameters()}, seed=2)
    x = 2 * draw(1, 3, *size, seed=3) + 1
    expected = normalise(
        x[0].numpy(),
        kind,
        *(values[key].numpy() if key in values else None for key in ("weight", "bias")),
    )
    out = torch.func.functional_call(made, values, (x,))[0]
    # Rounding of float64.
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-12, atol=1e-13)


def test_batch_and_instance_differ_in_what_is_learned_alone() -> None:
    batch, instance = (
        networks.create("skip", image_size=(9, 14), width=6, normalisation=kind)
        for kind in ("batch", "instance")
    )
    first = batch.init(0)
    without = {key: first[key] for key in instance.parameter_shapes}
    assert len(without) < len(first)
    # Scales start at 1 and biases at 0; the two layers round differently in single precision.
    torch.testing.assert_close(instance.image(without), batch.image(first), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("mode", "sigma"), [("nearest", 0), ("bilinear", 0), ("gaussian", 1.0)])
def test_upsampling_is_a_dense_matrix(mode: str, sigma: float, size: tuple[int, ...]) -> None:
    x = draw(1, 3, *size, seed=4)
    for level in (0, 1, 2):
        sigma = 0.2 if mode == "gaussian" and level == 2 else sigma
        up = resampling.upsampler(mode, 3, Style(len(size)), level=level).double()
        expected = double(x[0].numpy(), mode, sigma)
        # Rounding of float64.
        np.testing.assert_allclose(up(x)[0].numpy(), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bias", [True, False])
def test_transposed_convolution_scatters(size: tuple[int, ...], bias: bool) -> None:
    x = draw(1, 3, *size, seed=5)
    up = resampling.upsampler("transposed", 3, Style(len(size), bias=bias), level=0).double()
    weights = [parameter.detach().numpy() for parameter in up.parameters()]
    expected = transposed(x[0].numpy(), *weights)
    # Only the order of sums differs.
    np.testing.assert_allclose(up(x)[0].detach().numpy(), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", ["average", "max"])
def test_pooling_rounds_up(how: str, size: tuple[int, ...]) -> None:
    x = draw(1, 3, *size, seed=6)
    pooling = resampling.pool(how, Style(len(size)))
    # Rounding of a mean of four, which may cancel.
    np.testing.assert_allclose(
        pooling(x)[0].numpy(), pooled(x[0].numpy(), how), rtol=1e-14, atol=1e-14
    )


@pytest.mark.parametrize(("level", "nominal"), [(0, 0.5), (1, 0.5), (2, 0.1), (4, 0.1)])
def test_gaussian_upsampling_has_the_published_filter(level: int, nominal: float) -> None:
    up = resampling.upsampler("gaussian", 1, Style(2), level=level).double()
    impulse = torch.zeros(1, 1, 7, 9, dtype=torch.float64)
    impulse[0, 0, 3, 4] = 1
    response = up(impulse)[0, 0]
    rows, columns = torch.meshgrid(torch.arange(14) - 6, torch.arange(18) - 8, indexing="ij")
    inside = (rows.abs() <= 2) & (columns.abs() <= 2)
    # Offsets are halved in the published code, before its nominal deviation divides them.
    squares = ((rows / 2.0) ** 2 + (columns / 2.0) ** 2) / (2 * nominal**2)
    expected = torch.where(inside, torch.exp(-squares.double()), 0.0)
    # The filter is held in single precision: two roundings, of the sum and of the quotient.
    torch.testing.assert_close(response, expected / expected.sum(), rtol=0, atol=2.5e-7)
    if nominal == 0.5:  # variance of a Gaussian of deviation 1, cut after two pixels
        near, far = math.exp(-0.5), math.exp(-2)
        variance = 2 * (near + 4 * far) / (1 + 2 * near + 2 * far)
        assert abs(float((response * rows**2).sum()) - variance) < 1e-6
    constant = up(torch.ones_like(impulse))[0, 0, 4:-4, 4:-4]
    assert abs(float(constant.mean()) - 0.25) < 1e-6
    assert float(constant.std()) > 0.005  # a grid


@pytest.mark.parametrize("n", [8, 9])
def test_binomial_filter_has_its_transfer_function(n: int) -> None:
    impulse = torch.zeros(1, 1, n, dtype=torch.float64)
    impulse[0, 0, 0] = 1
    response = BinomialFilter(1, "circular").double()(impulse)[0, 0]
    z = np.exp(2j * np.pi * np.fft.fftfreq(n))
    transfer = (1 + 3 * z + 3 * z**2 + z**3) / 4
    # Exact weights; rounding of the transforms.
    np.testing.assert_allclose(np.fft.fft(response.numpy()), transfer / z**2, atol=1e-14)
    x = draw(1, 2, n, n + 3, seed=7)
    out = BinomialFilter(2, "circular").double()(x)
    wide = np.exp(2j * np.pi * np.fft.fftfreq(n + 3))
    both = np.outer(transfer / z**2, (1 + wide) ** 3 / 4 / wide**2)
    expected = np.fft.ifft2(np.fft.fft2(x[0].numpy()) * both).real
    np.testing.assert_allclose(out[0].numpy(), expected, atol=1e-13)


# --- The Lipschitz bound ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 2, 3, 3), (9, 2, 3), (12, 1, 3), (5, 5, 1, 1)])
def test_bounded_weight_has_the_bound_where_it_is_active(shape: tuple[int, ...]) -> None:
    weight = draw(*shape, seed=8)
    s = largest(weight)
    active = bounded_weight(weight, 0.6 * s)
    # The largest singular value by another algorithm, LAPACK's of NumPy.
    torch.testing.assert_close(active, 0.6 * weight, rtol=1e-13, atol=0)
    assert largest(active) <= 0.6 * s * (1 + 1e-12)
    assert torch.equal(bounded_weight(weight, 1.001 * s), weight)
    with torch.autocast("cpu", torch.bfloat16):  # the bound stays that of single precision
        mixed = bounded_weight(weight.float(), 0.6 * s)
    torch.testing.assert_close(mixed, active.float(), rtol=1e-5, atol=0)  # SVDs in float32


def test_derivatives_take_the_singular_value_for_a_constant() -> None:
    weight, tangent = draw(4, 2, 3, 3, seed=9), draw(4, 2, 3, 3, seed=10)
    bound = 0.5 * largest(weight)

    def squared(w: Tensor) -> Tensor:
        return bounded_weight(w, bound).square()

    _, forward = jvp(squared, (weight,), (tangent,))
    # d (c w)^2 = 2 c^2 w dw, c being bound / s
    torch.testing.assert_close(forward, 2 * 0.25 * weight * tangent, rtol=1e-12, atol=0)
    (backward,) = vjp(squared, weight)[1](tangent)
    torch.testing.assert_close(backward, forward, rtol=1e-12, atol=0)
    several = torch.stack([weight, weight / 4, 3 * weight])  # active, not, active
    bounded = vmap(lambda w: bounded_weight(w, bound))(several)
    expected = torch.stack([weight / 2, weight / 4, weight / 2])
    torch.testing.assert_close(bounded, expected, rtol=1e-12, atol=0)


def test_a_bound_that_is_not_active_is_no_bound() -> None:
    options = {"width": 5, "upsamplings": 2, "code_channels": 4}
    bounded, free, tight = (
        networks.create("lipschitz-decoder", image_size=(9, 14), lipschitz=bound, **options)
        for bound in (100.0, None, 0.3)
    )
    parameters = free.init(0)
    assert torch.equal(bounded.image(parameters), free.image(parameters))
    assert not torch.allclose(tight.image(parameters), free.image(parameters))


# --- Small things -----------------------------------------------------------------------------


def test_nothing_is_copied_where_nothing_is_to_be_done() -> None:
    x = draw(1, 2, 6, 9)
    assert layers.centre_crop(x, (6, 9)) is x
    cropped = layers.centre_crop(x, (3, 9))
    assert torch.equal(cropped, x[:, :, 1:4])
    assert cropped.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    for padding in layers.PADDINGS:  # torch pads by a copy in all modes but this
        assert Style(padding=padding).conv(2, 2, 1).padding_mode == "zeros"
