"""Exact polyphase kernels of a decoder: time and memory against the image's side.

Run as ``python benchmarks/polyphase.py [side]``; 256 is five doublings of an 8x8 code, period 32.
Prints one line: seconds of the exact recursion and of its stationary closure, peak memory, and how
far the closure is from the exact covariance (relative Frobenius error).
"""

import math
import resource
import sys
import time

from dipkernels.kernels.stationary import (
    StationaryKernel,
    Weights,
    activate,
    convolve,
    upsample,
)

WEIGHTS = Weights.ntk(2.0)


def decoder(side: int, doublings: int, mode: str, max_period: int | None) -> StationaryKernel:
    """Recur through doubling, 3x3 convolution and leaky ReLU."""
    kernel = convolve(StationaryKernel.white((side, side)), 3, WEIGHTS)
    for _ in range(doublings):
        kernel = upsample(kernel, 2, mode, max_period=max_period)
        kernel = activate(convolve(kernel, 3, WEIGHTS), "leaky-relu")
    return convolve(kernel, 1, WEIGHTS)


def main() -> None:
    """Measure."""
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    doublings = 5
    start = time.perf_counter()
    exact = decoder(side // 2**doublings, doublings, "bilinear", None)
    exact_seconds = time.perf_counter() - start
    start = time.perf_counter()
    closed = decoder(side // 2**doublings, doublings, "bilinear", 1)
    closed_seconds = time.perf_counter() - start
    errors = []
    for table, lags in (
        (exact.covariance_table, closed.covariance),
        (exact.ntk_table, closed.ntk),
    ):
        squares = sum(float((slab - lags).square().sum()) for slab in table)
        errors.append(math.sqrt(squares / float(table.square().sum())))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{exact}: exact {exact_seconds:.1f} s, closure {closed_seconds:.3f} s, "
        f"peak {peak:.2f} GB, tables {2 * exact.covariance_table.numel() * 8 / 2**30:.2f} GB; "
        f"closure's error: covariance {errors[0]:.4f}, tangent kernel {errors[1]:.4f}"
    )


if __name__ == "__main__":
    main()
