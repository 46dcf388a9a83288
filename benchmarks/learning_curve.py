"""Predicted learning curves against the fits that they predict: dB at the peak, and time.

A network is fitted to one noisy image by gradient descent, with or without momentum, past the peak
of its PSNR to the clean image. The same is predicted from Krylov spaces of its kernel at
initialisation: for this measurement (realised noise) and in the mean over noises (expected), each
from the same number of products. A line says where both peak and how high; whether the prediction's
numerics tell a peak at all; the time of the prediction in that of the fit; and the limit that it
can't go below, the products' time in that of the fit's steps, from timing one of each.

Usage: ``python benchmarks/learning_curve.py --networks wide --widths 64 256 --iterations 8000``
       ``python benchmarks/learning_curve.py --networks conv-decoder --momentum 0.95``
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from dipkernels import NTK, fit, images, networks, tasks
from dipkernels.fitting import stable_learning_rate
from dipkernels.networks import ImagePrior
from dipkernels.stopping import stopping_time
from dipkernels.theory import Dynamics, GradientDescent, Momentum, expand, learning_curve

POINTS = 400  # iterations at which a prediction is evaluated


class Wide(nn.Module):
    """Convolution, x4 bilinear upsampling, ReLU, convolution; no normalisation, no sigmoid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(32, width, 3, padding=1, bias=False)
        self.last = nn.Conv2d(width, 3, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.last.weight, nonlinearity="linear")

    def forward(self, code: Tensor) -> Tensor:
        """Make the image."""
        hidden = nn.functional.interpolate(self.first(code), scale_factor=4, mode="bilinear")
        image: Tensor = self.last(torch.relu(hidden))
        return image


def make(name: str, width: int, size: int) -> ImagePrior:
    """Make a network of a width."""
    if name == "wide":
        generator = torch.Generator().manual_seed(0)
        code = torch.randn(1, 32, size // 4, size // 4, generator=generator)
        return ImagePrior(functools.partial(Wide, width), code)
    return networks.create(name, image_size=size, width=width)


def timed(call: Callable[[], object]) -> tuple[object, float]:
    """Call it, and say how many seconds it took."""
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def predict(ntk: NTK, task: tasks.Task, dynamics: Dynamics, matvecs: int, noise: str) -> xr.Dataset:
    """Predict from so many products, half of them for the variance if noise is expected."""
    if noise == "realised":
        expansion = expand(ntk, task, noise="realised", steps=matvecs, tolerance=0)
        return learning_curve(expansion, dynamics)
    expansion = expand(ntk, task, steps=matvecs // 2, tolerance=0, probes=1)
    return learning_curve(expansion, dynamics)


def physical(ntk: NTK, prior: ImagePrior, task: tasks.Task, repeats: int = 9) -> float:
    """Time a product and a training step in turn; the median of their ratios."""
    leaves = {k: v.clone().requires_grad_() for k, v in ntk.parameters.items()}
    vector = ntk.rademacher(1, 0)

    def step() -> None:
        torch.autograd.grad(task.misfit(prior.image(leaves)), list(leaves.values()))

    return statistics.median(
        timed(lambda: ntk @ vector)[1] / timed(step)[1] for _ in range(repeats)
    )


def compare(arguments: argparse.Namespace, name: str, width: int) -> None:
    """Print a block of lines for a network of a width."""
    task = tasks.denoise(
        images.load(arguments.image, size=arguments.size), noise_sigma=arguments.sigma
    )
    prior = make(name, width, arguments.size)
    ntk = NTK(prior, prior.init(0))
    rate = arguments.step * stable_learning_rate(ntk)
    momentum, outputs = arguments.momentum, ntk.shape[0]
    method = (
        {"optimiser": "sgd", "momentum": momentum}
        if momentum
        else {"optimiser": "gradient-descent"}
    )
    result, spent = timed(
        lambda: fit(
            prior, task, learning_rate=rate, iterations=arguments.iterations, seed=0, **method
        )
    )
    measured = result.psnr_clean.sel(region="whole").values
    best = int(np.nanargmax(measured))
    ended = measured[np.isfinite(measured)][-1]
    print(
        f"{name}, width {width}, {task.shape}, sigma {arguments.sigma:g}, momentum {momentum:g}: "
        f"fit of {arguments.iterations} iterations {spent:.0f} s; "
        f"peak {measured[best]:.2f} dB at {best}, {ended:.2f} dB at the end",
        flush=True,
    )
    at = np.unique(np.geomspace(1, arguments.iterations, POINTS).astype(int))
    at = np.insert(at, 0, 0)
    dynamics: Dynamics = GradientDescent.of_fit(rate, at, outputs)
    if momentum:
        dynamics = Momentum.of_fit(rate, momentum, at, outputs)
    unit = physical(ntk, prior, task)
    for noise in ("realised", "expected"):
        for matvecs in arguments.matvecs:
            make_curve = functools.partial(predict, ntk, task, dynamics, matvecs, noise)
            curve, cost = timed(make_curve)
            psnr = curve.psnr.sel(region="whole").values
            where, found = int(np.argmax(psnr)), stopping_time(curve)
            there = curve.sel(region="whole").isel(iteration=where)
            width_there = float(there.psnr_upper - there.psnr_lower)
            print(
                f"  {noise:8} {curve.matvecs:4} products: peak {psnr[where]:6.2f} dB at "
                f"{at[where]:6}"
                f"  predicted - measured {psnr[where] - measured[best]:+.2f} dB"
                f"  ({'resolved' if found.resolved else 'NOT resolved'}, band {width_there:.2f} dB)"
                f"  stopping there costs {measured[best] - measured[at[where]]:.2f} dB"
                f"  time / fit {100 * cost / spent:.1f} %"
                f"  (products alone {100 * curve.matvecs * unit / arguments.iterations:.1f} %)",
                flush=True,
            )


def main() -> None:
    """Print a block of lines for every network and width."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["wide"])
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--sigma", type=float, default=25 / 255)
    parser.add_argument("--step", type=float, default=1.0, help="1 over the largest eigenvalue")
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--iterations", type=int, default=8000)
    parser.add_argument("--matvecs", nargs="+", type=int, default=[50, 100, 200])
    parser.add_argument("--image", default="astronaut")
    arguments = parser.parse_args()
    for name in arguments.networks:
        for width in arguments.widths:
            compare(arguments, name, width)


if __name__ == "__main__":
    main()
