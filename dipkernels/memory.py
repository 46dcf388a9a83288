"""What a computation will need, before it runs: memory of a network's pass, chunk sizes."""

import os
import resource
import sys
from pathlib import Path

import torch
from torch import Tensor

from dipkernels.networks.prior import ImagePrior, Parameters

MIB = 2**20
DEFAULT_BUDGET = 512 * MIB
CACHE = 8 * MIB


def parameter_bytes(parameters: Parameters) -> int:
    """Memory of one set of parameters.

    Parameters
    ----------
    parameters : dict of str to Tensor
        As `ImagePrior.init` returns.

    Returns
    -------
    int
        Bytes.
    """
    return sum(p.numel() * p.element_size() for p in parameters.values())


def activation_bytes(prior: ImagePrior, parameters: Parameters) -> int:
    """Memory that one forward pass keeps for its backward pass, measured by running one.

    Parameters
    ----------
    prior : ImagePrior
        The network.
    parameters : dict of str to Tensor
        Where.

    Returns
    -------
    int
        Bytes of the distinct tensors saved, parameters not counted.
    """
    own = {p.untyped_storage().data_ptr() for p in parameters.values()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    leaves = {k: p.detach().requires_grad_() for k, p in parameters.items()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        prior.image(leaves)
    return sum(saved.values())


def block_columns(prior: ImagePrior, parameters: Parameters, budget: int = DEFAULT_BUDGET) -> int:
    """Count the products that fit a memory budget together.

    A column needs its own gradient and about three times the activations of one pass (gradients,
    tangents and what is live between). On a CPU, columns that don't fit its cache are taken one by
    one: a block of them was up to 25 % slower.

    Parameters
    ----------
    prior : ImagePrior
        The network.
    parameters : dict of str to Tensor
        Where.
    budget : int
        Bytes.

    Returns
    -------
    int
        At least 1.
    """
    column = parameter_bytes(parameters) + 3 * activation_bytes(prior, parameters)
    on_cpu = next(iter(parameters.values())).device.type == "cpu"
    if on_cpu and column > CACHE:
        return 1
    return max(1, budget // max(1, column))


def available_memory(device: torch.device) -> int:
    """Memory that is free now.

    Parameters
    ----------
    device : torch.device
        Where.

    Returns
    -------
    int
        Bytes; on the CPU what Linux calls available, or all of the machine's elsewhere.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(":") for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def resident_bytes() -> int:
    """Most memory that this process has had so far.

    Returns
    -------
    int
        Bytes, resident.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
