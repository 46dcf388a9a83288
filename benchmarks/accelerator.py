"""What waits for a GPU, in order of worth and in 14 minutes: tests, ratios, one `paper` preset.

Each stage is a process of its own, whose output goes to ``OUTPUT/STAGE.log``. It may take its share
of ``--limit`` and what the stages before it left. One that ended well is marked by
``OUTPUT/STAGE.done`` and skipped by the next run of the same command; one that failed, or ran out
of time, is listed with the last line that it printed, and tried again. The last stage is the
``paper`` preset of an experiment, which goes on in ``OUTPUT/STAGE`` where it was stopped; further
ones run with ``--stages NAME ...`` (some need the images of DIPKERNELS_DATA), in equal shares.
Nothing is downloaded. ``--device cpu --quick`` runs everything at toy size, to see that it works.

Usage: ``python benchmarks/accelerator.py --output runs/gpu``
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
ADDOPTS = "--strict-markers --import-mode=importlib"
GRACE = 30.0  # seconds that a stage has to store what it did, once it is stopped
LIMIT = 14 * 60.0
PAPER = "first_comparison"  # fits and kernels of six networks at 512x512, without other images
# Of the time: what is worth most first, so that it isn't lost where the time is too short.
SHARES = {"tests": 0.25, "fit": 0.15, "seeds": 0.1, "ntk": 0.1, "posterior": 0.1, PAPER: 0.3}
Command = list[str]


def stages(device: str, output: Path, *, quick: bool) -> dict[str, Command]:
    """Commands by stage, in the order of their worth."""
    marker = ("" if device == "cuda" else "not ") + "cuda and not long and not slow"
    tests = ["tests/fitting", "tests/test_ntk.py", "tests/test_linearisation.py"] if quick else []
    priors, repeats = ["--priors", "skip", "vit"], "2" if quick else "9"
    iterations = ["--iterations", "5" if quick else "300"]
    sizes = ["16", "24"] if quick else ["64", "128", "256", "512"]
    draws = ["--size", "16", "--iterations", "40"] if quick else ["--size", "128"]
    fit = ["benchmarks/fit.py", "--device", device, *iterations]
    ntk = ["benchmarks/ntk.py", "--device", device, *priors]
    return {
        # in one process, and without pytest-xdist, which the machine may lack
        "tests": ["-m", "pytest", "-q", "-o", f"addopts={ADDOPTS}", "-m", marker, *tests],
        "fit": [*fit, "--size", "64" if quick else "512", "--seeds", "1"],
        "seeds": [*fit, "--size", "32" if quick else "128", "--seeds", "2" if quick else "16"],
        "ntk": [*ntk, "--sizes", *sizes, "--repeats", repeats],
        "posterior": ["benchmarks/posterior.py", "--device", device, *draws, "--seeds", "1"],
        **experiments(device, output, preset="smoke" if quick else "paper"),
    }


def experiments(device: str, output: Path, *, preset: str) -> dict[str, Command]:
    """Commands of all experiments, by name."""
    command = ["-m", "dipkernels", "experiment", "--preset", preset, "--device", device, "--output"]
    names = sorted(path.parent.name for path in ROOT.glob("experiments/*/run.py"))
    return {name: [*command, str(output / name), name] for name in names}


def run(name: str, command: Command, output: Path, limit: float) -> str:
    """Run one stage; say how it ended."""
    log, done = output / f"{name}.log", output / f"{name}.done"
    if done.exists():
        return f"done before, {done.read_text(encoding='utf-8').strip()}"
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            stop(process)
            return f"stopped after {limit:.0f} s, see {log}"
        except BaseException:  # Ctrl-C, or SIGTERM: nothing goes on alone
            stop(process)
            raise
    seconds = time.perf_counter() - start
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"failed with {code} after {seconds:.0f} s: {lines[-1] if lines else 'no output'}"
    done.write_text(f"{seconds:.0f} s on {kind()}\n", encoding="utf-8")
    return f"{seconds:.0f} s"


def waiting(chosen: list[str], output: Path) -> list[tuple[str, float]]:
    """Stages, and which part of the time is kept for those that come later and aren't done."""
    shares = {name: SHARES.get(name, max(SHARES.values())) for name in chosen}
    shares = {name: 0.0 if (output / f"{name}.done").exists() else shares[name] for name in chosen}
    whole = sum(shares.values()) or 1.0
    parts = [shares[name] / whole for name in chosen]
    return [(name, sum(parts[i + 1 :])) for i, name in enumerate(chosen)]


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process as Ctrl-C would, so that it keeps what it did; by force if it doesn't."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kind() -> str:
    """Name the device that this machine has."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def main() -> int:
    """Run what isn't done; the exit code counts the stages that still are not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="toy sizes")
    parser.add_argument(
        "--limit", type=float, default=LIMIT, help="seconds for all of it; the last 30 to stop in"
    )
    parser.add_argument("--stages", nargs="+", help="only these, by name")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu --quick tries the script out")
    output = arguments.output.resolve()  # stages run in the root
    known = stages(arguments.device, output, quick=arguments.quick)
    chosen = arguments.stages or list(SHARES)
    if unknown := set(chosen) - set(known):
        parser.error(f"no stage is called {sorted(unknown)}; there are {list(known)}")
    output.mkdir(parents=True, exist_ok=True)
    print(f"{kind()}, torch {torch.__version__}; results in {output}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    working = arguments.limit - GRACE
    end, missing = time.monotonic() + working, 0
    for name, later in waiting(chosen, output):
        left = end - time.monotonic() - later * working
        ended = run(name, known[name], output, left) if left > 5 else "no time left"
        missing += not (output / f"{name}.done").exists()
        print(f"{name:24} {ended}", flush=True)
    return missing


if __name__ == "__main__":
    raise SystemExit(main())
