"""Gaussian-process inpainting by FFTs against dense matrices, and at 512x512.

Run as ``python benchmarks/gp.py [threads]``. Half of the pixels of the bundled image `camera` are
known, with the squared-exponential kernel whose scales the literature learned at 64x64. Prints for
64x64: seconds of the dense inverse, of a Cholesky solve and of this package, the ratios, and how
far the three are apart; then seconds, iterations and memory at 512x512, and beside them what
the products would cost if they did nothing but move their numbers through memory.
"""

import math
import resource
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
BANDWIDTH = 1e10  # bytes a second: one core of an ordinary machine


def best(function: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    """Least time of several, and the result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


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
    inverse_seconds, exact = best(lambda: dense(small, inverse=True), 2)
    cholesky_seconds, check = best(lambda: dense(small, inverse=False), 2)
    seconds, found = best(lambda: process.posterior(small, SIGMA).mean, 20)
    print(
        f"64x64: dense inverse {inverse_seconds:.3f} s, Cholesky {cholesky_seconds:.3f} s, FFTs "
        f"{seconds:.4f} s: {inverse_seconds / seconds:.0f} and {cholesky_seconds / seconds:.0f} "
        f"times faster; largest difference {float((found - exact).abs().max()):.1e}, between the "
        f"dense two {float((check - exact).abs().max()):.1e}"
    )
    large = problem(512)
    start = time.perf_counter()
    posterior = process.posterior(large, SIGMA)
    psnr = float(large.psnr(posterior.mean, "whole"))
    seconds = time.perf_counter() - start
    solution = posterior.solution
    torus = math.prod(process.covariance((512, 512)).torus)
    # 4 real FFTs an iteration, each reading and writing all along both axes, and 10 vectors.
    moved = solution.iterations * 8 * torus * (4 * 4 + 10) if solution else 0
    flops = solution.iterations * 4 * 2.5 * torus * math.log2(torus) if solution else 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"512x512: {seconds:.2f} s for {solution}, {psnr:.2f} dB; moving {moved / 1e9:.1f} GB "
        f"({flops / 1e9:.1f} GFLOP) would take {moved / BANDWIDTH:.2f} s at 10 GB/s; peak of the "
        f"process, with the dense 64x64, {peak:.2f} GB"
    )


if __name__ == "__main__":
    main()
