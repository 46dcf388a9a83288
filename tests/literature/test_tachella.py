"""Tachella et al.: induced filters, non-local means, twicing, Adam."""

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import skimage.restoration
import torch
from torch import Tensor, nn

from dipkernels import fit, networks, tasks
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import NTK
from dipkernels.linalg import DenseOperator
from dipkernels.literature import (
    compare_filters,
    induced_filter,
    jacobian,
    non_local_means_weights,
    patch_tangent_kernel,
    residual_correlation,
    twicing,
)
from dipkernels.literature.non_local_means import patches, share_outside
from dipkernels.networks import ImagePrior
from helpers.priors import make

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, where experiments are

from experiments.non_local.along import filter_along_fit


def gram(prior: ImagePrior, parameters: dict[str, Tensor]) -> Tensor:
    """The tangent kernel by the Jacobian: no tracing."""
    J = jacobian(prior, parameters, layers=list(parameters))
    return J @ J.T


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(2, 11), (3, 6, 9)], ids=["1D", "2D"])
@pytest.mark.parametrize("padding", ["reflect", "zero", "circular"])
def test_patches_are_what_a_convolution_multiplies(shape: tuple[int, ...], padding: str) -> None:
    image = picture(*shape)
    kind = nn.Conv1d if len(shape) == 2 else nn.Conv2d
    mode = {"zero": "zeros"}.get(padding, padding)
    layer = kind(shape[0], 4, 5, padding=2, padding_mode=mode, bias=False).double()
    expected = layer(image[None])[0].flatten(1).detach()
    found = layer.weight.flatten(1).detach() @ patches(image, 5, padding=padding).T
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    with pytest.raises(InvalidInputError, match="odd"):
        patches(image, 4)
    if padding != "zero":
        largest = 2 * min(shape[1:]) + (1 if padding == "circular" else -1)
        assert len(patches(image, largest, padding=padding)) == image[0].numel()
        with pytest.raises(InvalidInputError, match=f"at most {largest}"):
            patches(image, largest + 2, padding=padding)
    with pytest.raises(InvalidInputError, match="padding"):
        patches(image, 3, padding="mirror")


def test_non_local_means_pair_by_pair() -> None:
    image = picture(2, 5, 6, seed=1)
    found = non_local_means_weights(image, 3, 0.4).numpy()
    padded = np.pad(image.numpy(), ((0, 0), (1, 1), (1, 1)), mode="reflect")
    cut = [padded[:, y : y + 3, x : x + 3] for y in range(5) for x in range(6)]
    expected = np.array([[np.exp(-np.mean((a - b) ** 2) / 0.4**2) for b in cut] for a in cut])
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)
    with pytest.raises(InvalidInputError, match="bandwidth"):
        non_local_means_weights(image, 3, 0.0)


def test_non_local_means_denoise_as_well_as_scikit_images() -> None:
    stripes = (torch.arange(32) % 8 < 4).double().expand(32, 32)
    noisy = stripes + 0.2 * torch.randn(32, 32, generator=torch.Generator().manual_seed(2)).double()
    found = non_local_means_weights(noisy[None], 5, 0.25) @ noisy.flatten()
    theirs = skimage.restoration.denoise_nl_means(
        noisy.numpy(), patch_size=5, patch_distance=16, h=0.25, fast_mode=False
    )
    ours = float((found.reshape(32, 32) - stripes).square().mean())
    # They weigh a patch by a Gaussian, and search a window: the same within a factor of two.
    assert ours == pytest.approx(float(((theirs - stripes.numpy()) ** 2).mean()), rel=1.0)
    assert ours < 0.2**2 / 3


class Vanilla(nn.Module):
    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(
            channels, width, size, padding=size // 2, padding_mode="reflect", bias=False
        )
        self.last = nn.Conv2d(width, 1, 1, bias=False)
        for layer in (self.first, self.last):
            nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)

    def forward(self, code: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(code)))


def test_tangent_kernel_of_patches_is_the_limit_of_a_wide_network() -> None:
    code = picture(2, 5, 6, seed=2)
    errors = {}
    for width in (64, 4096):
        prior = ImagePrior(lambda width=width: Vanilla(2, 3, width), code[None])
        limit = patch_tangent_kernel(code, 3, first=2.0 * 9, last=float(width))
        kernels = [gram(prior, prior.init(seed)) for seed in range(4)]
        errors[width] = float(
            torch.stack([(k - limit).norm() / limit.norm() for k in kernels]).mean()
        )
    # A mean over `width` channels: an eighth of the error for 64 times as many, within the scatter
    # of the mean of four.
    assert errors[64] / errors[4096] == pytest.approx(8, rel=0.6)
    assert errors[4096] < 0.05


def test_tangent_kernel_of_patches_in_one_dimension_by_sampling() -> None:
    code = picture(1, 7, seed=3)
    rows = patches(code, 3)
    weights = torch.randn(400_000, 3, generator=torch.Generator().manual_seed(0)).double()
    hidden = weights @ rows.T / 3**0.5
    slopes = (hidden > 0).double()
    features = hidden.relu()
    sampled = features.T @ features / len(weights)
    sampled += slopes.T @ slopes / len(weights) * (rows @ rows.T / 3)
    # Monte Carlo of 400,000 draws: errors of about 1/632 of entries below 1.
    torch.testing.assert_close(patch_tangent_kernel(code, 3), sampled, rtol=0, atol=5e-3)


def test_rows_of_the_kernel_are_filters() -> None:
    prior = make("conv-decoder", (6, 8), channels=1, output="none")
    ntk = NTK(prior, prior.init(0))
    found = induced_filter(ntk, [3, 40])
    dense = ntk.to_dense()[[3, 40]]
    torch.testing.assert_close(found, dense / dense.sum(dim=1, keepdim=True), rtol=1e-10, atol=0)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2).double(), rtol=1e-12, atol=0)


class Centred(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(3, 1, 1)

    def forward(self, code: Tensor) -> Tensor:
        image = self.layer(code)
        return image - image.mean(dim=-1, keepdim=True)


def test_a_row_that_sums_to_zero_is_refused() -> None:
    prior = ImagePrior(Centred, picture(1, 3, 9, seed=4))
    with pytest.raises(InvalidInputError, match="sums to 0"):
        induced_filter(NTK(prior, prior.init(0)), [2])


def test_twicing_by_powers_of_the_matrix() -> None:
    root = picture(8, 8, seed=5)
    matrix = root @ root.T
    y, start = picture(8, seed=6), picture(8, seed=7)
    step = 1 / float(torch.linalg.eigvalsh(matrix)[-1])
    found = twicing(DenseOperator(matrix), y, iterations=5, step=step, start=start)
    decay = torch.linalg.matrix_power(torch.eye(8).double() - step * matrix, 5)
    torch.testing.assert_close(found[5], y - decay @ (y - start), rtol=0, atol=1e-12)
    torch.testing.assert_close(found[0], start, rtol=0, atol=0)
    once = twicing(DenseOperator(matrix), y, iterations=1, step=step)
    torch.testing.assert_close(once[1], step * matrix @ y, rtol=0, atol=1e-14)
    with pytest.raises(InvalidInputError, match="iterations"):
        twicing(DenseOperator(matrix), y, iterations=0, step=step)


def test_gradient_descent_of_a_wide_network_is_twicing_with_its_kernel() -> None:
    image = picture(1, 6, 7, seed=8)
    task = tasks.denoise(image, noise_sigma=0.1)
    y = task.measurement.flatten()
    misses = {}
    for width in (16, 1024):
        prior = ImagePrior(lambda width=width: Vanilla(1, 3, width), task.measurement[None])
        ntk = NTK(prior, prior.init(0))
        largest = float(torch.linalg.eigvalsh(ntk.to_dense())[-1])
        result = fit(
            prior,
            task,
            optimiser="gradient-descent",
            learning_rate=42 / (2 * largest),
            iterations=40,
        )
        iterates = twicing(ntk, y, iterations=40, step=1 / largest, start=ntk.image.flatten())
        final = torch.tensor(result.final.values).flatten()
        misses[width] = float((final - iterates[-1]).norm() / y.norm())
    # The kernel moves by the order of the inverse root of the width.
    assert misses[1024] < 0.02
    assert misses[1024] < misses[16] / 3


def test_correlation_of_residuals() -> None:
    white = torch.randn(1, 40, 50, generator=torch.Generator().manual_seed(9))
    found = residual_correlation(white, 6)
    assert float(found[0]) == 1
    assert float(found[1:].abs().max()) < 4 / 2000**0.5  # six values of standard deviation 0.022
    smooth = torch.stack([white[0], white[0].roll(1, 1)]).mean(dim=0)[None]
    assert float(residual_correlation(smooth, 2)[1]) == pytest.approx(0.5, abs=0.09)
    with pytest.raises(InvalidInputError, match="max_lag"):
        residual_correlation(white, 50)
    with pytest.raises(InvalidInputError, match="constant"):
        residual_correlation(torch.ones(1, 5, 5), 2)


def test_comparison_of_filters() -> None:
    a, b = picture(2, 35, seed=10), picture(2, 35, seed=11)
    found = compare_filters(a, b, [0, 17], (5, 7), radius=1)
    window = torch.zeros(5, 7, dtype=torch.bool)
    window[1:4, 2:5] = True  # about pixel 17, row 2, column 3
    far = ~window.flatten()
    share = float(a[1][far].sum() / a[1].sum())
    assert float(found.share_outside[1]) == pytest.approx(share, rel=1e-12)
    assert float(found.window_share[1]) == pytest.approx(9 / 35, rel=1e-12)
    expected = scipy.stats.spearmanr(a[1][far], b[1][far]).statistic
    assert float(found.rank_correlation_outside[1]) == pytest.approx(expected, rel=1e-12)
    others = torch.arange(35) != 17
    expected = scipy.stats.spearmanr(a[1][others], b[1][others]).statistic
    assert float(found.rank_correlation[1]) == pytest.approx(expected, rel=1e-12)
    signs = torch.ones(35, dtype=torch.float64)
    signs[::2] = -1  # shares are of absolute weight
    torch.testing.assert_close(
        share_outside(a * signs, [0, 17], (5, 7), 1), share_outside(a, [0, 17], (5, 7), 1)
    )
    with pytest.raises(InvalidInputError, match="whole grid"):
        compare_filters(a, b, [0, 17], (5, 7), radius=6)
    even = compare_filters(torch.ones_like(a), b, [0, 17], (5, 7), radius=1)
    assert np.isnan(even.rank_correlation).all()
    with pytest.raises(InvalidInputError, match="0 to 34"):
        compare_filters(a, b, [0, 35], (5, 7), radius=1)
    with pytest.raises(InvalidInputError, match="negative"):
        share_outside(a, [0, 17], (5, 7), -1)
    with pytest.raises(InvalidInputError, match="blocks"):
        compare_filters(a, b, [0], (5, 7), radius=1)


def test_filters_along_fits() -> None:
    prior = networks.create("conv", image_size=(6, 5), channels=1, width=6, layers=1, output="none")
    prior = prior.to(dtype=torch.float64)
    task = tasks.denoise(picture(1, 6, 5, seed=12), noise_sigma=0.1)
    found = filter_along_fit(prior, task, [7, 20], iterations=[5], learning_rate=0.01)
    assert found.sizes == {"kind": 2, "iteration": 2, "pixel": 2, "output": 30}
    np.testing.assert_allclose(found.cosine.sel(kind="tangent", iteration=0), 1, rtol=1e-12)
    assert np.isnan(found.filter.sel(kind="preconditioned", iteration=0)).all()
    # What torch's own Adam reaches, and its metric.
    module = prior.module(prior.init(0)).train()
    leaves = dict(module.named_parameters())
    optimiser = torch.optim.Adam(leaves.values(), lr=0.01)
    for _ in range(5):
        optimiser.zero_grad()
        (module(prior.code)[0] - task.measurement).square().mean().backward()
        optimiser.step()
    parameters = {key: leaf.detach() for key, leaf in leaves.items()}
    dense = gram(prior, parameters)[[7, 20]]
    dense = dense / dense[[0, 1], [7, 20]][:, None]
    np.testing.assert_allclose(
        found.filter.sel(kind="tangent", iteration=5), dense, rtol=1e-6, atol=1e-9
    )
    state = {key: optimiser.state[leaf]["exp_avg_sq"] for key, leaf in leaves.items()}
    metric = [1 / ((v / (1 - 0.999**5)).sqrt() + 1e-8).flatten() for v in state.values()]
    J = jacobian(prior, parameters, layers=list(state))
    dense = ((J * torch.cat(metric)) @ J.T)[[7, 20]]
    dense = dense / dense[[0, 1], [7, 20]][:, None]
    np.testing.assert_allclose(
        found.filter.sel(kind="preconditioned", iteration=5), dense, rtol=1e-5, atol=1e-8
    )
    descent = filter_along_fit(
        prior, task, [7], iterations=[1], optimiser="gradient-descent", learning_rate=1e-3
    )
    assert np.isnan(descent.filter.sel(kind="preconditioned")).all()
    assert np.isfinite(descent.filter.sel(kind="tangent")).all()
    with pytest.raises(InvalidInputError, match="ascending"):
        filter_along_fit(prior, task, [7], iterations=[0, 1])
    with pytest.raises(InvalidInputError, match="optimiser"):
        filter_along_fit(prior, task, [7], iterations=[1], optimiser="sgd")
    for pixels in ([30], [-1], []):
        with pytest.raises(InvalidInputError, match="0 to 29"):
            filter_along_fit(prior, task, pixels, iterations=[1])
