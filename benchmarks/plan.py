"""Plans against what was then taken: seconds and peak memory of fits and kernel products.

For every case, one fresh process plans it and another runs it, both after a small job that loads
the libraries. Memory is the process's peak beyond what it had before; seconds are of the whole
call. A ratio is planned over measured; the last column says whether both lie within 25 %. On a
machine that does something else besides, the seconds say little. Memory of less than 100 MB is up
to what the allocator has left over from before.

Usage: ``python benchmarks/plan.py`` or ``python benchmarks/plan.py --cases 0 3 --threads 1``
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

TOLERANCE = 0.25

# Name, size, options of the fit (None: no fit), products.
CASES: list[tuple[str, int, dict[str, object] | None, int]] = [
    ("skip", 128, {"iterations": 30}, 0),
    ("skip", 256, {"iterations": 10}, 0),
    ("skip", 128, {"iterations": 10, "seeds": 3}, 0),
    ("skip", 128, {"iterations": 20, "backtracking": 5.0, "total_variation_weight": 1e-6}, 0),
    ("deep-decoder", 128, {"iterations": 100}, 0),
    ("deep-decoder", 256, {"iterations": 30}, 0),
    ("deep-decoder", 128, {"iterations": 30, "seeds": 4}, 0),
    ("deep-decoder", 256, {"iterations": 110, "monitors": ["windowed-variance"]}, 0),
    ("conv-decoder", 128, {"iterations": 20, "optimiser": "l-bfgs"}, 0),
    ("vit", 128, {"iterations": 100}, 0),
    ("vit", 256, {"iterations": 20}, 0),
    ("vit", 128, {"iterations": 40, "seeds": 3}, 0),
    ("swin", 64, {"iterations": 20}, 0),
    ("swin", 64, {"iterations": 20, "optimiser": "sgd", "learning_rate": 1e-3}, 0),
    ("conv3-vit", 128, {"iterations": 40}, 0),
    ("skip", 128, None, 20),
    ("deep-decoder", 128, None, 40),
    ("vit", 128, None, 40),
    ("swin", 64, None, 15),
]


def run_child(task: str, case: int, threads: int) -> dict[str, float]:
    """Plan or run a case in a process of its own."""
    command = [sys.executable, __file__, "--child", task, "--cases", str(case)]
    command += ["--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def resident() -> int:
    """Bytes that this process has now."""
    import os

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def child(task: str, case: int, threads: int) -> None:
    """Do one case, and print what was planned or measured."""
    import torch

    from dipkernels import images, networks, plan, tasks
    from dipkernels.priors.memory import resident_bytes

    torch.set_num_threads(threads)
    name, size, options, matvecs = CASES[case]
    do_small_job(options, matvecs)
    image = images.load("astronaut", size=size)
    problem = tasks.denoise(image)
    prior = networks.create(name, image_size=size)
    before = resident()
    start = time.perf_counter()
    if task == "plan":
        planned = plan(
            prior, None if options is None else problem, matvecs=matvecs, **options or {}
        )
        print(json.dumps({"seconds": planned.seconds, "bytes": planned.bytes}))
        return
    do(prior, problem, options, matvecs)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "bytes": resident_bytes() - before}))


def do(prior: object, problem: object, options: dict[str, object] | None, matvecs: int) -> None:
    """Fit, or run Lanczos on the kernel."""
    from dipkernels import NTK, fit
    from dipkernels.linalg import Lanczos

    if options is not None:
        options = dict(options)
        seeds = options.pop("seeds", 1)
        fit(prior, problem, seed=list(range(seeds)), **options)
    if matvecs:
        ntk = NTK(prior, prior.init(0))
        Lanczos(ntk, ntk.rademacher(1, 0)).extend(matvecs)


def do_small_job(options: dict[str, object] | None, matvecs: int) -> None:
    """Load all that a job of this kind needs."""
    import torch

    from dipkernels import networks, tasks

    prior = networks.create("deep-decoder", image_size=16, width=8, upsamplings=2)
    problem = tasks.denoise(torch.full((3, 16, 16), 0.5))
    do(prior, problem, None if options is None else options | {"iterations": 2}, min(matvecs, 2))


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", type=int, default=list(range(len(CASES))))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", choices=("plan", "run"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.cases[0], arguments.threads)
        return
    print(f"{arguments.threads} threads; planned / measured = ratio", flush=True)
    good = 0
    for case in arguments.cases:
        name, size, options, matvecs = CASES[case]
        planned, taken = (run_child(task, case, arguments.threads) for task in ("plan", "run"))
        ratios = [planned[key] / taken[key] for key in ("bytes", "seconds")]
        within = [abs(ratio - 1) <= TOLERANCE for ratio in ratios]
        good += all(within)
        said = (
            f"{matvecs} products"
            if options is None
            else " ".join(f"{key}={value}" for key, value in options.items())
        )
        print(
            f"{case:3} {name} {size}, {said}: "
            f"{planned['bytes'] / 1e6:.0f} / {taken['bytes'] / 1e6:.0f} MB = {ratios[0]:.2f}, "
            f"{planned['seconds']:.1f} / {taken['seconds']:.1f} s = {ratios[1]:.2f}; "
            + ("within 25 %" if all(within) else f"memory {within[0]}, seconds {within[1]}"),
            flush=True,
        )
    print(f"{good} of {len(arguments.cases)} within 25 % in both")


if __name__ == "__main__":
    main()
