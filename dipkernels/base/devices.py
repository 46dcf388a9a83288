"""Devices by name, checked before anything runs on them."""

import torch

from dipkernels.errors import DeviceError


def resolve_device(name: str | torch.device) -> torch.device:
    """Turn a name into a device that is there.

    Parameters
    ----------
    name : str or torch.device
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    Returns
    -------
    torch.device
        Ready to use.

    Raises
    ------
    DeviceError
        If there is no such device, or it lacks float64, which the small side of all estimates
        needs.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"no such device: '{name}'; use cpu, cuda or cuda:N") from None
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise DeviceError(f"device '{name}' is not supported; use cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise DeviceError(f"no device '{name}': this machine has no CUDA GPU; use the cpu")
    if (device.index or 0) >= count:
        raise DeviceError(f"no device '{name}': this machine has cuda:0 to cuda:{count - 1}")
    return device
