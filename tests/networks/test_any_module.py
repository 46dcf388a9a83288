"""Modules that are awkward for a pure function: each right, or refused with the cause.

Right is what a module of plain torch gives, and a Jacobian by plain autograd, in float64.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting import fit
from dipkernels.kernels import NTK
from dipkernels.networks import ImagePrior
from dipkernels.priors.tangents import Tangents
from dipkernels.tasks import denoise
from helpers.any_module import (
    Forward,
    TwoConvolutions,
    code,
    convolved,
    dense_jacobian,
    require_fit,
    require_right,
)


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    """Codes and modules are drawn in float64."""
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


# Parameters that are reached other than by their attribute.


def listed(net: Any) -> None:
    net.held = [net.a.weight]


def enclosed(net: Any) -> None:
    weight = net.a.weight
    net.convolve = lambda x: functional.conv2d(x, weight, padding=1)


@pytest.mark.parametrize(
    ("more", "forward"),
    [
        (listed, lambda net, x: net.b(functional.conv2d(x, net.held[0], padding=1))),
        (
            listed,
            lambda net, x: net.b(
                functional.conv2d(x, net.held[0].mul(2).abs(), padding=1) + net.a(x)
            ),
        ),
        (enclosed, lambda net, x: net.b(net.convolve(x).tanh())),
        (
            lambda net: setattr(net, "held", {"b": (net.b.weight,)}),
            lambda net, x: torch.stack([p.sum() for p in net.held["b"]]).sum() * net.b(net.a(x)),
        ),
    ],
)
def test_a_parameter_in_a_list_or_a_closure(
    more: Callable[[Any], object], forward: Forward
) -> None:
    prior = convolved(forward, more)
    require_right(prior)
    require_fit(prior)


# Buffers that belong to the weights.


@pytest.mark.parametrize(
    "norm", [parametrizations.spectral_norm, torch.nn.utils.spectral_norm], ids=["new", "old"]
)
def test_spectral_normalisation_is_of_the_weights_that_are_drawn(
    norm: Callable[[nn.Module], nn.Module],
) -> None:
    prior = ImagePrior(
        lambda: nn.Sequential(norm(nn.Conv2d(4, 3, 3)), norm(nn.ConvTranspose2d(3, 2, 2))), code()
    )
    require_right(prior)
    for seed in range(4):
        first = prior.module(prior.init(seed))[0]
        first(prior.code)  # the older one computes its weight when it's called
        largest = torch.linalg.matrix_norm(first.weight.flatten(1), 2)
        assert largest.item() == pytest.approx(1, abs=1e-10)


def test_a_weight_that_is_drawn_into_a_buffer_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"draws its weight into a buffer.*householder"):
        ImagePrior(lambda: nn.Sequential(parametrizations.orthogonal(nn.Conv2d(4, 2, 3))), code())


# What the tangent pass sees, and what the backward pass does.


def without_gradients(net: Any, x: Tensor) -> Tensor:
    h = net.a(x)
    with torch.no_grad():
        mean, deviation = h.mean((2, 3), keepdim=True), h.std((2, 3), keepdim=True)
    return net.b((h - mean) / deviation)


def decorated(net: Any, x: Tensor) -> Tensor:
    @torch.no_grad()
    def mean(h: Tensor) -> Tensor:
        with torch.enable_grad():
            again = h * 1
        return h.mean() + again.mean()

    return net.b(net.a(x).tanh() - mean(net.a(x)))


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class WrongTangent(StraightThrough):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return 7 * tangent


@pytest.mark.parametrize(
    "forward",
    [
        without_gradients,
        decorated,
        lambda net, x: net.b(net.a(x) - net.a(x).detach().mean()),
        lambda net, x: net.b(StraightThrough.apply(9 * net.a(x))),
        lambda net, x: net.b(WrongTangent.apply(net.a(x))),
    ],
    ids=["no_grad", "decorator", "detach", "straight-through", "wrong-jvp"],
)
def test_both_passes_are_of_one_jacobian(forward: Forward) -> None:
    require_right(convolved(forward))


def test_a_gradient_that_lies_as_tokens_do_passes_batch_norm() -> None:
    """torch 2.13 alone is wrong there, so that differences are the oracle."""

    class Hybrid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolve, self.norm, self.mix = (
                nn.Conv2d(4, 3, 1),
                nn.BatchNorm2d(3),
                nn.Linear(3, 2),
            )

        def forward(self, x: Tensor) -> Tensor:
            h = self.norm(self.convolve(x)).flatten(2).transpose(1, 2)
            return self.mix(h.sin()).transpose(1, 2).unflatten(2, x.shape[2:])

    prior = ImagePrior(Hybrid, code())
    require_right(prior)
    parameters = prior.init(0)
    weights, direction = torch.randn(prior.shape), torch.randn(3)
    found = NTK(prior, parameters).vjp(weights.reshape(-1, 1))["norm.bias"][0] @ direction
    step = 1e-6
    ends = [
        (
            prior.image(parameters | {"norm.bias": parameters["norm.bias"] + s * direction})
            * weights
        ).sum()
        for s in (step, -step)
    ]
    # a central difference is right to the step's square, and to rounding over the step
    torch.testing.assert_close(found, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-7)


def test_a_layer_that_all_networks_share_is_refused() -> None:
    layer = nn.Conv2d(3, 2, 1)
    with pytest.raises(InvalidInputError, match=r"puts the same '1.weight' into every network"):
        ImagePrior(lambda: nn.Sequential(nn.Conv2d(4, 3, 1), layer), code())


def test_an_infinite_slope_is_named_with_its_place() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sqrt(torch.relu(x))

    prior = ImagePrior(
        lambda: nn.Sequential(nn.Conv2d(4, 2, 3), Root(), nn.Conv2d(2, 1, 1)), code()
    )
    with pytest.raises(DivergenceError, match=r"that of sqrt is infinite .in its part '1'"):
        NTK(prior, prior.init(0))


# Parameters and codes of other kinds.


def test_parameters_of_dimension_0() -> None:
    def more(net: Any) -> None:
        net.gain = nn.Parameter(torch.tensor(0.5))

    ntk = require_right(convolved(lambda net, x: net.b(net.a(x)) * net.gain, more))
    assert ntk.trace(None).value == pytest.approx(float(ntk.to_dense().trace()))


def test_complex_parameters_count_two_numbers_each() -> None:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 2, 6, 4, dtype=torch.complex128))

        def forward(self, x: Tensor) -> Tensor:
            modes = torch.einsum("nihw,iohw->nohw", torch.fft.rfft2(x), self.weight)
            return torch.fft.irfft2(modes, s=x.shape[-2:])

    prior = ImagePrior(Spectral, code())
    assert prior.parameter_count == 2 * 4 * 2 * 6 * 4
    require_right(prior)
    single = prior.to(dtype=torch.float32)
    image = single.image(single.init(3)).double()
    torch.testing.assert_close(image, prior.image(prior.init(3)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", [tuple, dict])
def test_codes_of_several_tensors(kind: type) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(4, 2, 3)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.a(x).sin() * scale

    given = {"x": code(), "scale": torch.rand(1, 1, 4, 5)}
    prior = ImagePrior(Pair, given if kind is dict else tuple(given.values()))
    require_right(prior)
    task = denoise(torch.rand(prior.shape), noise_sigma=0.1)
    assert np.isfinite(fit(prior, task, iterations=3)["loss"].values).all()
    with pytest.raises(InvalidInputError, match="input_noise is for networks that take one tensor"):
        fit(prior, task, iterations=3, input_noise=0.1)


def test_half_precision_has_its_digits() -> None:
    prior = ImagePrior(lambda: TwoConvolutions(lambda net, x: net.b(net.a(x).tanh())), code())
    half = prior.to(dtype=torch.bfloat16)
    parameters = half.init(1)
    exact = NTK(prior, {key: value.double() for key, value in parameters.items()})
    v = torch.ones(exact.shape[0])
    product = (NTK(half, parameters) @ v.bfloat16()).double()
    assert float((product - exact @ v).norm() / (exact @ v).norm()) < 0.05


def test_a_step_in_single_precision_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = convolved(lambda net, x: net.b(net.a(x).float().tanh().double()))
    jacobian = dense_jacobian(prior, prior.init(0))
    dense = jacobian @ jacobian.T
    # rounding may be just small enough by chance
    monkeypatch.setattr(Tangents, "_disagreement", lambda self: 1e-7)
    with pytest.warns(UserWarning, match="computes in single precision"):
        ntk = NTK(prior, prior.init(0))
    # rounding of 1e-7, of some hundred terms
    torch.testing.assert_close(ntk.to_dense(), dense, rtol=0, atol=1e-5 * float(dense.max()))
    monkeypatch.setattr(Tangents, "_disagreement", lambda self: 1e-4)
    with pytest.raises(InvalidInputError, match=r"disagree by 0.01 %"):
        NTK(prior, prior.init(0))


# Where `torch.func` can't go.


class OldFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


class OnceDifferentiable(OldFunction):
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


def requires_grad_inside(net: Any, x: Tensor) -> Tensor:
    return net.b(net.a(x.clone().requires_grad_()).sin())


def attention(net: Any, x: Tensor) -> Tensor:
    q = net.a(x)[..., :4, :4].reshape(1, 1, 3, 16).repeat(1, 2, 1, 1)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        h = functional.scaled_dot_product_attention(q, q, q)
    return net.b(h.sum(1).reshape(1, 3, 4, 4))


def derivative_within(net: Any, x: Tensor) -> Tensor:
    return net.b(torch.func.grad(lambda y: net.a(y).tanh().sum())(x)[:, :3])


def reentrant(net: Any, x: Tensor) -> Tensor:
    return net.b(checkpoint(lambda h: (2 * h).tanh(), net.a(x), use_reentrant=True))


def recomputed(net: Any, x: Tensor) -> Tensor:
    return checkpoint(lambda h: net.b(h.tanh()), net.a(x), use_reentrant=False)


def branches(net: Any, x: Tensor) -> Tensor:
    h = net.a(x)
    return net.b(h * 2 if h.mean() > 0 else h.tanh()) / net.a(x).abs().max().item()


@pytest.mark.parametrize("forward", [attention, reentrant, recomputed, branches, derivative_within])
def test_what_torch_func_refuses_by_itself(forward: Forward) -> None:
    require_right(convolved(forward))


def in_threads(net: Any, x: Tensor) -> Tensor:
    with ThreadPoolExecutor(2) as pool:
        return net.b(sum(pool.map(lambda factor: net.a(factor * x).tanh(), (1.0, 2.0))))


@pytest.mark.parametrize(
    "forward",
    [requires_grad_inside, lambda net, x: net.b(OldFunction.apply(net.a(x))), in_threads],
)
def test_ordinary_double_backward_takes_over_and_says_so(forward: Forward) -> None:
    prior = convolved(forward)
    with pytest.warns(UserWarning, match="ordinary double backward passes"):
        ntk = NTK(prior, prior.init(0))
    jacobian = dense_jacobian(prior, prior.init(0))
    torch.testing.assert_close(ntk.to_dense(), jacobian @ jacobian.T, rtol=0, atol=1e-11)


def test_what_has_no_second_derivative_is_named() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag = nn.EmbeddingBag(9, 2, mode="sum")
            self.last = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.bag(x.reshape(9, 1)).tanh()).T.reshape(1, 2, 3, 3)

    prior = ImagePrior(Bag, torch.arange(9)[None])
    with pytest.raises(
        InvalidInputError, match=r"can't be taken .in its part 'bag'.*embedding_bag"
    ):
        NTK(prior, prior.init(0))
    prior = convolved(lambda net, x: net.b(OnceDifferentiable.apply(net.a(x))))
    with (
        pytest.warns(UserWarning, match="ordinary double backward"),
        pytest.raises(InvalidInputError, match="can't be differentiated in its turn"),
    ):
        NTK(prior, prior.init(0))


def test_the_gradients_of_fits_survive_checkpoints() -> None:
    prior = convolved(recomputed)
    parameters = {key: value.requires_grad_() for key, value in prior.init(0).items()}
    module = prior.module(prior.init(0))
    prior.image(parameters).square().sum().backward()
    module(prior.code).square().sum().backward()
    for key, parameter in module.named_parameters():
        torch.testing.assert_close(parameters[key].grad, parameter.grad)
    require_fit(prior)


def test_an_error_in_the_forward_pass_names_the_part() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no good")

    with pytest.raises(InvalidInputError, match=r"failed .* \(in its part '1.0'\): no good"):
        ImagePrior(lambda: nn.Sequential(nn.Conv2d(4, 2, 1), nn.Sequential(Broken())), code())
