"""Devices by name, checked before anything runs on them."""

import torch

from dipkernels.errors import DeviceError


def resolve_device(name: str | torch.device) -> torch.device:
    """Turn a name into a device that is there.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """  # noqa: DOC201, DOC501
    device = parse_device(name)
    if is_present(device):
        return device
    count = _cuda_count()
    if count == 0:
        raise DeviceError(f"no device '{name}': this machine has no CUDA GPU; use the cpu")
    raise DeviceError(f"no device '{name}': this machine has cuda:0 to cuda:{count - 1}")


def parse_device(name: str | torch.device) -> torch.device:
    """Turn a name into a device, whether it is there or not."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"no such device: '{name}'; use cpu, cuda or cuda:N") from None
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise DeviceError(f"device '{name}' is not supported; use cpu, cuda or cuda:N")
    return device


def is_present(device: torch.device) -> bool:
    """Tell whether this machine has a device."""
    return device.type == "cpu" or (device.index or 0) < _cuda_count()


def _cuda_count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
