"""Where a result comes from: versions, device, settings, time."""

import datetime
import functools
import hashlib
import importlib.metadata
import platform

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
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


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
