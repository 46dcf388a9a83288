"""Where a result comes from: versions, device, settings, time."""

import datetime
import functools
import hashlib
import importlib.metadata
import platform

import torch
from torch import Tensor

from dipkernels.networks.prior import ImagePrior

PACKAGES = ("dipkernels", "torch", "numpy", "scipy", "scikit-image", "xarray")


def provenance(device: str | torch.device) -> dict[str, str]:
    """Describe the software, the machine and the moment.

    Parameters
    ----------
    device : str or torch.device
        That computes.

    Returns
    -------
    dict of str to str
        Fit for the attributes of a dataset.
    """
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


def describe_prior(prior: ImagePrior) -> dict[str, str | int]:
    """Name the prior in the attributes of a dataset.

    Parameters
    ----------
    prior : ImagePrior
        The network.

    Returns
    -------
    dict
        Name, parameter count and dtype.
    """
    return {
        "prior": prior.name,
        "parameters": prior.parameter_count,
        "dtype": str(prior.dtype).removeprefix("torch."),
    }


def fingerprint(*items: Tensor | str) -> str:
    """Hash tensors and texts, to tell whether two computations are of the same things.

    Parameters
    ----------
    *items : Tensor or str
        In order.

    Returns
    -------
    str
        Their SHA-256.
    """
    digest = hashlib.sha256()
    for item in items:
        data = item.encode() if isinstance(item, str) else item.detach().cpu().numpy().tobytes()
        digest.update(data)
    return digest.hexdigest()


@functools.cache  # a search of all installed packages
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
