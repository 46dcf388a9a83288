"""What the atlas measures of one network: its kernel, its fits, when to stop, its uncertainty."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from scipy.stats import norm
from torch import Tensor

from dipkernels import fit, images, tasks
from dipkernels.fingerprints.card import LEAST_RATE
from dipkernels.gp import GaussianProcess
from dipkernels.kernels.dense import DenseImageKernel, DenseKernel
from dipkernels.networks import ImagePrior
from dipkernels.sampling.posterior import initialisation_prior
from dipkernels.spectra import frequency_response
from dipkernels.stopping import stopping_panel
from dipkernels.tasks import Task
from dipkernels.theory import KernelSpectrum, predicted_peak
from dipkernels.theory.spectrum import gram_of
from experiments.atlas.plan import Network

RULES = ("discrepancy", "pseudo-reference")  # the former needs the noise's level, neither the truth
LEVEL = 0.9  # of the intervals
RISING = 0.98  # of the iterations: a peak after that may well be none
ROWS = 64  # of a Jacobian at a time
TILES = ("sample", "filter", "best")


@dataclass(frozen=True)
class Preset:
    """Sizes of one run."""

    size: int
    noise_sigma: float
    networks: tuple[str, ...]
    images: tuple[str, ...]
    iterations: int  # of Adam
    probes: int  # of a ring of the frequency response


@dataclass(frozen=True)
class Kernels:
    """The tangent kernel at initialisation, and the process of the network linearised there.

    Attributes
    ----------
    ntk : ndarray, shape (pixels, pixels)
        ``J J^T``.
    covariance : Tensor, shape (pixels, pixels)
        ``J S^2 J^T``, S the deviations of the weights' own initialisation.
    image, mean : Tensor, shape (1, height, width)
        At initialisation, and where the linearised network has its mean: ``f + J (m - w)``.
    """

    ntk: np.ndarray
    covariance: Tensor
    image: Tensor
    mean: Tensor


def measure(network: Network, chosen: Preset, device: torch.device) -> xr.Dataset:
    """Measure one network on all images.

    Parameters
    ----------
    network : Network
        A line of the plan.
    chosen : Preset
        Sizes.
    device : torch.device
        That computes.

    Returns
    -------
    xarray.Dataset
        Over ``image``, in dB above the noisy image: ``peak`` of Adam, ``kernel``, the peak that the
        kernel predicts for this noise; ``regret`` over ``rule``; ``coverage`` of nominal 90 %
        intervals and ``z_rms``. ``response`` over ``frequency``, ``tiles`` to look at.
    """
    began = time.perf_counter()
    prior = network.prior(chosen.size).to(device=device)
    problems = [problem(image, chosen).to(device=device) for image in chosen.images]
    noisy = np.array([float(task.psnr(task.measurement)) for task in problems])
    kernels = kernels_of(prior)
    predicted = kernel_peaks(kernels, problems)
    rate = network.rate or max(prior.learning_rate or 0.0, LEAST_RATE)
    fits = fit(
        prior, problems, iterations=chosen.iterations, learning_rate=rate, snapshots=0,
        monitors=["pseudo-reference"], progress=False,
    )  # fmt: skip
    panel = stopping_panel(fits, list(RULES))
    response = frequency_response(
        DenseImageKernel(torch.from_numpy(kernels.ntk), prior.shape), probes=chosen.probes
    )
    at = fits.peak_iteration.values
    per_image = {
        "noisy": noisy,
        "peak": fits.peak_psnr.values - noisy,
        "kernel": np.array([peak.psnr for peak in predicted]) - noisy,
        "kernel_resolved": np.array([peak.resolved for peak in predicted], dtype=int),
        "iteration": at,
        "rising": (at >= RISING * chosen.iterations).astype(int),
        **calibration(kernels, problems),
    }
    return xr.Dataset(
        {key: ("image", values) for key, values in per_image.items()}
        | {
            "regret": (("image", "rule"), panel.regret.values),
            "response": ("frequency", response.response.values / float(response.response[1])),
            "tiles": (("tile", "y", "x"), tiles(prior, kernels, fits)),
        },
        {
            "image": list(chosen.images),
            "rule": list(RULES),
            "frequency": response.frequency.values,
            "tile": list(TILES),
        },
        {
            "network": network.label,
            "family": network.family,
            "origin": network.origin,
            "source": network.name.rpartition("/")[2],
            "options": " ".join(f"{k}={v}" for k, v in network.options.items()).replace(", ", ","),
            "parameters": prior.parameter_count,
            "rate": rate,
            "half_power": float(response.half_power_frequency),
            "seconds": time.perf_counter() - began,
        },
    )


def problem(image: str, chosen: Preset) -> Task:
    """Make the task of an image: in grey, with white noise."""
    clean = images.load(image, size=chosen.size).mean(dim=0, keepdim=True)
    return tasks.denoise(clean, noise_sigma=chosen.noise_sigma)


def kernels_of(prior: ImagePrior) -> Kernels:
    """Form both kernels from one Jacobian, whose rows are summed in float64."""
    # Rows in float32 are off by 1e-7 of the largest singular value: squared, far below all that
    # is learned before the peak, as a test compares.
    start, weights = prior.init(0), initialisation_prior(prior)
    image = prior.image(start).detach()
    plain, weighted = np.zeros((2, image.numel(), image.numel()))
    mean = image.flatten().double()
    # An `NTK` would be traced for its products, which takes longer than all rows.
    jacobian = torch.func.jacrev(prior.image, chunk_size=ROWS)(start)
    for key, found in jacobian.items():
        rows = found.detach().reshape(image.numel(), -1)
        gram = gram_of(rows)
        plain += gram
        weighted += float(weights.deviation[key]) ** 2 * gram
        shift = (weights.mean[key] - start[key]).expand(start[key].shape).flatten()
        mean += (rows @ shift).double()
    covariance = torch.from_numpy(weighted).to(mean.device)
    return Kernels(plain, covariance, image, mean.reshape(image.shape))


def kernel_peaks(kernels: Kernels, problems: Sequence[Task]) -> list:
    """Predict the best moment of gradient flow for the very noise of each image."""
    spectrum, found = KernelSpectrum.of_matrix(kernels.ntk), []
    start = kernels.image.cpu().numpy().ravel()
    for task in problems:
        assert task.clean is not None
        clean, measured = (x.double().cpu().numpy().ravel() for x in (task.clean, task.measurement))
        found.append(predicted_peak(spectrum.expand(clean - start, 0.0, noise=measured - clean)))
    return found


def calibration(kernels: Kernels, problems: Sequence[Task]) -> dict[str, np.ndarray]:
    """Count how often the intervals of the linearised network's posterior hold the clean image."""
    size, sigma = tuple(kernels.mean.shape[1:]), problems[0].noise_sigma
    process = GaussianProcess(DenseKernel(kernels.covariance, kernels.covariance, size))
    measured = torch.cat([task.measurement for task in problems]).double()
    # images as channels, which are independent and alike: one decomposition serves all
    posterior = process.posterior(
        tasks.denoise(measurement=measured - kernels.mean, noise_sigma=sigma)
    )
    clean = torch.cat([task.clean for task in problems if task.clean is not None]).double()
    z = (clean - kernels.mean - posterior.mean) / posterior.variance().value.sqrt()
    inside = z.abs() <= norm.ppf((1 + LEVEL) / 2)
    return {
        "coverage": inside.double().mean(dim=(1, 2)).cpu().numpy(),
        "z_rms": z.square().mean(dim=(1, 2)).sqrt().cpu().numpy(),
    }


def tiles(prior: ImagePrior, kernels: Kernels, fits: xr.Dataset) -> np.ndarray:
    """Draw what the network looks like: a sample, the kernel's row at the middle, a restoration."""
    height, width = prior.shape[1:]
    row = kernels.ntk[(height // 2) * width + width // 2].reshape(height, width)
    row = row - row.mean()
    row /= np.abs(row).max() or 1.0
    signed = 0.5 + 0.5 * np.sign(row) * np.sqrt(np.abs(row))
    sample = kernels.image[0].cpu().numpy()
    low, high = sample.min(), sample.max()
    stretched = (sample - low) / (high - low or 1.0)
    drawn = np.stack([stretched, signed, fits.best.values[0, 0]])
    return np.rint(255 * np.clip(np.nan_to_num(drawn), 0, 1)).astype(np.uint8)
