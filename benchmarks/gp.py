"""Gaussian-process inpainting by FFTs against dense matrices, and at 512x512.

Run as ``python benchmarks/gp.py [threads]``. Half of the pixels of the bundled image `camera` are
known, with the squared-exponential kernel whose scales the literature learned at 64x64. Prints for
64x64: seconds of the dense inverse, of a Cholesky solve and of this package, the ratios, and how
far the three are apart; then seconds, iterations and memory at 512x512, and beside them what
the products would cost if they did nothing but move their numbers through memory.
"""

import math
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from dipkernels import images, tasks
from dipkernels.gp import GaussianProcess, rbf

KERNEL = rbf(math.exp(0.67132), 0.03068)
SIGMA = math.exp(-5.40 / 2)
MEAN = 0.474
ROUNDS = 5
BANDWIDTH = 1e10  # bytes a second: one core of an ordinary machine


def timed(function: Callable[[], Tensor], repeats: int = 1) -> tuple[float, Tensor]:
    """Median time of several, and the result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def problem(side: int) -> tasks.Task:
    """Half of the pixels of `camera`."""
    clean = images.load("camera", size=side).double()
    return tasks.inpaint(clean, tasks.bernoulli_mask((side, side), known=0.5))


def dense(task: tasks.Task, *, inverse: bool) -> Tensor:
    """Posterior mean by matrices, as the literature computed it, or by Cholesky."""
    side = task.shape[1]
    where = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 2)
    # torch.cdist is only good to 1e-8 in its default mode
    distance = torch.cdist(where, where, compute_mode="donot_use_mm_for_euclid_dist")
    prior, known = KERNEL(distance), task.mask.flatten()
    noisy = prior[known][:, known] + SIGMA**2 * torch.eye(int(known.sum()), dtype=torch.float64)
    residual = task.measurement.flatten()[known] - MEAN
    if inverse:
        alpha = torch.linalg.inv(noisy) @ residual
    else:
        alpha = torch.cholesky_solve(residual[:, None], torch.linalg.cholesky(noisy))[:, 0]
    return (MEAN + prior[:, known] @ alpha).reshape(task.shape)


def main() -> None:
    """Measure."""
    if len(sys.argv) > 1:
        torch.set_num_threads(int(sys.argv[1]))
    process = GaussianProcess(KERNEL, MEAN)
    small = problem(64)
    seconds: dict[str, list[float]] = {"inverse": [], "Cholesky": [], "FFTs": []}
    for _ in range(ROUNDS):
        taken, exact = timed(lambda: dense(small, inverse=True))
        seconds["inverse"].append(taken)
        taken, check = timed(lambda: dense(small, inverse=False))
        seconds["Cholesky"].append(taken)
        taken, found = timed(lambda: process.posterior(small, SIGMA).mean, 9)
        seconds["FFTs"].append(taken)
    ratios = {
        name: spread([a / b for a, b in zip(seconds[name], seconds["FFTs"], strict=True)])
        for name in ("inverse", "Cholesky")
    }
    medians = ", ".join(f"{name} {statistics.median(t):.4f} s" for name, t in seconds.items())
    print(
        f"64x64: {medians}: FFTs are {ratios['inverse']} times faster than the inverse, "
        f"{ratios['Cholesky']} than Cholesky; largest difference "
        f"{float((found - exact).abs().max()):.1e}, between the dense two "
        f"{float((check - exact).abs().max()):.1e}"
    )
    large = problem(512)
    start = time.perf_counter()
    posterior = process.posterior(large, SIGMA)
    psnr = float(large.psnr(posterior.mean, "whole"))
    large_seconds = time.perf_counter() - start
    solution = posterior.solution
    torus = math.prod(process.covariance((512, 512)).torus)
    # 4 real FFTs an iteration, each reading and writing all along both axes, and 10 vectors.
    moved = solution.iterations * 8 * torus * (4 * 4 + 10) if solution else 0
    flops = solution.iterations * 4 * 2.5 * torus * math.log2(torus) if solution else 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"512x512: {large_seconds:.2f} s for {solution}, {psnr:.2f} dB; moving "
        f"{moved / 1e9:.1f} GB ({flops / 1e9:.1f} GFLOP) would take {moved / BANDWIDTH:.2f} s at "
        f"10 GB/s; peak of the process, with the dense 64x64, {peak:.2f} GB"
    )


if __name__ == "__main__":
    main()
