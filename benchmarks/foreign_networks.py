"""Networks of other libraries as priors: images, fits, kernels, scores and samples, one row each.

A row's right answers are those of the plain module, by torch's own backward passes, in float64:

- ``image``: ``prior.image(parameters)`` against ``prior.module(parameters)(code)``, relative to
  its size;
- ``kernel``: ``w . K v`` against ``J^T w . J^T v``, and ``trace`` of two pixels, likewise;
- ``fit``, ``score``, ``sample``: a few iterations of each, which end in finite numbers.

Needs an environment of its own, for torchvision takes another torch, which the libraries fetch
unless it's there: ``pip install timm deepinv diffusers transformers segmentation-models-pytorch
monai siren-pytorch x-transformers einops`` beside this package. Libraries that can't be imported
are left out, and said.

Usage: ``python benchmarks/foreign_networks.py [names]``; ``--seconds`` ends what takes longer.
"""

import argparse
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from foreign_rows import LIBRARIES, Row
from foreign_transformers import transformers_rows
from torch import Tensor, nn

from dipkernels import tasks
from dipkernels.fitting import fit
from dipkernels.kernels import NTK
from dipkernels.networks import ImagePrior
from dipkernels.sampling import WeightPosterior, sample
from dipkernels.theory import score


class TooSlowError(Exception):
    """Time is up."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """End what takes longer."""

    def stop(*_: object) -> None:
        raise TooSlowError(f"over {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def gradient(module: nn.Module, image: Tensor, v: Tensor) -> Tensor:
    """Multiply by the Jacobian's transpose, by plain torch."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    module.zero_grad()
    image.flatten().backward(v, retain_graph=True)
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
    )


def call(module: nn.Module, code: Any) -> Any:
    """Call a module with a code."""
    if isinstance(code, dict):
        return module(**code)
    return module(*code) if isinstance(code, tuple) else module(code)


def measure(row: Row, seconds: int) -> dict[str, str]:
    """Compare one network."""
    found: dict[str, str] = {}

    def attempt(name: str, run: Callable[[], str]) -> None:
        try:
            with limited(seconds):
                found[name] = run()
        except Exception as error:  # whatever a foreign network does
            found[name] = f"{type(error).__name__}: {str(error)[:150]}".replace("\n", " ")

    made: dict[str, Any] = {}

    def image() -> str:
        prior = ImagePrior(row.factory, row.code, output=row.output)
        made["single"] = prior
        made["prior"] = prior = prior.to(dtype=torch.float64)
        made["parameters"] = parameters = prior.init(1)
        made["module"] = module = prior.module(parameters)
        out = call(module, prior.code)
        made["image"] = plain = (out if row.output is None else row.output(out))[0]
        apart = (prior.image(parameters) - plain.detach()).abs().max()
        return f"{float(apart / plain.detach().abs().max()):.0e}"

    def kernel() -> str:
        ntk = NTK(made["prior"], made["parameters"])
        rng = torch.Generator().manual_seed(1)
        v, w = torch.randn(2, ntk.shape[0], generator=rng, dtype=torch.float64)
        left, right = (gradient(made["module"], made["image"], each) for each in (w, v))
        size = float(left.norm() * right.norm())
        return f"{abs(float(w @ (ntk @ v)) - float(left @ right)) / size:.0e}"

    attempt("image", image)
    if "image" not in made:
        return found
    attempt("kernel", kernel)
    prior = made["single"]
    task = tasks.denoise(
        torch.rand(prior.shape, generator=torch.Generator().manual_seed(2)), noise_sigma=0.1
    )
    attempt(
        "fit",
        lambda: f"{float(fit(prior, task, iterations=5, learning_rate=1e-3)['loss'][-1]):.3f}",
    )
    attempt(
        "score",
        lambda: f"{float(score(prior, task, method='lanczos', steps=20)['psnr'].mean()):.1f}",
    )

    def samples() -> str:
        n = row.iterations
        chains = sample(WeightPosterior(prior, task), iterations=n, burn_in=n // 3, chains=2)
        anew = chains.attrs["retreats"]
        return f"{float(chains['mean'].mean()):.2f}" + f" ({anew} times anew)" * bool(anew)

    attempt("sample", samples)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of names; by default all")
    parser.add_argument("--seconds", type=int, default=120, help="of each measurement, at most")
    arguments = parser.parse_args()
    columns = ("image", "kernel", "fit", "score", "sample")
    good = dict.fromkeys(columns, 0)
    rows = 0
    warnings.simplefilter("ignore")
    print(" | ".join(("network", *columns, "seconds")))
    for library in (*LIBRARIES, transformers_rows):
        try:
            networks = list(library())
        except ImportError as error:
            print(f"left out: {library.__name__.removesuffix('_rows')} ({error})", flush=True)
            continue
        for name, row in networks:
            if arguments.names and not any(part in name for part in arguments.names):
                continue
            began = time.perf_counter()
            found = measure(row, arguments.seconds)
            rows += 1
            for column in columns:
                good[column] += is_right(column, found.get(column, "none"))
            cells = [found.get(column, "-") for column in columns]
            print(" | ".join((name, *cells, f"{time.perf_counter() - began:.0f}")), flush=True)
    print(f"right of {rows}: " + ", ".join(f"{column} {count}" for column, count in good.items()))


def is_right(column: str, cell: str) -> bool:
    """Judge a cell: finite, and equal to plain torch's to 1e-8 where it's compared."""
    try:
        value = float(cell.split(" (")[0])
    except ValueError:
        return False
    return (
        value == value
        and abs(value) != float("inf")
        and (column not in ("image", "kernel") or value < 1e-8)
    )


if __name__ == "__main__":
    sys.exit(main())
