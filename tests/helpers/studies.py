"""Plans with measurements that take no time, and say what they did."""

import os
import signal
import textwrap
import time
from pathlib import Path
from typing import Any

import yaml

from dipkernels import sweep

MODULE = """
    import os, time
    from pathlib import Path
    from dipkernels import sweep

    def note(folder, text):
        handle = os.open(Path(folder) / "log.txt", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        os.write(handle, f"{{text}} {{os.getpid()}}\\n".encode())
        os.close(handle)

    def probe(prior, task, *, seed, folder: str = "", seconds: float = 0.0):
        note(folder, f"start {{seed}}")
        time.sleep(seconds)
        while (Path(folder) / "hold").exists():
            time.sleep(0.01)
        blocker = Path(folder) / f"block-{{seed}}"
        if blocker.exists():
            raise ValueError(f"seed {{seed}} is blocked")
        note(folder, f"end {{seed}}")
        return {{"twice": 2 * seed, "mean": float(task.clean.mean())}}

    sweep.register_measurement("{name}", probe)
"""


def write_study(
    folder: Path, seeds: int, *, seconds: float = 0.0, images: str | list[str] = "camera"
) -> Path:
    """Write a plan and the module that it imports; returns the plan's file."""
    name = f"study_{abs(hash(str(folder))):x}"
    module = textwrap.dedent(MODULE).format(name=name)
    (folder / f"{name}.py").write_text(module, encoding="utf-8")
    plan: dict[str, Any] = {
        "imports": name,
        "priors": {"name": "deep-decoder", "options": {"width": 4}},
        "images": images,
        "sizes": 8,
        "seeds": {"from": 0, "count": seeds},
        "measure": {"name": name, "folder": str(folder), "seconds": seconds},
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(plan), encoding="utf-8")
    return file


def wait_for_processes(folder: Path, count: int) -> list[int]:
    """Wait until runs of so many processes are under way; they go on once ``hold`` is removed."""
    deadline = time.monotonic() + 90
    while len({process for _, process in log(folder, "start")}) < count:
        if time.monotonic() > deadline:
            (folder / "hold").unlink(missing_ok=True)
            raise TimeoutError("no run was begun")
        time.sleep(0.02)
    return [process for _, process in log(folder, "start")]


def kill_one(folder: Path, count: int) -> int:
    """Kill one of so many processes in the middle of its run; returns its number."""
    process = wait_for_processes(folder, count)[0]
    os.kill(process, signal.SIGKILL)
    (folder / "hold").unlink()
    return process


def log(folder: Path, word: str) -> list[tuple[int, int]]:
    """Seeds and processes of what the measurements noted with a word."""
    file = folder / "log.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    parts = [line.split() for line in lines]
    return [(int(seed), int(process)) for said, seed, process in parts if said == word]


def rows(store: Path) -> dict[int, int]:
    """What the table says of each seed."""
    table = sweep.table(store)
    return dict(zip(table["seed"], table["twice"], strict=True))
