"""Where a result comes from: versions, device, settings, time."""

import datetime
import functools
import hashlib
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

PACKAGES = ("dipkernels", "torch", "numpy", "scipy", "scikit-image", "xarray")


def provenance(device: str | torch.device) -> dict[str, str]:
    """Describe the software, the machine and the moment."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        **{f"version_{package}": _version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "device": f"{device} ({name})",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "created": now(),
    }


def session() -> dict[str, str]:
    """Say which command computes, from which commit of a checkout, and when it began."""
    found = {"command_line": command_line(), "started": now()}
    return found | ({"commit": commit} if (commit := checkout_commit()) else {})


def now() -> str:
    """Say the time, in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def command_line() -> str:
    """Write the command of this process as it would be typed again."""
    program, *arguments = sys.argv or [""]
    path = Path(program)
    module = f"python -m {path.parent.name}".split() if path.name == "__main__.py" else [path.name]
    return shlex.join([*module, *arguments])


@functools.cache
def checkout_commit() -> str:
    """Name the commit of the checkout that this package is run from, or nothing."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = commit.returncode or _git(root, "diff", "--quiet", "HEAD").returncode
        return commit.stdout.strip() + " with changes" * (changed == 1)
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)


def digest(*items: Tensor | str) -> str:
    """Hash tensors and texts, to tell whether two computations are of the same things."""
    found = hashlib.sha256()
    for item in items:
        data = item.encode() if isinstance(item, str) else _bytes(item)
        found.update(data)
    return found.hexdigest()


def _bytes(item: Tensor) -> bytes:  # NumPy has no bfloat16
    return item.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@functools.cache  # a search of all installed packages
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
