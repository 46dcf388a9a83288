"""Cost of a product with the empirical NTK, as ratios in one run.

1. One product ``J (J^T v)`` with the linearised network against one training step (forward,
   backward, Adam) on the same network: by operations, the least is 4/3, since a backward pass and
   a tangent pass are two forward passes each, and a step without its update is three.
2. The same product by ``torch.func.jvp`` of ``torch.func.vjp``, which runs the network again.
3. A block of products together against one by one: the least is what the operations allow, 1.

Usage: ``python benchmarks/ntk.py --priors skip vit --size 64 --device cpu``
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp, vjp

from dipkernels import networks
from dipkernels.kernels import NTK
from dipkernels.networks import ImagePrior


def training_step(prior: ImagePrior) -> Callable[[], object]:
    """Make the step that everything is measured against."""
    leaves = {k: v.clone().requires_grad_() for k, v in prior.init(0).items()}
    target = torch.full(prior.shape, 0.5, device=prior.device)
    optimiser = torch.optim.Adam(leaves.values(), lr=1e-4, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        (prior.image(leaves) - target).square().mean().backward()
        optimiser.step()

    return step


def plain_product(prior: ImagePrior, v: Tensor) -> Callable[[], object]:
    """Make what a user would write: both passes through the network, every time."""
    parameters = prior.init(0)

    def product() -> Tensor:
        _, pull = vjp(prior.image, parameters)
        _, tangent = jvp(prior.image, (parameters,), (pull(v.reshape(prior.shape))[0],))
        return tangent

    return product


def timed(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Run the jobs in turn, so that a slow moment of the machine hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(repeats + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:  # the first is a warm-up
                times[name].append(time.perf_counter() - start)
    return times


def ratio(times: dict[str, list[float]], one: str, other: str) -> str:
    """Median of the ratios of neighbouring runs, with their quartiles."""
    ratios = sorted(a / b for a, b in zip(times[one], times[other], strict=True))
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    return f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Print one line a prior and ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--priors", nargs="+", default=["skip", "deep-decoder", "vit", "swin"])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--block", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    print(
        f"{arguments.size}x{arguments.size}, {arguments.device}, {torch.get_num_threads()} threads"
    )
    for name in arguments.priors:
        prior = networks.create(name, image_size=arguments.size).to(device=arguments.device)
        start = time.perf_counter()
        ntk = NTK(prior, prior.init(0))
        tracing = time.perf_counter() - start
        block = ntk.rademacher(arguments.block, 0)
        jobs = {
            "step": training_step(prior),
            "product": lambda ntk=ntk, v=block[:, 0]: ntk @ v,
            "plain": plain_product(prior, block[:, 0]),
            "block": lambda ntk=ntk, block=block: ntk @ block,
            "columns": lambda ntk=ntk, block=block: [ntk @ v for v in block.T],
        }
        times = timed(jobs, arguments.repeats)
        print(
            f"{name}: step {statistics.median(times['step']) * 1e3:.0f} ms, tracing {tracing:.1f} s"
        )
        print(f"  product / training step         {ratio(times, 'product', 'step')}   limit 1.33")
        print(f"  jvp of vjp / training step      {ratio(times, 'plain', 'step')}")
        print(
            f"  block of {arguments.block} / one by one        {ratio(times, 'block', 'columns')}"
        )


if __name__ == "__main__":
    main()
