"""A `kernel_fn` of neural-tangents as a dense kernel: against ours, its theory, wide networks."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import gp, images, tasks, theory
from dipkernels.bridges import neural_tangents as bridge
from dipkernels.errors import InvalidInputError, MissingExtraError
from dipkernels.kernels import DenseKernel, infinite_width
from dipkernels.networks import ImagePrior
from helpers.jax_networks import double

try:
    JAX, STAX = bridge.require()
except MissingExtraError:
    pytest.skip("the extra neural-tangents is not installed", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # these packages warn of each other
GRID = (4, 5)


def code(channels: int = 3) -> Tensor:
    return torch.randn(1, channels, *GRID, generator=torch.Generator().manual_seed(3)).double()


def conv(width: int, padding: str = "SAME", size: int = 3) -> Any:
    return STAX.Conv(width, (size, size), padding=padding, W_std=1.3, b_std=0.2)


def attention(width: int) -> Any:
    # query and key share weights in this limit, whose scores are of 1/n and so fixed
    return STAX.GlobalSelfAttention(
        width, n_chan_key=width, n_chan_val=width, n_heads=width, linear_scaling=True,
        W_key_std=1.0, W_value_std=1.0, W_query_std=1.0, W_out_std=1.0,
    )  # fmt: skip


def padded(width: int) -> Any:
    return STAX.serial(conv(width), STAX.Relu(), conv(width), STAX.Erf(), conv(1, size=1))


def attentive(width: int) -> Any:
    return STAX.serial(conv(width), attention(width), STAX.Relu(), STAX.Dense(1, b_std=0.1))


@pytest.fixture(scope="module")
def kernels() -> dict[str, DenseKernel]:
    nets = {"padded": padded(1), "attentive": attentive(1)}
    return {name: bridge.dense_kernel(net[2], code()) for name, net in nets.items()}


def test_a_circular_network_has_the_kernel_that_is_read_off_torch() -> None:
    def build() -> nn.Module:
        options = {"padding": 1, "padding_mode": "circular"}
        return nn.Sequential(
            nn.Conv2d(3, 64, 3, **options), nn.ReLU(), nn.Conv2d(64, 1, 3, **options)
        )

    # one code is not stationary: the mean over its shifts is the kernel of its own moments
    z = code()
    weight = {"W_std": (1 / 3) ** 0.5, "padding": "CIRCULAR"}
    first = STAX.Conv(1, (3, 3), b_std=(1 / 81) ** 0.5, **weight)
    linear = STAX.serial(first, STAX.Conv(1, (3, 3), b_std=(1 / (3 * 576)) ** 0.5, **weight))
    found = bridge.dense_kernel(linear[2], z)

    def net() -> nn.Module:
        return nn.Sequential(*(part for part in build() if not isinstance(part, nn.ReLU)))

    ours = infinite_width(ImagePrior(net, z), code="empirical", parameterisation="ntk").kernel
    shifts = [(a, b) for a in range(GRID[0]) for b in range(GRID[1])]
    for which in ("covariance", "ntk"):
        table = found.to_dense(which).reshape(*GRID, *GRID)
        mean = sum(table.roll((a, b, a, b), (0, 1, 2, 3)) for a, b in shifts) / len(shifts)
        wanted = ours.to_dense(which).reshape(*GRID, *GRID)
        # both closed forms in float64
        torch.testing.assert_close(mean, wanted, rtol=1e-12, atol=0)


def test_they_are_not_stationary(kernels: dict[str, DenseKernel]) -> None:
    for kernel in kernels.values():
        variance = kernel.covariance.diagonal()
        assert float(variance.std() / variance.mean()) > 0.05
        assert kernel.size == GRID


@pytest.mark.slow
@pytest.mark.parametrize(("name", "net"), [("padded", padded), ("attentive", attentive)])
def test_wide_networks_have_nearly_these_kernels(
    name: str, net: Any, kernels: dict[str, DenseKernel]
) -> None:
    width, seeds = 64, 8
    init, apply, _ = net(width)
    z = JAX.numpy.asarray(code().movedim(1, -1).float().numpy())

    @JAX.jit
    def kernel_of(parameters: Any) -> Any:
        jacobian = JAX.jacrev(lambda p: apply(p, z).reshape(-1))(parameters)
        rows = [x.reshape(20, -1) for x in JAX.tree_util.tree_leaves(jacobian)]
        return sum(each @ each.T for each in rows)

    draws = [init(JAX.random.PRNGKey(seed), z.shape)[1] for seed in range(seeds)]
    total = sum(torch.from_numpy(np.array(kernel_of(each))).double() for each in draws) / seeds
    error = (total - kernels[name].ntk).square().mean().sqrt() / kernels[name].ntk.abs().max()
    # 1.5 / sqrt(width * seeds) for each of three layers of weights
    assert float(error) < 0.1


def test_the_learning_curve_is_that_of_neural_tangents(kernels: dict[str, DenseKernel]) -> None:
    import neural_tangents as nt

    clean = images.load("camera", size=8)[:, : GRID[0], : GRID[1]].double().flatten().numpy()
    task_noise = np.random.default_rng(0).normal(0, 0.1, 20)
    for kernel in kernels.values():
        with double(JAX):
            targets = JAX.numpy.asarray((clean + task_noise)[:, None])
            predict = nt.predict.gradient_descent_mse(
                JAX.numpy.asarray(kernel.ntk.numpy()), targets, learning_rate=1.0
            )
            times = np.geomspace(0.1, 1e4, 9)
            # their loss is the mean over outputs: time counts by their number
            images_at = [np.asarray(predict(20 * t, np.zeros((20, 1)))[:, 0]) for t in times]
        theirs = np.array([np.mean((image - clean) ** 2) for image in images_at])
        spectrum = theory.KernelSpectrum.of_matrix(kernel.ntk.numpy())
        expansion = spectrum.expand(clean, 0.0, noise=task_noise)
        ours = expansion.errors(theory.GradientFlow(times)).middle[:, 0]
        # eigenvectors in float64, errors of 1e-2 at best
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_the_posterior_is_that_of_neural_tangents(kernels: dict[str, DenseKernel]) -> None:
    import neural_tangents as nt

    kernel = kernels["attentive"]
    clean = images.load("camera", size=8)[:, : GRID[0], : GRID[1]]
    task = tasks.inpaint(clean, tasks.bernoulli_mask(GRID, seed=1), noise_sigma=0.1, seed=0)
    seen = task.measured.flatten().numpy()
    k = kernel.covariance.numpy()
    with double(JAX):
        own = k[seen][:, seen]
        # their regulariser is relative to the mean of the diagonal
        predict = nt.predict.gp_inference(
            JAX.numpy.asarray(own),
            JAX.numpy.asarray(task.measurement.double().flatten().numpy()[seen][:, None]),
            diag_reg=0.01 / float(np.trace(own) / len(own)),
        )
        found = predict(
            get="nngp",
            k_test_train=JAX.numpy.asarray(k[:, seen]),
            k_test_test=JAX.numpy.asarray(k),
        )
    posterior = gp.GaussianProcess(kernel).posterior(task, tolerance=1e-13)
    np.testing.assert_allclose(
        posterior.mean.flatten().numpy(), np.asarray(found.mean)[:, 0], rtol=0, atol=1e-10
    )
    np.testing.assert_allclose(
        posterior.variance("solves").value.flatten().numpy(),
        np.diag(np.asarray(found.covariance)),
        rtol=0,
        atol=1e-10,
    )


def test_spectrum_score_and_fit_of_an_infinitely_wide_network(
    kernels: dict[str, DenseKernel],
) -> None:
    clean = images.load("camera", size=8)[:, : GRID[0], : GRID[1]]
    task = tasks.denoise(clean, noise_sigma=0.1, seed=0)
    for kernel in kernels.values():
        found = theory.score(kernel.prior(), task, seed=(0, 1))
        assert bool(np.isfinite(found.psnr).all())
        pairs = kernel.operator().top_eigenpairs(2)
        exact = torch.linalg.eigvalsh(kernel.ntk)
        torch.testing.assert_close(pairs.values, exact[-2:].flip(0), rtol=1e-6, atol=0)


def test_what_is_no_image_is_refused() -> None:
    flat = STAX.serial(conv(1), STAX.GlobalAvgPool(), STAX.Dense(1))
    with pytest.raises(InvalidInputError, match="axes of pixels"):
        bridge.dense_kernel(flat[2], code())
    with pytest.raises(InvalidInputError, match=r"\(1, channels, \*grid\)"):
        bridge.dense_kernel(flat[2], code()[0, 0])
