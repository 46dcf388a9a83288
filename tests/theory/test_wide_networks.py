"""Predictions for real networks, against fits of them."""

import functools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import NTK, ImagePrior, fit, images, tasks
from dipkernels.fitting import stable_learning_rate
from dipkernels.theory import GradientDescent, expand, learning_curve


class WideDecoder(nn.Module):
    """Convolution, x4 bilinear upsampling, ReLU, convolution; outputs of size 1 at any width."""

    def __init__(self, code_channels: int, width: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(code_channels, width, 3, padding=1, bias=False)
        self.last = nn.Conv2d(width, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.last.weight, nonlinearity="linear")
        self.upsample = nn.Upsample(scale_factor=4, mode="bilinear")

    def forward(self, code: Tensor) -> Tensor:
        image: Tensor = self.last(torch.relu(self.upsample(self.first(code))))
        return image


@functools.cache
def stacked_crops(size: tuple[int, int], count: int) -> Tensor:
    """Crops of one photograph as channels of one image: many outputs of one small network."""
    photograph = images.load("astronaut", size=96)
    rng = np.random.default_rng(0)
    crops = []
    for _ in range(count):
        top, left = (int(rng.integers(0, 96 - side + 1)) for side in size)
        crops.append(photograph[:, top : top + size[0], left : left + size[1]])
    return torch.cat(crops)


def test_a_wide_decoder_peaks_where_its_kernel_says() -> None:
    # The prediction averages over the noise, which moves the peak of one fit of an RGB crop of
    # this size by 0.3 dB. So there are 8 crops, and the errors of 4 fits are averaged: 0.06 dB.
    # What the linearisation misses is less, with the noise of one fit: 0.02 dB at its peak (0.1 dB
    # at width 64, 0.005 dB at 512).
    size, width, iterations, seed = (16, 20), 256, 220, 0
    clean = stacked_crops(size, 8)
    code = torch.randn(1, 16, 4, 5, generator=torch.Generator().manual_seed(0))
    prior = ImagePrior(lambda: WideDecoder(16, width, len(clean)), code)
    ntk = NTK(prior, prior.init(seed))
    rate = stable_learning_rate(ntk)
    noisy = [tasks.denoise(clean, noise_sigma=0.5, seed=draw) for draw in range(4)]
    fits = [
        fit(
            prior,
            task,
            optimiser="gradient-descent",
            learning_rate=rate,
            iterations=iterations,
            seed=seed,
        ).psnr_clean.sel(region="whole")
        for task in noisy
    ]
    measured = -10 * np.log10(np.mean([10 ** (-0.1 * psnr.values) for psnr in fits], axis=0))
    dynamics = GradientDescent.of_fit(rate, iterations, clean.numel())
    curve = learning_curve(expand(ntk, noisy[0], steps=60, probes=8, seed=seed), dynamics)
    predicted = curve.psnr.sel(region="whole").values
    # a true peak of both: risen to it by decibels, and fallen again by the end
    for psnr in (predicted, measured):
        assert psnr.max() - psnr[0] > 5
        assert psnr.max() - psnr[-1] > 0.2
    assert abs(predicted.max() - measured.max()) < 0.2
    assert curve.peak_resolved == 1
    assert curve.peak_psnr == pytest.approx(predicted.max())
    # and the whole way there
    peak = max(predicted.argmax(), measured.argmax())
    np.testing.assert_allclose(predicted[: peak + 1], measured[: peak + 1], atol=0.2)
    assert predicted.argmax() == pytest.approx(measured.argmax(), rel=0.15)
