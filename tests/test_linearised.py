"""A network frozen at its linearisation is a prior like any other, and what theory describes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev, jvp, vmap

from dipkernels import NTK, ImagePrior, LinearisedPrior, fit, learning_curve, networks, plan, tasks
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting import stable_learning_rate
from dipkernels.sampling import WeightPosterior, sample
from dipkernels.theory import GradientDescent, expand
from helpers import priors

SIZE = (8, 8)


def small(name: str = "conv") -> tuple[ImagePrior, dict[str, Tensor]]:
    prior = priors.make(name, SIZE)
    return prior, priors.perturbed(prior.init(0), 1, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", priors.with_slow_ones(networks.names()))
def test_every_prior_linearised_is_its_first_order_expansion(name: str) -> None:
    """Against forward and backward mode of the network itself, and in batches."""
    prior, origin = small(name)
    frozen = prior.linearised(origin)
    moved = priors.perturbed(origin, 2, 0.1)
    start, change = jvp(prior.image, (origin,), ({k: moved[k] - origin[k] for k in origin},))
    image = frozen.image(moved)
    scale = change.abs().max()
    assert torch.allclose(image, start + change, rtol=0, atol=float(1e-11 * scale))
    weights = priors.draw(*prior.shape, seed=3)
    leaves = {key: value.clone().requires_grad_() for key, value in moved.items()}
    gradients = torch.autograd.grad((frozen.image(leaves) * weights).sum(), [*leaves.values()])
    expected = torch.func.vjp(prior.image, origin)[1](weights)[0]
    for key, gradient in zip(leaves, gradients, strict=True):
        assert torch.allclose(gradient, expected[key], rtol=1e-9, atol=1e-11)
    both = {key: torch.stack([moved[key], origin[key]]) for key in origin}
    images = vmap(frozen.image)(both)
    assert torch.allclose(images, torch.stack([image, start]), rtol=0, atol=float(1e-11 * scale))


@pytest.mark.slow
def test_its_kernel_is_that_of_the_network_wherever_it_is() -> None:
    prior, origin = small()
    size = torch.Size(prior.shape).numel()
    jacobian = torch.cat([j.reshape(size, -1) for j in jacrev(prior.image)(origin).values()], dim=1)
    frozen = prior.linearised(origin)
    for seed in (4, 5):
        kernel = NTK(frozen, priors.perturbed(origin, seed)).to_dense()
        assert torch.allclose(kernel, jacobian @ jacobian.T, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["denoise", "inpaint"])
def test_gradient_descent_on_it_follows_the_predicted_curve(kind: str) -> None:
    """Exact theory and an exact fit: 120 iterations differ by sums in another order alone."""
    prior, origin = small("deep-decoder")
    clean = torch.rand(*prior.shape, generator=torch.Generator().manual_seed(0))
    mask = tasks.bernoulli_mask(SIZE, seed=1) if kind == "inpaint" else None
    task = tasks.denoise(clean) if mask is None else tasks.inpaint(clean, mask, noise_sigma=0.1)
    ntk = NTK(prior, origin)
    rate = stable_learning_rate(ntk)
    fitted = fit(
        prior.linearised(origin),
        task,
        optimiser="gradient-descent",
        learning_rate=rate,
        iterations=120,
    )
    expansion = expand(ntk, task, noise="realised", steps=ntk.shape[0], tolerance=0)
    curve = learning_curve(expansion, GradientDescent.of_fit(rate, 120, ntk.shape[0]))
    np.testing.assert_allclose(curve.psnr, fitted.psnr_clean, atol=1e-9)  # dB
    of_network = fit(
        prior,
        task,
        optimiser="gradient-descent",
        learning_rate=rate,
        iterations=120,
    )
    assert abs(of_network.psnr_clean - fitted.psnr_clean).max() > 1e-3  # which learns


@pytest.mark.slow
def test_fits_of_several_images_samplers_and_plans_take_it(tmp_path: Path) -> None:
    prior, origin = small()
    frozen = prior.linearised(origin)
    several = [tasks.denoise(torch.rand(*prior.shape), seed=seed) for seed in range(2)]
    together = fit(
        frozen, several, iterations=4, monitors=["windowed-variance"], checkpoint=tmp_path / "c"
    )
    alone = fit(frozen, several[1], iterations=4)
    difference = abs(together.psnr_clean.isel(image=1).values - alone.psnr_clean.values)
    assert difference.max() < 1e-9  # sums in another order
    drawn = sample(WeightPosterior(frozen, several[0]), iterations=8, burn_in=2, chains=2)
    assert drawn["mean"].shape[-3:] == prior.shape
    assert plan(frozen, several[0], iterations=4).bytes > 0


@pytest.mark.slow
def test_it_is_moved_like_other_priors() -> None:
    prior, origin = small("vit")
    frozen = prior.linearised(origin)
    moved = {key: value.float() for key, value in priors.perturbed(origin, 2, 0.1).items()}
    single = frozen.to(dtype=torch.float32)
    assert isinstance(single, LinearisedPrior)
    assert single.image(moved).dtype == torch.float32
    double = frozen.image({key: value.double() for key, value in moved.items()})
    assert torch.allclose(single.image(moved).double(), double, atol=1e-4)  # float32's rounding


def test_what_makes_no_sense_of_it_is_refused() -> None:
    prior, origin = small()
    frozen = prior.linearised(origin)
    task = tasks.denoise(torch.rand(*prior.shape))
    with pytest.raises(InvalidInputError, match="whatever the seed"):
        fit(frozen, task, iterations=2, seed=[0, 1])
    with pytest.raises(InvalidInputError, match="leave out input_noise"):
        fit(frozen, task, iterations=2, input_noise=0.03)
    with pytest.raises(InvalidInputError, match="freeze them first"):
        frozen.frozen({next(iter(origin)): next(iter(origin.values()))})
    with pytest.raises(InvalidInputError, match="no torch module"):
        frozen.module(origin)
    with pytest.raises(InvalidInputError, match="no layers of its own"):
        _ = frozen.structure
    key, value = next(iter(origin.items()))
    for wrong in (value.float(), value[:1]):
        with pytest.raises(InvalidInputError, match=f"parameter {key} has shape"):
            prior.linearised({**origin, key: wrong})
    with pytest.raises(InvalidInputError, match="missing or too many"):
        prior.linearised({})


def test_a_start_that_is_not_finite_is_said() -> None:
    prior = ImagePrior(lambda: nn.Conv2d(1, 1, 3), torch.rand(1, 1, 8, 8))
    broken = {key: value * float("inf") for key, value in prior.init(0).items()}
    with pytest.raises(DivergenceError, match="not finite"):
        prior.linearised(broken)
