"""The band of every prior, from products in float32, holds what its dense float64 kernel says."""

import dataclasses

import numpy as np
import pytest
import torch

from dipkernels import images, networks, tasks
from dipkernels.base.seeds import derive
from dipkernels.kernels import NTK
from dipkernels.theory import GradientFlow, expand, kernel_spectrum
from helpers.priors import make

SIZE, SIGMA, SEEDS = 12, 25 / 255, 3
IMAGES = ("camera", "astronaut")
# Under 10 s on a core, each.
LIGHT = (
    "conv",
    "fixed-conv",
    "resnet",
    "deep-decoder",
    "deep-decoder-over",
    "conv-decoder",
    "transposed-decoder",
    "vit-conv3",
    "siren",
    "fourier-features",
)


def time_of(name: str) -> pytest.MarkDecorator:
    """Say how long the test of a prior takes."""
    return pytest.mark.slow if name in LIGHT else pytest.mark.long


@pytest.mark.parametrize("name", [pytest.param(n, marks=time_of(n)) for n in networks.names()])
def test_a_band_of_float32_holds_the_dense_float64_truth(name: str) -> None:
    exact = make(name, (SIZE, SIZE), channels=1)
    single = exact.to(dtype=torch.float32)
    for seed in range(SEEDS):
        dense, ntk = NTK(exact, exact.init(seed)), NTK(single, single.init(seed))
        spectrum, other = kernel_spectrum(dense), kernel_spectrum(ntk)
        # A ReLU whose input is 0 to rounding is on one side in float32 and on the other in float64:
        # another network, whose truth is the float64 algebra of its own Jacobian.
        if abs(other.values - spectrum.values).max() > 2e-6 * spectrum.values[-1]:
            dense, spectrum = ntk, other
        probes = ntk.rademacher(1, derive("variance", seed))[:, 0].double().numpy()
        for image in IMAGES:
            clean = images.load(image, size=SIZE).mean(dim=0, keepdim=True)
            task = tasks.denoise(clean, noise_sigma=SIGMA)
            found = expand(ntk, task, probes=1, seed=seed)
            low, high = found.peak_bounds()
            told = high - low <= 0.6 or found.ceiling is not None
            # a kernel of low rank, as that of vit-conv3 here, ends in float32's rounding
            assert told or found.space.invariant
            residual = (clean.double() - dense.image.double()).flatten().numpy()
            # the very probe: what is left to the band are products and rounding
            times = GradientFlow(found.times)
            partial = dataclasses.replace(found, space=dataclasses.replace(found.space, size=10**6))
            band = partial._errors(times, 0.0)
            left = times.decay(spectrum.values)
            bias = np.square(left * (spectrum.vectors.T @ residual)).sum(axis=1)
            noise = np.square((1 - left) * (spectrum.vectors.T @ probes)).sum(axis=1)
            dense_mse = (bias + SIGMA**2 * noise) / len(residual)
            # dense algebra in float64 rounds at 1e-9 of an error of this size
            assert (band.lower[:, 0] <= dense_mse * (1 + 1e-7)).all()
            assert (band.upper[:, 0] >= dense_mse * (1 - 1e-7)).all()
            # and the peak, with four standard errors of the probe
            errors, truth = (
                found._errors(times, 4.0),
                bias + SIGMA**2 * np.square(1 - left).sum(axis=1),
            )
            truth = truth.min() / len(residual)
            assert errors.lower[:, 0].min() <= truth * (1 + 1e-7)
            assert errors.upper[:, 0].min() >= truth * (1 - 1e-7)
