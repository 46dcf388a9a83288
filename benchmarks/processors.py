"""The same seed on other processors and thread counts: how far do fits and kernels move.

Every case is a process of its own: torch and oneDNN choose their instructions when they are loaded,
from the environment, so that one machine imitates older ones. A case fits a network as
``dipkernels compare`` does by default (astronaut, sigma 25/255, Adam), applies its kernel at
initialisation to one vector and predicts the peak of gradient flow, and is stored in
``OUTPUT/NETWORK/CASE.nc``; the next run of the same command goes on from there.

Printed as two tables. First, for each network: whether the same case again gives the same bits;
how far images are from those of the first case, relative, at most over the other processors and
thread counts; the kernel's product and predicted peak likewise. Second: the peak of every case, its
standard deviation over processors and threads, and over the seeds of initialisation on one of them.

Usage: ``python benchmarks/processors.py --output runs/processors --limit 600``
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

PROCESSORS = {
    "native": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "SSE4.1": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
SLOW = ("swin",)  # fitted on two processors only
NETWORKS = ("deep-decoder", "skip", "vit", "conv3-vit", "vit-conv3", *SLOW)
KEPT = (0, 1, 10, 100)  # iterations whose images are compared
STEPS = 40  # of Lanczos, for the predicted peak


@dataclass(frozen=True)
class Case:
    """One process: what it imitates, and the seed of its initialisation."""

    processor: str
    threads: int
    seed: int = 0
    again: bool = False

    @property
    def name(self) -> str:
        """Of the file."""
        ending = "-again" if self.again else ""
        return f"{self.processor}-{self.threads}-seed{self.seed}{ending}"


# In order of worth: processors and threads, the same again, other seeds.
FIRST = Case("native", 2)
MACHINES = (
    FIRST,
    Case("native", 1),
    Case("AVX2", 1),
    Case("SSE4.1", 1),
    Case("AVX2", 2),
    Case("SSE4.1", 2),
)
AGAIN = (Case("native", 1, again=True), Case("native", 2, again=True))
SEEDS = (Case("native", 1), Case("native", 1, seed=1), Case("native", 1, seed=2))


def cases(network: str) -> tuple[Case, ...]:
    """All of a network, in the order of their worth."""
    if network in SLOW:
        return (*MACHINES[:4], SEEDS[1])
    return (*MACHINES[:2], SEEDS[1], *MACHINES[2:4], AGAIN[0], SEEDS[2], AGAIN[1], *MACHINES[4:])


def run(network: str, case: Case, path: Path, size: int) -> None:
    """Run a case in a process of its own, in the environment of its processor."""
    environment = {**os.environ, **PROCESSORS[case.processor]}
    command = [sys.executable, __file__, "--child", network, "--size", str(size)]
    command += ["--seed", str(case.seed), "--threads", str(case.threads), "--output", str(path)]
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, check=True, env=environment)


def child(network: str, seed: int, threads: int, size: int, path: Path) -> None:
    """Fit a network, measure its kernel, and store both."""
    import numpy as np
    import torch
    import xarray as xr

    from dipkernels import NTK, fit, images, tasks
    from dipkernels.priors.prior import Parameters
    from dipkernels.stages.comparison import ComparisonSettings, make_priors
    from dipkernels.storage import netcdf as results
    from dipkernels.theory import expand, learning_curve

    torch.set_num_threads(threads)
    task = tasks.denoise(images.load("astronaut", size=size))
    prior = make_priors([network], task)[network]
    effort = ComparisonSettings().effort(network)
    kept: dict[int, np.ndarray] = {}

    def keep(iteration: int, image: torch.Tensor, _: Parameters) -> None:
        if iteration in KEPT:
            kept[iteration] = image.cpu().numpy().copy()

    result = fit(
        prior,
        task,
        iterations=effort.adam,
        learning_rate=effort.learning_rate,
        seed=seed,
        callback=keep,
    )
    ntk = NTK(prior, prior.init(seed))
    vector = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], ntk.shape[0]))
    product = (ntk @ vector.to(prior.dtype)).numpy()
    prediction = learning_curve(expand(ntk, task, noise="realised", steps=STEPS, tolerance=0))
    stored = xr.Dataset(
        {
            "psnr_clean": ("iteration", result.psnr_clean.sel(region="whole").values),
            "final": (("channel", "y", "x"), result.final.values),
            "product": ("output", product),
        },
        attrs={
            "peak_psnr": result.peak_psnr,
            "peak_iteration": result.peak_iteration,
            "predicted_peak_psnr": prediction.peak_psnr,
            "largest_eigenvalue": prediction.largest_eigenvalue,
            "seconds": result.seconds,
            "capability": torch.backends.cpu.get_cpu_capability(),
        },
    )
    for iteration, image in kept.items():
        stored[f"image_{iteration}"] = (("channel", "y", "x"), image)
    results.save(stored, path)


def relative(found: "xr.DataArray", expected: "xr.DataArray") -> float:
    """Distance over the norm of what is expected."""
    difference = found.astype(float) - expected.astype(float)
    return float(((difference**2).sum() / (expected.astype(float) ** 2).sum()) ** 0.5)


def same_bits(first: "xr.Dataset", again: "xr.Dataset") -> bool:
    """Whether everything but the time taken is equal, bit for bit."""
    return bool(
        first.drop_attrs().identical(again.drop_attrs())
        and all(first.attrs[key] == again.attrs[key] for key in first.attrs if key != "seconds")
    )


def movement(network: str, found: "dict[Case, xr.Dataset]") -> str:
    """Make a row of the first table."""
    first = found[FIRST]
    others = [found[case] for case in MACHINES if case in found and case != FIRST]
    pairs = [(found.get(Case(a.processor, a.threads)), found.get(a)) for a in AGAIN]
    repeats = [same_bits(a, b) for a, b in pairs if a is not None and b is not None]
    bits = {True: "yes", False: "no"}[all(repeats)] if repeats else "-"
    names = [f"image_{i}" for i in KEPT if f"image_{i}" in first] + ["final", "product"]
    cells = [f"{max(relative(x[name], first[name]) for x in others):.0e}" for name in names]
    if len(names) < len(KEPT) + 2:
        cells.insert(len(names) - 2, "-")
    moved = max(abs(x.predicted_peak_psnr - first.predicted_peak_psnr) for x in others)
    return " | ".join(["", f"`{network}`", bits, *cells, f"{moved:.0e}", ""]).strip()


def peaks(network: str, found: "dict[Case, xr.Dataset]") -> str:
    """Make a row of the second table."""

    def spread(cases: tuple[Case, ...]) -> str:
        values = [float(found[case].peak_psnr) for case in cases if case in found]
        return f"{statistics.stdev(values):.2f} ({len(values)})" if len(values) > 1 else "-"

    def cell(case: Case) -> str:
        if case not in found:
            return "-"
        return f"{found[case].peak_psnr:.2f} @ {found[case].peak_iteration}"

    order = sorted(
        MACHINES, key=lambda case: (list(PROCESSORS).index(case.processor), case.threads)
    )
    cells = [f"`{network}`", *map(cell, order), spread(MACHINES), spread(SEEDS)]
    return f"| {' | '.join(cells)} |"


def report(output: Path, networks: list[str]) -> None:
    """Print both tables, of what is there."""
    from dipkernels.storage import netcdf as results

    tables: dict[str, list[str]] = {"movement": [], "peaks": []}
    for network in networks:
        paths = {case: output / network / f"{case.name}.nc" for case in cases(network)}
        found = {case: results.load(path) for case, path in paths.items() if path.exists()}
        if FIRST in found and any(case in found for case in MACHINES[1:]):
            tables["movement"].append(movement(network, found))
            tables["peaks"].append(peaks(network, found))
    images = [f"image {i}" for i in KEPT]
    order = [f"{name}, {threads}" for name in PROCESSORS for threads in (1, 2)]
    heads = {
        "movement": ["network", "repeats", *images, "last", "product", "predicted dB"],
        "peaks": ["network", *order, "over processors", "over seeds"],
    }
    for name, head in heads.items():
        print(f"\n| {' | '.join(head)} |", "|---" * len(head) + "|", *tables[name], sep="\n")


def main() -> int:
    """Run what isn't done; the exit code is 1 while something is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("runs/processors"))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds; then none is begun")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    if arguments.child:
        child(arguments.child, arguments.seed, arguments.threads, arguments.size, output)
        return 0
    end = time.monotonic() + arguments.limit
    # what is of most worth first, of every network
    ranked = itertools.zip_longest(*(cases(network) for network in arguments.networks))
    wanted = [
        (network, case)
        for rank in ranked
        for network, case in zip(arguments.networks, rank, strict=True)
        if case is not None
    ]
    missing = [(n, case) for n, case in wanted if not (output / n / f"{case.name}.nc").exists()]
    while missing and time.monotonic() < end:
        network, case = missing.pop(0)
        start = time.perf_counter()
        run(network, case, output / network / f"{case.name}.nc", arguments.size)
        print(f"{network} {case.name}: {time.perf_counter() - start:.0f} s", flush=True)
    if missing:
        print(f"{len(missing)} cases are missing: the same command goes on")
    report(output, arguments.networks)
    return bool(missing)


if __name__ == "__main__":
    raise SystemExit(main())
