"""Kernels as matrices: against those of the lag, for which all is known."""

import pytest
import torch
from torch import Tensor

from dipkernels import gp, images, tasks, theory
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import NTK, DenseKernel
from dipkernels.kernels.stationary import StationaryKernel, Weights, activate, convolve, upsample

SIZE = (6, 8)


def stationary() -> StationaryKernel:
    values = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    power = torch.fft.fftn(values).abs().square()
    code = StationaryKernel.from_lags(torch.fft.ifftn(power).real / values.numel() + 0.2)
    hidden = activate(convolve(code, 3, Weights.ntk(2.0, 0.1)), "relu")
    return convolve(upsample(hidden, 2, "bilinear"), 3, Weights.ntk(1.0))


def skewed() -> DenseKernel:
    """A kernel that is a function of no lag."""
    random = torch.Generator().manual_seed(2)
    a, b = (torch.randn(48, 48, dtype=torch.float64, generator=random) for _ in range(2))
    return DenseKernel(a @ a.T / 48, a @ a.T / 48 + b @ b.T / 96, SIZE)


def clean() -> Tensor:
    return images.load("camera", size=16)[:, : SIZE[0], : SIZE[1]]


def close(found: Tensor, wanted: Tensor) -> None:
    # products of matrices of 48 rows in float64, and eigenvectors of condition 1e4
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10 * float(wanted.abs().max()))


def test_the_posterior_is_that_of_the_same_kernel_by_its_lags() -> None:
    kernel = stationary()
    task = tasks.denoise(clean(), noise_sigma=0.1, seed=0)
    mask = tasks.bernoulli_mask(SIZE, seed=1)
    holes = tasks.inpaint(clean(), mask, noise_sigma=0.1, seed=0)
    one = gp.GaussianProcess(DenseKernel.of(kernel), mean=0.4)
    other = gp.GaussianProcess(kernel, mean=0.4, periodic=True)
    for each, solvers in ((task, ["fourier", "dual", "primal"]), (holes, ["dual", "primal"])):
        for solver in solvers:
            options = {"solver": solver, "tolerance": 1e-13}
            close(one.posterior(each, **options).mean, other.posterior(each, **options).mean)
        found, wanted = one.posterior(each), other.posterior(each)
        method = "fourier" if each is task else "solves"
        close(found.variance(method).value, wanted.variance(method).value)
        value = found.log_evidence("dense").value.value
        assert value == pytest.approx(wanted.log_evidence("dense").value.value, rel=1e-10)


def test_the_posterior_of_any_kernel_is_the_textbooks() -> None:
    kernel = skewed()
    task = tasks.inpaint(clean(), tasks.bernoulli_mask(SIZE, seed=1), noise_sigma=0.2, seed=0)
    seen = task.measured.flatten().nonzero()[:, 0]
    k, y = kernel.covariance, task.measurement.double().flatten()[seen]
    system = k[seen][:, seen] + 0.04 * torch.eye(len(seen), dtype=torch.float64)
    posterior = gp.GaussianProcess(kernel).posterior(task, tolerance=1e-13)
    close(posterior.mean.flatten(), k[:, seen] @ torch.linalg.solve(system, y))
    left = k - k[:, seen] @ torch.linalg.solve(system, k[seen])
    close(posterior.variance("solves").value.flatten(), left.diagonal())
    drawn = posterior.variance("draws", draws=400)
    score = (drawn.value.flatten() - left.diagonal()) / drawn.standard_error.flatten()
    assert score.abs().mean() < 1.2  # 0.8 of normal ones
    samples = gp.GaussianProcess(kernel).sample((2, *SIZE), 2000, seed=3)
    moments = torch.einsum("ncp,ncq->pq", samples.flatten(2), samples.flatten(2)) / 4000
    assert float((moments - k).norm() / k.norm()) < 0.2  # sqrt(48/4000) = 0.11 of white noise


def test_the_linear_network_has_the_kernels() -> None:
    kernel = skewed()
    prior = kernel.prior(channels=2, name="skewed")
    ntk = NTK(prior, prior.init(0))
    close(ntk.to_dense(), torch.block_diag(kernel.ntk, kernel.ntk))
    close(kernel.operator("ntk", channels=2).to_dense(), ntk.to_dense())
    flat = torch.stack([prior.image(prior.init(seed)) for seed in range(500)]).flatten(2)
    moments = torch.einsum("ncp,ncq->pq", flat, flat) / 1000
    assert float((moments - kernel.covariance).norm() / kernel.covariance.norm()) < 0.35
    drawn = kernel.sample(1000, seed=1).flatten(1)
    moments = drawn.T @ drawn / 1000
    assert float((moments - kernel.covariance).norm() / kernel.covariance.norm()) < 0.35
    rest = kernel.prior(start="zero")
    assert not rest.image(rest.init(3)).any()


def test_theory_and_score_take_it() -> None:
    kernel = skewed()
    task = tasks.denoise(clean(), noise_sigma=0.1, seed=0)
    spectrum = theory.KernelSpectrum.of_matrix(kernel.ntk.numpy())
    exact = theory.predicted_peak(spectrum.expand(clean().double().flatten().numpy(), 0.1))
    prior = kernel.prior(start="zero")
    found = theory.score(prior, task, method="dense")
    assert float(found.psnr.squeeze()) == pytest.approx(exact.psnr, abs=1e-6)
    ntk = NTK(prior, prior.init(0))
    krylov = theory.learning_curve(theory.expand(ntk, task, tolerance=0, steps=48, probes=16))
    assert krylov.attrs["peak_psnr"] == pytest.approx(exact.psnr, abs=0.5)  # of its probes
    assert len(kernel.operator("covariance").top_eigenpairs(3).values) == 3


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        (torch.eye(6), "float64"),
        (torch.eye(6, dtype=torch.float64) * torch.inf, "NaN"),
        (torch.ones(6, 6, dtype=torch.float64).triu(), "not symmetric"),
        (-torch.eye(6, dtype=torch.float64), "positive semi-definite"),
    ],
)
def test_what_is_no_kernel_is_refused(matrix: Tensor, match: str) -> None:
    good = torch.eye(6, dtype=torch.float64)
    for pair in ((matrix, good), (good, matrix)):
        with pytest.raises(InvalidInputError, match=match):
            DenseKernel(*pair, (2, 3))


def test_a_matrix_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="over 6 pixels"):
        DenseKernel(*[torch.eye(5, dtype=torch.float64)] * 2, (2, 3))


def test_options_that_do_not_fit_are_refused() -> None:
    kernel = skewed()
    nothing = DenseKernel(kernel.covariance, torch.zeros_like(kernel.ntk), SIZE)
    with pytest.raises(InvalidInputError, match="start='zero'"):
        nothing.prior()
    with pytest.raises(InvalidInputError, match="no effect on a DenseKernel"):
        gp.GaussianProcess(kernel, periodic=True)
    with pytest.raises(InvalidInputError, match="over images of size"):
        gp.GaussianProcess(kernel).posterior(tasks.denoise(images.load("camera", size=8)))
    for wrong in ({"channels": 0}, {"start": "one"}):
        with pytest.raises(InvalidInputError):
            kernel.prior(**wrong)
    with pytest.raises(InvalidInputError, match="n must be at least 1"):
        kernel.sample(0)
    with pytest.raises(InvalidInputError, match="none of images"):
        kernel.operator(channels=0)
