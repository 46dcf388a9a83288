"""A fit by this package against the plain loop of the literature, as ratios in one run.

The plain loop is what the reference codes run at every iteration: forward, backward, Adam's step as
torch makes it by default, the PSNRs to the noisy image, to the clean one and of the running average
on the host, with NumPy. Both fit one network to one image from the same weights; they take turns in
blocks of iterations, so that a slow moment of the machine hits both.

1. The engine as it is, and with each option that makes it faster, against the plain loop; with both
   peak PSNRs, and the spread of the peak over seeds, which a faster option must stay within.
2. Several seeds together against one after another.

The limit is stated beside: the operations of the network's convolutions and matrix products (a
forward pass and twice as many backward) per second, beside what a large matrix product reaches
here; what is left of a step above that can't be won by any engine.

Usage: ``python benchmarks/fit.py --size 128 --iterations 200``
       ``python benchmarks/fit.py --device cuda --size 512 --iterations 1000 --seeds 16``
"""

import argparse
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dipkernels import fit, images, networks, tasks
from dipkernels.networks import ImagePrior

BLOCK = 10  # iterations, after which the other's turn comes

Loop = Iterator[float]


def plain_loop(
    prior: ImagePrior, task: tasks.Task, rate: float, iterations: int, peaks: dict[str, float]
) -> Loop:
    """Fit as the reference codes do; yields the seconds of every block."""
    module = prior.module(prior.init(0)).train()
    optimiser = torch.optim.Adam(module.parameters(), lr=rate)
    noisy, clean = (x.cpu().numpy() for x in (task.measurement, task.clean))
    average: Tensor | None = None
    best, start = -np.inf, time.perf_counter()
    for iteration in range(iterations):
        optimiser.zero_grad()
        out = module(prior.code)
        average = out.detach() if average is None else average * 0.99 + out.detach() * 0.01
        loss = nn.functional.mse_loss(out[0], task.measurement)
        loss.backward()
        image = out.detach().cpu().numpy()[0]
        pairs = (image, noisy), (image, clean), (average.cpu().numpy()[0], clean)
        scores = [-10 * np.log10(np.mean((a - b) ** 2)) for a, b in pairs]
        best = max(best, scores[1])
        optimiser.step()
        peaks["plain"] = best
        if (iteration + 1) % BLOCK == 0:
            _wait(prior.device)
            yield time.perf_counter() - start
            start = time.perf_counter()


def engine(
    name: str,
    prior: ImagePrior,
    task: tasks.Task,
    peaks: dict[str, float],
    **settings: Any,
) -> Loop:
    """Fit by `dipkernels.fit`, handing over after every block by a callback's pause."""
    # A generator can't yield from a callback: the fit runs in a thread that waits for its turn.
    turn, done = threading.Semaphore(0), threading.Semaphore(0)
    moments: list[float] = []

    def pause(iteration: int, *_: object) -> None:
        if iteration % BLOCK == 0:
            _wait(prior.device)
            moments.append(time.perf_counter())
            if iteration:
                done.release()
            turn.acquire()
            moments.append(time.perf_counter())

    def run() -> None:
        result = fit(prior, task, callback=pause, **settings)
        peaks[name] = float(np.mean(result.peak_psnr))
        done.release()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    for block in range(settings["iterations"] // BLOCK):
        turn.release()
        done.acquire()
        yield moments[2 * block + 2] - moments[2 * block + 1]
    turn.release()
    thread.join()


def take_turns(loops: dict[str, Loop]) -> dict[str, list[float]]:
    """Run blocks of all in turn; seconds of each block."""
    times: dict[str, list[float]] = {name: [] for name in loops}
    running = dict(loops)
    while running:
        for name, loop in list(running.items()):
            seconds = next(loop, None)
            if seconds is None:
                del running[name]
            else:
                times[name].append(seconds)
    return times


def ratio(times: dict[str, list[float]], one: str, other: str) -> str:
    """Median of the ratios of neighbouring blocks, with their quartiles; the first warms up."""
    pairs = list(zip(times[one], times[other], strict=False))[1:]
    ratios = sorted(a / b for a, b in pairs)
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    return f"{statistics.median(ratios):5.2f} ({low:.2f} to {high:.2f})"


def operations(prior: ImagePrior) -> float:
    """Floating-point operations of one step: forward and backward."""
    leaves = {k: v.requires_grad_() for k, v in prior.init(0).items()}
    with FlopCounterMode(display=False) as counter:
        prior.image(leaves).sum().backward()
    return float(counter.get_total_flops())


def matrix_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product: the practical limit of the machine."""
    a = torch.randn(2048, 2048, device=device, dtype=dtype)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        _wait(device)
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(times)


def compare_options(arguments: argparse.Namespace, prior: ImagePrior, task: tasks.Task) -> None:
    """Print the ratio of the plain loop to each option, and their peaks."""
    n, rate = arguments.iterations, prior.learning_rate or 1e-3
    common = {"learning_rate": rate, "iterations": n}
    options: dict[str, dict[str, Any]] = {
        "engine": {},
        "channels_last": {"channels_last": True},
        "bf16": {"precision": "bf16"},
        "bf16, channels_last": {"precision": "bf16", "channels_last": True},
    }
    if prior.device.type == "cuda":
        options["tf32"] = {"precision": "tf32"}
        options["compiled (CUDA graphs)"] = {"compile": "reduce-overhead"}
        options["compiled, bf16"] = {"compile": "reduce-overhead", "precision": "bf16"}
    if arguments.compile:
        options["compiled"] = {"compile": "default"}
    if len(prior.code.shape) != 4 or "vit" in prior.name:
        options = {k: v for k, v in options.items() if not v.get("channels_last")}
    peaks: dict[str, float] = {}
    loops = {"plain": plain_loop(prior, task, rate, n, peaks)}
    loops |= {k: engine(k, prior, task, peaks, **common, **v) for k, v in options.items()}
    times = take_turns(loops)
    step = {name: statistics.median(blocks[1:]) / BLOCK for name, blocks in times.items()}
    flops = operations(prior)
    print(f"\n{prior.name} {task.shape}: {flops / 1e9:.1f} GFLOP a step")
    for name in times:
        speed = "" if name == "plain" else f"plain / it {ratio(times, 'plain', name)}"
        print(
            f"  {name:24} {step[name] * 1e3:8.1f} ms  {flops / step[name] / 1e9:7.0f} GFLOP/s  "
            f"peak {peaks[name]:6.2f} dB  {speed}"
        )


def seed_spread(arguments: argparse.Namespace, prior: ImagePrior, task: tasks.Task) -> None:
    """Fit several seeds together and one after another: their ratio, and the peaks' spread."""
    seeds, n = list(range(arguments.seeds)), arguments.iterations
    start = time.perf_counter()
    apart = [fit(prior, task, seed=seed, iterations=n) for seed in seeds]
    one_by_one = time.perf_counter() - start
    start = time.perf_counter()
    together = fit(prior, task, seed=seeds, iterations=n)
    at_once = time.perf_counter() - start
    peaks = np.array([one.attrs["peak_psnr"] for one in apart])
    print(
        f"  {len(seeds)} seeds: peak {peaks.mean():.2f} +- {peaks.std(ddof=1):.2f} dB one by one, "
        f"{float(together.peak_psnr.mean()):.2f} +- {float(together.peak_psnr.std(ddof=1)):.2f} "
        f"together; one by one / together {one_by_one / at_once:.2f}"
    )


def main() -> None:
    """Print a block of lines a prior."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--priors", nargs="+", default=["skip"])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=4, help="1 leaves the second part out")
    parser.add_argument("--image", default="astronaut")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="also torch.compile, default mode")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    task = tasks.denoise(images.load(arguments.image, size=arguments.size)).to(device=device)
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(
        f"{kind}, {torch.get_num_threads()} threads; a 2048x2048 matrix product runs at "
        f"{matrix_speed(device, torch.float32) / 1e9:.0f} GFLOP/s in float32, "
        f"{matrix_speed(device, torch.bfloat16) / 1e9:.0f} in bfloat16"
    )
    for name in arguments.priors:
        prior = networks.create(name, image_size=arguments.size).to(device=device)
        compare_options(arguments, prior, task)
        if arguments.seeds > 1:
            seed_spread(arguments, prior, task)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
