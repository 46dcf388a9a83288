"""What a computation will need, before it runs: memory of a network's pass, chunk sizes."""

import resource
import sys
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dipkernels.base.checks import checked
from dipkernels.base.memory import free_bytes, linux_bytes
from dipkernels.priors.linearised import LinearisedPrior
from dipkernels.priors.prior import ImagePrior, Parameters

MIB = 2**20
DEFAULT_BUDGET = 512 * MIB
CACHE = 8 * MIB


def parameter_bytes(parameters: Parameters) -> int:
    """Memory of one set of parameters."""
    return sum(p.numel() * p.element_size() for p in parameters.values())


def activation_bytes(prior: ImagePrior, parameters: Parameters) -> int:
    """Memory that one forward pass keeps for its backward pass, measured by running one."""
    prior = prior.network if isinstance(prior, LinearisedPrior) else prior
    own = {_storage(p) for p in parameters.values()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.layout is torch.strided and _storage(tensor) not in own:
            saved[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    leaves = {k: p.detach().requires_grad_() for k, p in parameters.items()}
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            prior.image(leaves)
    except RuntimeError:  # a network that takes derivatives by torch.func, which forbids hooks
        with _Results() as results:
            prior.image(leaves)
        return int(results.bytes)
    return sum(saved.values())


class _Results(TorchDispatchMode):
    """Counts what all operations return: more than what is kept of it."""

    bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.bytes += tensor.numel() * tensor.element_size()
        return result


@checked
class Unfilled(ImagePrior):
    """A prior whose parameters are never drawn: to trace it with tensors that hold no numbers.

    For use under torch's ``FakeTensorMode``. The network's modules are copied, because what one
    keeps from a call would be such an empty tensor; the parameters and buffers are not.
    """

    def __init__(self, prior: ImagePrior) -> None:
        self.__dict__.update(prior.__dict__)
        self._network = prior._network.copied()

    def init(self, seed: int = 0) -> Parameters:
        """Make parameters that hold no numbers."""
        return {
            key: torch.empty(shape, dtype=self.dtype, device=self.device)
            for key, shape in self.parameter_shapes.items()
        }


@checked
class UnfilledLinearised(LinearisedPrior):
    """The same of a linearised prior, which is traced when parameters are first asked for."""

    def __init__(self, prior: LinearisedPrior) -> None:
        self.__dict__.update(prior.__dict__)
        self.network = Unfilled(prior.network)
        del self._tangents

    def init(self, seed: int = 0) -> Parameters:
        """Make parameters that hold no numbers."""
        if not hasattr(self, "_tangents"):
            self.origin = self.network.init()
            self._tangents = self._linearise()
        return self.network.init()

    start = init


def unfilled(prior: ImagePrior) -> ImagePrior:
    """Make a prior whose parameters hold no numbers, of the same kind."""
    return UnfilledLinearised(prior) if isinstance(prior, LinearisedPrior) else Unfilled(prior)


def block_columns(
    prior: ImagePrior,
    parameters: Parameters,
    budget: int = DEFAULT_BUDGET,
    device: torch.device | None = None,
) -> int:
    """Count the products that fit a memory budget together."""
    column = parameter_bytes(parameters) + 3 * activation_bytes(prior, parameters)
    if (device or prior.device).type == "cpu" and column > CACHE:
        return 1
    return max(1, budget // max(1, column))


def available_memory(device: torch.device) -> int:
    """Memory that is free now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_bytes()


def resident_bytes() -> int:
    """Most memory that this process has had so far."""
    # Not the resource usage, where Linux tells it: that outlives an exec, so that the child of a
    # large process begins with the peak of its parent.
    try:
        return linux_bytes("/proc/self/status", "VmHWM")
    except (OSError, KeyError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


# Identity of a tensor's memory; views share it. An empty tensor's has no address.
def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
