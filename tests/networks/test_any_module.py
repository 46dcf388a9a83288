"""Modules that are awkward for a pure function: each right, or refused with the cause.

Right is what a module of plain torch gives, and a Jacobian by plain autograd, in float64.
"""

import collections
import pickle
import warnings
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
from dipkernels.networks import ImagePrior, create
from dipkernels.priors.stateless import Parameters
from dipkernels.tasks import denoise

Forward = Callable[[Any, Tensor], Tensor]


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    """Codes and modules are drawn in float64."""
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def code(*shape: int) -> Tensor:
    return torch.rand(shape or (1, 4, 6, 7))


class TwoConvolutions(nn.Module):
    """Two convolutions, and what a test makes of them."""

    def __init__(self, forward: Forward, more: Callable[[Any], object] = lambda self: None) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 3, 3, padding=1)
        self.b = nn.Conv2d(3, 2, 3)
        self.run = forward
        more(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def dense_jacobian(prior: ImagePrior, parameters: Parameters) -> Tensor:
    """The Jacobian of the plain module, pixel by pixel, by torch's backward passes."""
    module = prior.module(parameters)
    given = prior.code.clone() if isinstance(prior.code, Tensor) else prior.code
    if isinstance(given, dict):
        image = module(**given)
    else:
        image = module(*given) if isinstance(given, tuple) else module(given)
    rows = []
    for pixel in image.flatten():
        module.zero_grad()
        pixel.backward(retain_graph=True)
        parts = []
        for parameter in module.parameters():
            if parameter.requires_grad:
                gradient = parameter.grad
                gradient = torch.zeros_like(parameter) if gradient is None else gradient
                gradient = torch.view_as_real(gradient) if gradient.is_complex() else gradient
                parts.append(gradient.flatten())
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def require_right(prior: ImagePrior, seed: int = 3) -> NTK:
    """Compare image, products, quadratic forms, diagonals and layers with plain torch."""
    parameters = prior.init(seed)
    module = prior.module(parameters)
    given = prior.code.clone() if isinstance(prior.code, Tensor) else prior.code
    if isinstance(given, dict):
        expected = module(**given)
    else:
        expected = module(*given) if isinstance(given, tuple) else module(given)
    image = prior.image(parameters)
    torch.testing.assert_close(image, expected[0].detach(), rtol=0, atol=1e-12)
    jacobian = dense_jacobian(prior, parameters)
    dense = jacobian @ jacobian.T
    ntk = NTK(prior, parameters)
    block = torch.randn(len(dense), 3)
    scale = float(dense.diagonal().sum())
    torch.testing.assert_close(ntk @ block[:, 0], dense @ block[:, 0], rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close(ntk @ block, dense @ block, rtol=0, atol=1e-12 * scale)
    forms = ((block.T @ dense) * block.T).sum(1)
    torch.testing.assert_close(ntk.quadratic_form(block), forms, rtol=1e-11, atol=0)
    layers = ntk.by_layer().quadratic_form(block).sum(0)
    torch.testing.assert_close(layers, forms, rtol=1e-11, atol=0)
    torch.testing.assert_close(ntk.to_dense([0, 5]), dense[[0, 5]][:, [0, 5]], rtol=1e-11, atol=0)
    return ntk


def require_fit(prior: ImagePrior) -> None:
    """Compare a fit by Adam with plain torch's."""
    task = denoise(torch.rand(prior.shape), noise_sigma=0.1)
    found = fit(prior, task, iterations=4, optimiser="adam", learning_rate=0.01)
    module = prior.module(prior.init(0))
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(4):
        loss = (module(prior.code)[0] - task.measurement).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        expected = module(prior.code)[0]
    final = torch.as_tensor(found["final"].values)
    torch.testing.assert_close(final.reshape(expected.shape), expected, rtol=0, atol=1e-6)


def convolved(forward: Forward, more: Callable[[Any], object] = lambda self: None) -> ImagePrior:
    return ImagePrior(lambda: TwoConvolutions(forward, more), code())


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


# Randomness, and what a call leaves behind.


@pytest.mark.parametrize(
    ("forward", "where"),
    [
        (lambda net, x: net.b(functional.dropout(net.a(x))), "dropout draws"),
        (lambda net, x: net.b(net.a(x) + torch.randn(1, 3, 1, 1)), "randn draws"),
        (lambda net, x: net.b(net.a(x) * float(1 + np.random.random())), "another image"),
        (lambda net, x: net.b(net.a(x) * net.rng.random()), "another image"),
    ],
)
def test_a_random_forward_pass_is_refused_and_moves_nothing(forward: Forward, where: str) -> None:
    def more(net: Any) -> None:
        net.rng = np.random.default_rng()

    before = torch.get_rng_state(), np.random.get_state()[2]
    given = code()
    torch.set_rng_state(before[0])
    with pytest.raises(InvalidInputError, match=where):
        ImagePrior(lambda: TwoConvolutions(forward, more), given)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[2]


def test_a_network_that_writes_to_its_input() -> None:
    given = code()
    kept = given.clone()
    prior = ImagePrior(lambda: TwoConvolutions(lambda net, x: net.b(net.a(x.mul_(1.5)))), given)
    require_right(prior)
    assert torch.equal(given, kept)
    assert torch.equal(prior.code, kept)


def stores(net: Any, x: Tensor) -> Tensor:
    net.last = net.a(x)
    net.calls += 1
    net.seen.append(net.last)
    return net.b(net.seen[0]) * net.calls


def test_attributes_that_a_call_changes_are_put_back() -> None:
    prior = convolved(stores, lambda net: net.__dict__.update(calls=0, seen=[]))
    require_right(prior)
    assert prior.structure.calls == 0
    assert prior.structure.seen == []
    assert not hasattr(prior.structure, "last")


def test_hooks_that_the_first_call_installs_are_not_piled_up() -> None:
    """As Hugging Face's networks collect hidden states."""
    seen: list[Tensor] = []

    def forward(net: Any, x: Tensor) -> Tensor:
        if not hasattr(net, "hooked"):
            net.hooked = True
            net.a.register_forward_hook(lambda part, given, made: seen.append(made))
            net.history = collections.deque([0.0], maxlen=3)
        seen.clear()
        y = net.b(net.a(x))
        net.history.append(1.0)
        return y + torch.stack([each.mean() for each in seen]).sum() * sum(net.history)

    prior = convolved(forward)
    require_right(prior)
    require_right(prior)
    assert not prior.structure.a._forward_hooks


def test_a_second_call_that_fails_is_said() -> None:
    calls: list[int] = []

    def forward(net: Any, x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("the cache is full")
        return net.b(net.a(x))

    with pytest.raises(InvalidInputError, match=r"fails when it's called again.*the cache is full"):
        convolved(forward)


def test_what_is_kept_elsewhere_from_call_to_call_is_refused() -> None:
    calls: list[int] = []

    def forward(net: Any, x: Tensor) -> Tensor:
        calls.append(1)
        return net.b(net.a(x)) * len(calls)

    with pytest.raises(InvalidInputError, match="another image of the same parameters"):
        convolved(forward)


# Seeds.


def numpy_drawn(net: Any) -> None:
    net.a.weight.data = torch.from_numpy(np.random.randn(3, 4, 3, 3))


def test_weights_that_numpy_draws_follow_the_seed() -> None:
    state = np.random.get_state()[1]
    prior = convolved(lambda net, x: net.b(net.a(x)), numpy_drawn)
    one, again, other = (prior.init(seed)["a.weight"] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert float((one - other).abs().max()) > 0.1
    assert np.array_equal(state, np.random.get_state()[1])


def test_weights_that_a_private_generator_draws_are_refused() -> None:
    rng = np.random.default_rng(0)

    def more(net: Any) -> None:
        net.b.weight.data = torch.from_numpy(rng.normal(size=(2, 3, 3, 3)))

    with pytest.raises(InvalidInputError, match=r"other weights \('b.weight'\) from the same seed"):
        convolved(lambda net, x: net.b(net.a(x)), more)


def test_equal_weights_at_every_seed_are_said() -> None:
    def seeded() -> nn.Module:
        torch.manual_seed(0)
        return nn.Conv2d(4, 2, 3)

    with pytest.warns(UserWarning, match="Conv2d has the same weights at every seed"):
        ImagePrior(seeded, code())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImagePrior(seeded, code(), check=False)


def test_drawn_buffers_are_said() -> None:
    def more(net: Any) -> None:
        net.register_buffer("frequencies", torch.randn(3, 1, 1))

    with pytest.warns(UserWarning, match="'frequencies' of TwoConvolutions is drawn"):
        prior = convolved(lambda net, x: net.b((net.a(x) * net.frequencies).sin()), more)
    require_right(prior)


def test_draws_and_images_are_the_same_from_any_thread() -> None:
    prior = create("vit", image_size=(32, 32))
    state = torch.get_rng_state()
    draws = [prior.init(seed) for seed in range(6)]
    images = [prior.image(draw) for draw in draws]
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(prior.init, range(6)))
        pictures = list(pool.map(prior.image, draws))
    assert torch.equal(state, torch.get_rng_state())
    for one, other in zip(draws, others, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    for one, other in zip(images, pictures, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["skip", "vit", "siren"])
def test_built_in_priors_pickle(name: str) -> None:
    prior = create(name, image_size=(32, 32))
    other = pickle.loads(pickle.dumps(prior))
    drawn, again = prior.init(1), other.init(1)
    assert all(torch.equal(value, again[key]) for key, value in drawn.items())
    torch.testing.assert_close(prior.image(prior.init(1)), other.image(prior.init(1)))


# Normalisation.


def handmade(net: Any) -> None:
    net.register_buffer("mean", torch.zeros(3))
    net.register_buffer("variance", torch.ones(3))


def normalised_by_hand(net: Any, x: Tensor) -> Tensor:
    h = functional.batch_norm(5 + 9 * net.a(x), net.mean, net.variance, training=net.training)
    return net.b(h)


def test_every_kind_of_normalisation_takes_the_statistics_of_the_image() -> None:
    require_right(convolved(normalised_by_hand, handmade))

    def only(net: Any, x: Tensor) -> Tensor:
        h = 5 + 9 * net.a(x)
        return functional.batch_norm(h, net.mean, net.variance, None, None, net.training)

    by_hand = convolved(only, handmade)
    means = by_hand.image(by_hand.init(1)).mean((1, 2))
    torch.testing.assert_close(means, torch.zeros(3), rtol=0, atol=1e-6)
    kinds = (nn.BatchNorm2d, lambda n: nn.InstanceNorm2d(n, track_running_stats=True))
    for norm in kinds:
        prior = ImagePrior(lambda norm=norm: nn.Sequential(nn.Conv2d(4, 3, 3), norm(3)), code())
        image = prior.image(prior.init(1))
        torch.testing.assert_close(image.mean((1, 2)), torch.zeros(3), rtol=0, atol=1e-6)
        # of a variance v, v / (v + 1e-5) is left
        torch.testing.assert_close(
            image.std((1, 2), correction=0), torch.ones(3), rtol=0, atol=1e-2
        )
        require_right(prior)


def test_normalisation_can_stay_in_evaluation_or_as_the_module_says() -> None:
    def net() -> nn.Module:
        net = nn.Sequential(nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
        net[1].running_mean.fill_(0.3)
        net[1].running_var.fill_(2.0)
        return net

    def partly() -> nn.Module:
        made = net()
        made[1].eval()
        return made

    for mode, factory in (("evaluation", net), ("module", partly), ("module", net)):
        prior = ImagePrior(factory, code(), normalisation=mode)
        parameters = prior.init(2)
        reference = factory()
        if mode == "evaluation":
            reference.eval()
        reference.load_state_dict({**reference.state_dict(), **parameters})
        with torch.no_grad():
            expected = reference(prior.code)[0]
        torch.testing.assert_close(prior.image(parameters), expected, rtol=0, atol=1e-12)
        require_right(prior)
    with pytest.raises(InvalidInputError, match="normalisation must be one of image, evaluation"):
        ImagePrior(net, code(), normalisation="batch")


def test_a_single_value_keeps_its_running_statistics() -> None:
    def more(net: Any) -> None:
        net.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3))

    require_right(convolved(lambda net, x: net.b(net.a(x) + net.pooled(x)), more))


def test_a_single_value_without_running_statistics_is_refused() -> None:
    def alone(net: Any, x: Tensor) -> Tensor:
        pooled = functional.batch_norm(x.mean((2, 3), keepdim=True), None, None, training=True)
        return net.b(net.a(x + pooled))

    with pytest.raises(InvalidInputError, match="normalises a single value of each channel"):
        convolved(alone)


def test_group_normalisation_of_channels_last() -> None:
    given = code().contiguous(memory_format=torch.channels_last)
    prior = ImagePrior(
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6), nn.Conv2d(6, 2, 1)), given
    )
    require_right(prior)


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


def reentrant(net: Any, x: Tensor) -> Tensor:
    return net.b(checkpoint(lambda h: (2 * h).tanh(), net.a(x), use_reentrant=True))


def recomputed(net: Any, x: Tensor) -> Tensor:
    return checkpoint(lambda h: net.b(h.tanh()), net.a(x), use_reentrant=False)


def branches(net: Any, x: Tensor) -> Tensor:
    h = net.a(x)
    return net.b(h * 2 if h.mean() > 0 else h.tanh()) / net.a(x).abs().max().item()


@pytest.mark.parametrize("forward", [attention, reentrant, recomputed, branches])
def test_what_torch_func_refuses_by_itself(forward: Forward) -> None:
    require_right(convolved(forward))


@pytest.mark.parametrize(
    "forward", [requires_grad_inside, lambda net, x: net.b(OldFunction.apply(net.a(x)))]
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
