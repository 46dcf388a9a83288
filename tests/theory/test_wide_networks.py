"""Predictions for real networks, against fits of them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import NTK, ImagePrior, fit, images, tasks
from dipkernels.fitting import stable_learning_rate
from dipkernels.theory import Dynamics, GradientDescent, Momentum, expand, learning_curve


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


@pytest.mark.slow
@pytest.mark.parametrize(("momentum", "iterations"), [(0.0, 330), (0.8, 75)])
def test_a_wide_decoder_peaks_where_its_kernel_says(momentum: float, iterations: int) -> None:
    width, seed = 256, 0
    clean = images.load("astronaut", size=(16, 20))
    code = torch.randn(1, 16, 4, 5, generator=torch.Generator().manual_seed(0))
    prior = ImagePrior(lambda: WideDecoder(16, width, 3), code)
    ntk = NTK(prior, prior.init(seed))
    rate = stable_learning_rate(ntk)
    task = tasks.denoise(clean, noise_sigma=0.5)
    dynamics: Dynamics = GradientDescent.of_fit(rate, iterations, clean.numel())
    settings: dict[str, Any] = {"optimiser": "gradient-descent"}
    if momentum:
        dynamics = Momentum.of_fit(rate, momentum, iterations, clean.numel())
        settings = {"optimiser": "sgd", "momentum": momentum}
    measured = fit(prior, task, learning_rate=rate, iterations=iterations, seed=seed, **settings)
    curve = learning_curve(expand(ntk, task, noise="realised", steps=60, tolerance=0), dynamics)
    assert curve.peak_resolved == 1
    predicted, seen = (x.sel(region="whole").values for x in (curve.psnr, measured.psnr_clean))
    # a true peak of both: risen to it by decibels, and fallen again by the end
    for psnr in (predicted, seen):
        assert psnr.max() - psnr[0] > 5
        assert psnr.max() - psnr[-1] > 0.2
    # all that is left is the departure from the linearisation
    assert abs(predicted.max() - seen.max()) < 0.1
    peak = max(predicted.argmax(), seen.argmax())
    np.testing.assert_allclose(predicted[: peak + 1], seen[: peak + 1], atol=0.1)
    assert predicted.argmax() == pytest.approx(seen.argmax(), rel=0.1)
