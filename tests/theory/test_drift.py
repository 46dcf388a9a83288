"""How far kernels have moved: known pairs of matrices, and dense kernels of a network."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import NTK, ImagePrior
from dipkernels.errors import InvalidInputError
from dipkernels.linalg import DenseOperator, top_eigenpairs
from dipkernels.spectra.bins import bin_edges
from dipkernels.theory import kernel_drift, response_drift
from helpers.priors import draw, perturbed

NAMES = ("relative_change", "alignment", "norm_ratio")


def pair(n: int, seed: int, decay: float) -> tuple[Tensor, Tensor]:
    """Two positive matrices, the second moved away from the first."""
    orthogonal = torch.linalg.qr(draw(n, n, seed=seed))[0]
    a = (orthogonal * torch.exp(-decay * torch.arange(n))) @ orthogonal.T
    factor = draw(n, n, seed=seed + 1) / n
    return a, 1.3 * a + 0.1 * factor @ factor.T


def dense(a: Tensor, b: Tensor) -> dict[str, float]:
    """The three numbers from the matrices themselves."""
    return {
        "relative_change": float((b - a).norm() / a.norm()),
        "alignment": float((a * b).sum() / (a.norm() * b.norm())),
        "norm_ratio": float(b.norm() / a.norm()),
    }


def test_all_known_vectors_make_the_drift_exact() -> None:
    a, b = pair(19, 3, 0.3)
    known = torch.linalg.qr(draw(19, 19, seed=8))[0]
    found = kernel_drift(DenseOperator(a), DenseOperator(b), known=known)
    for name, value in dense(a, b).items():
        assert float(found[name]) == pytest.approx(value, rel=1e-12)  # rounding of 19 products
        assert float(found[f"{name}_standard_error"]) < 1e-12
    assert found.matvecs == 2 * (19 + 8)


@pytest.mark.parametrize("known", [0, 5])
def test_estimates_are_right_within_their_standard_errors(known: int) -> None:
    a, b = pair(31, 5, 0.05 if not known else 0.4)
    first, second = DenseOperator(a), DenseOperator(b)
    vectors = torch.linalg.eigh(a).eigenvectors[:, -known:] if known else None
    exact = dense(a, b)
    scores: dict[str, list[float]] = {name: [] for name in NAMES}
    for seed in range(60):
        found = kernel_drift(first, second, probes=24, known=vectors, seed=seed)
        for name in NAMES:
            error = float(found[f"{name}_standard_error"])
            scores[name].append((float(found[name]) - exact[name]) / error)
    for values in scores.values():
        # 60 draws of about a t variable: its root mean square lies in this range but for a chance
        # of some in a thousand, and so does its mean, to which the quotient's bias adds 1 / probes
        assert 0.7 < math.sqrt(np.mean(np.square(values))) < 1.5
        assert abs(np.mean(values)) < 0.5


def test_known_eigenvectors_make_it_more_accurate_where_few_dominate() -> None:
    a, b = pair(40, 11, 0.7)
    first, second = DenseOperator(a), DenseOperator(b)
    vectors = top_eigenpairs(first, 4).vectors
    errors = [
        float(kernel_drift(first, second, known=v).norm_ratio_standard_error)
        for v in (None, vectors)
    ]
    assert errors[1] < errors[0] / 3


def test_a_kernel_doesnt_drift_from_itself_and_only_scale_keeps_alignment() -> None:
    a, _ = pair(17, 2, 0.2)
    still = kernel_drift(DenseOperator(a), DenseOperator(a))
    assert float(still.relative_change) == 0
    scaled = kernel_drift(DenseOperator(a), DenseOperator(3 * a))
    assert float(scaled.relative_change) == pytest.approx(2, rel=1e-13)  # one rounding a product
    assert float(scaled.alignment) == pytest.approx(1, rel=1e-13)
    assert float(scaled.norm_ratio) == pytest.approx(3, rel=1e-13)


@pytest.mark.parametrize("spatial", [(5, 8), (13,)], ids=["2D", "1D"])
def test_drift_of_a_network_is_that_of_its_dense_kernels(spatial: tuple[int, ...]) -> None:
    conv = (nn.Conv1d, nn.Conv2d)[len(spatial) - 1]
    prior = ImagePrior(
        lambda: nn.Sequential(conv(2, 4, 3, padding=1), nn.Tanh(), conv(4, 2, 3, padding=1)),
        draw(1, 2, *spatial),
    )
    start = prior.init(0)
    kernels = {i: NTK(prior, p) for i, p in ((0, start), (7, perturbed(start, 4, 0.2)))}
    jacobians = [torch.func.jacrev(prior.image)(k.parameters) for k in kernels.values()]
    n = math.prod(prior.shape)
    a, b = (sum((m := j.reshape(n, -1)) @ m.T for j in jac.values()) for jac in jacobians)
    known = torch.linalg.qr(draw(n, n, seed=1))[0]
    found = kernel_drift(kernels[0], kernels[7], known=known)
    for name, value in dense(a, b).items():
        assert float(found[name]) == pytest.approx(value, rel=1e-10)

    # enough probes that every ring is summed exactly, against dense Fourier modes
    responses = response_drift(kernels, prior.shape, rings=3, probes=2 * n)
    axes = np.meshgrid(*(np.fft.fftfreq(side) for side in spatial), indexing="ij")
    radius = np.sqrt(sum(np.square(axis) for axis in axes))
    modes = np.fft.fftn(
        np.eye(math.prod(spatial)).reshape(-1, *spatial),
        axes=range(1, 1 + len(spatial)),
        norm="ortho",
    )
    modes = modes.reshape(len(modes), -1)
    for check, matrix in ((0, a), (7, b)):
        blocks = matrix.numpy().reshape(2, len(modes), 2, len(modes))
        each = (
            sum(
                np.einsum("kp,pq,kq->k", modes.conj(), blocks[c, :, c], modes).real
                for c in range(2)
            )
            / 2
        )
        rings = responses.sel(check=check)
        assert float(rings.response[0]) == pytest.approx(each[radius.ravel() == 0][0], rel=1e-10)
        # the rings' means, weighted by their numbers of modes, are the trace
        total = float((rings.response * _count(radius, rings.frequency.values)).sum())
        assert total == pytest.approx(float(np.trace(matrix)) / 2, rel=1e-10)


def _count(radius: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """Modes of each ring: those nearer to its mean radius than an edge halfway would be."""
    which = np.digitize(radius, bin_edges(radius.shape, 3)) + 1
    which[radius == 0] = 0
    return np.unique(which, return_counts=True)[1]


def test_what_cant_be_compared_is_refused() -> None:
    a, b = (DenseOperator(m) for m in pair(9, 0, 0.1))
    with pytest.raises(InvalidInputError, match="sizes 9 and 8"):
        kernel_drift(a, DenseOperator(torch.eye(8, dtype=torch.float64)))
    with pytest.raises(InvalidInputError, match="2 probes"):
        kernel_drift(a, b, probes=1)
    with pytest.raises(InvalidInputError, match="orthonormal"):
        kernel_drift(a, b, known=torch.ones(9, 2, dtype=torch.float64))
    with pytest.raises(InvalidInputError, match="zero"):
        kernel_drift(DenseOperator(torch.zeros(9, 9, dtype=torch.float64)), b)
    with pytest.raises(InvalidInputError, match=r"size \(length,\), \(height, width\) or"):
        response_drift({0: a}, (9,))
