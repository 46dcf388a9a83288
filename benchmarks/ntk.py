"""Cost of products with the empirical NTK, as ratios in one run, and its peak memory.

1. One product ``J (J^T v)`` with the linearised network against one training step (forward,
   backward, Adam) on the same network. By the operations of the matrix products 4/3: a backward
   pass and a tangent pass are two forward passes each, and a step is three. Target 1.2.
2. The same product by ``torch.func.jvp`` of ``torch.func.vjp``, which runs the network again.
3. A quadratic form, which is a backward pass alone: by operations 2/3.
4. A block of products together against one by one: the least is what the operations allow, 1,
   where one product keeps the device busy.
5. The quadratic forms of all layers against that of the whole; products of all layers against
   one each (with ``--layers``).
6. The log-log slope of a product's time against pixels (with several ``--sizes``). Target 1.0.
7. Peak memory of fresh processes that compute few and many eigenpairs in bases of given sizes
   (with ``--memory SIZE``). Target at 512x512x3: under 12 GB, growing by the basis alone.

Usage: ``python benchmarks/ntk.py --priors skip vit --sizes 64 128 --device cpu``; the long run is
``python benchmarks/ntk.py --priors skip --sizes 64 128 256 512 --memory 512``.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.func import jvp, vjp

from dipkernels import networks
from dipkernels.kernels import NTK
from dipkernels.networks import ImagePrior

Jobs = dict[str, Callable[[], object]]


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


def timed(jobs: Jobs, repeats: int) -> dict[str, list[float]]:
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


def compare(name: str, arguments: argparse.Namespace) -> None:
    """Print the ratios of one prior at every size, and the slope over the sizes."""
    medians = []
    for size in arguments.sizes:
        prior = networks.create(name, image_size=size).to(device=arguments.device)
        start = time.perf_counter()
        ntk = NTK(prior, prior.init(0))
        tracing = time.perf_counter() - start
        v = ntk.rademacher(1, 0)
        jobs: Jobs = {
            "step": training_step(prior),
            "product": lambda ntk=ntk, v=v: ntk @ v,
            "plain": plain_product(prior, v[:, 0]),
            "form": lambda ntk=ntk, v=v: ntk.quadratic_form(v),
        }
        times = timed(jobs, arguments.repeats)
        medians.append(statistics.median(times["product"]))
        step = statistics.median(times["step"])
        print(f"{name} {size}x{size}: step {step * 1e3:.0f} ms, tracing {tracing:.1f} s")
        print(f"  product / training step          {ratio(times, 'product', 'step')}")
        print(f"  jvp of vjp / training step       {ratio(times, 'plain', 'step')}")
        print(f"  quadratic form / training step   {ratio(times, 'form', 'step')}")
        if size == min(arguments.sizes):
            compare_blocks(ntk, arguments)
    if len(medians) > 1:
        pixels = np.log([size**2 for size in arguments.sizes])
        slope = np.polyfit(pixels, np.log(medians), 1)[0]
        print(f"  slope of time against pixels     {slope:.2f}")


def compare_blocks(ntk: NTK, arguments: argparse.Namespace) -> None:
    """Print the ratios of blocks and of layers, at the smallest size only."""
    block = ntk.rademacher(arguments.block, 0)
    jobs: Jobs = {
        "block": lambda: ntk @ block,
        "columns": lambda: [ntk @ v for v in block.T],
    }
    if arguments.layers:
        layers = ntk.by_layer()
        jobs |= {
            "form": lambda: ntk.quadratic_form(block[:, :1]),
            "forms": lambda: layers.quadratic_form(block[:, :1]),
            "products": lambda: layers.products(block[:, :1]),
            "product each": lambda: [layers[name] @ block[:, :1] for name in layers.names],
        }
    times = timed(jobs, max(2, arguments.repeats // 3))
    print(f"  {arguments.block:2} together / one by one         {ratio(times, 'block', 'columns')}")
    if arguments.layers:
        print(f"  forms of all layers / of whole   {ratio(times, 'forms', 'form')}")
        print(f"  products of all layers / each    {ratio(times, 'products', 'product each')}")


MEMORY = """
import time
start = time.perf_counter()
import dipkernels.networks as networks
from dipkernels.kernels import NTK
from dipkernels.priors.memory import resident_bytes
def peak():
    return resident_bytes() / 1e9
prior = networks.create({name!r}, image_size={size})
ntk = NTK(prior, prior.init(0))
made = peak()
pairs = ntk.top_eigenpairs({k}, basis={basis}, max_matvecs={products}, tolerance=0.0)
vectors = (min({basis}, {products} + 2) + len(pairs.values)) * ntk.shape[0] * 8e-9
print(f"  {k:3} eigenpairs in a basis of {basis:3}: linearised {{made:.2f}} GB, at the end "
      f"{{peak():.2f}} GB, of which basis and eigenvectors {{vectors:.2f}} GB "
      f"({{pairs.matvecs}} products, {{time.perf_counter() - start:.0f}} s)")
"""


def measure_memory(name: str, size: int, products: int) -> None:
    """Print the peak of processes that differ in eigenpairs and bases."""
    print(f"{name} {size}x{size}: peak memory of a fresh process on the CPU", flush=True)
    for k, basis in ((1, 5), (16, 24)):
        script = MEMORY.format(name=name, size=size, k=k, basis=basis, products=products)
        subprocess.run([sys.executable, "-c", script], check=True)


def main() -> None:
    """Print one line a prior and ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--priors", nargs="+", default=["skip", "deep-decoder", "vit", "swin"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[64])
    parser.add_argument("--block", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--memory", type=int, metavar="SIZE")
    parser.add_argument("--memory-products", type=int, default=24)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    print(f"{arguments.device}, {torch.get_num_threads()} threads")
    for name in arguments.priors:
        compare(name, arguments)
        if arguments.memory:
            measure_memory(name, arguments.memory, arguments.memory_products)


if __name__ == "__main__":
    main()
