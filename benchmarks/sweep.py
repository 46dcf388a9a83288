"""What the bookkeeping of a sweep costs a run, against the same functions in a plain loop.

A tiny fit (deep decoder, 8x8, one iteration) is made from scratch for every run: task, prior, fit.
The plain loop keeps nothing. The sweep hashes, locks, and writes three files a run onto the disk.
Both take turns in blocks of runs, so that a slow moment of the machine hits both. Checking the
plan, skipping what is done and reading the table are timed by themselves. Beside the time on the
clock stands the processor's: on a busy machine, the second says what the work is.

The limit beside: creating, syncing and renaming as many files of these sizes, and the locks, by
bare system calls. What is left above it is Python and netCDF.

Usage: ``python benchmarks/sweep.py --runs 1000``
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import Tensor

from dipkernels import fit, images, networks, sweep, tasks
from dipkernels.sweep.execution import execute
from dipkernels.sweep.store import Store

BLOCK = 20
FILES = ("run.json", "result.nc", "result.json")


def plain(image: Tensor, seed: int) -> None:
    """Carry out one run by hand, from an image that is read once."""
    task = tasks.denoise(images.resize(image, 8), seed=seed)
    prior = networks.create("deep-decoder", image_size=8, channels=1, width=4, code_seed=seed)
    fit(prior, task, iterations=1, seed=seed)


def bare(folder: Path, sizes: list[int]) -> None:
    """Write the files of one run by system calls alone."""
    folder.mkdir(parents=True)
    lock = folder / "lock.0"
    os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    for index, size in enumerate(sizes):
        partial = folder / f".{index}"
        handle = os.open(partial, os.O_CREAT | os.O_WRONLY)
        os.write(handle, b"x" * size)
        os.fsync(handle)
        os.close(handle)
        partial.rename(folder / f"{index}")
    lock.unlink()


def timed(job: Callable[[], object]) -> np.ndarray:
    """Seconds of a job, on the clock and of the processor."""
    start = np.array([time.perf_counter(), time.process_time()])
    job()
    return np.array([time.perf_counter(), time.process_time()]) - start


def measure(runs: int, folder: Path) -> dict[str, np.ndarray]:
    """Time everything; seconds by what was done."""
    asked = {
        "priors": {"name": "deep-decoder", "options": {"width": 4}},
        "images": "camera",
        "sizes": 8,
        "seeds": {"from": 0, "count": runs},
        "measure": {"name": "fit", "iterations": 1},
    }
    made: list[sweep.Sweep] = []
    found = {"checking the plan": timed(lambda: made.append(sweep.load(asked)))}
    (plan,) = made
    image = images.load("camera")
    store = Store.open(folder / "store", create=True)
    where = str(store.path)

    def by_hand(block: range) -> None:
        for seed in block:
            plain(image, seed)

    def swept(block: range) -> None:
        for seed in block:
            execute(asdict(plan.runs[seed]), where)

    by_hand(range(5))  # the first calls of everything
    found |= {"plain loop": np.zeros(2), "sweep": np.zeros(2)}
    for first in range(0, runs, BLOCK):
        block = range(first, min(runs, first + BLOCK))
        found["plain loop"] += timed(lambda block=block: by_hand(block))
        found["sweep"] += timed(lambda block=block: swept(block))
    found["bookkeeping"] = found["sweep"] - found["plain loop"]
    place = store.folder(plan.runs[0].key).path
    sizes = [(place / file).stat().st_size for file in FILES]
    found["limit: files"] = timed(
        lambda: [bare(folder / "bare" / f"{run}", sizes) for run in range(runs)]
    )
    found["skipping done runs"] = timed(lambda: sweep.run(plan, store.path))
    found["reading the table"] = timed(lambda: sweep.table(store.path))
    print(f"{runs} runs; bytes of each: {dict(zip(FILES, sizes, strict=True))}")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        found = measure(runs, Path(name))
    print(f"{'ms a run':24}{'clock':>10}{'processor':>12}")
    for what, seconds in found.items():
        wall, processor = 1e3 * seconds / runs
        print(f"{what:24}{wall:10.2f}{processor:12.2f}")
    ratio = found["sweep"] / found["plain loop"]
    print(f"{'sweep / plain loop':24}{ratio[0]:10.2f}{ratio[1]:12.2f}")
    print("target: bookkeeping under 20 ms a run")


if __name__ == "__main__":
    main()
