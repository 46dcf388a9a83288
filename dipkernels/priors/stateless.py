"""How a module becomes a pure function: made anew, emptied, and its attention differentiable."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import replace_all_batch_norm_modules_
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import UninitializedParameter
from torch.overrides import TorchFunctionMode

from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError
from dipkernels.priors.initialisation import Initialisation, initialise

Parameters = dict[str, Tensor]


def build(factory: Callable[[], nn.Module], seed: int, initialisation: Initialisation) -> nn.Module:
    """Make a new module, drawn under a random state of its own and made stateless."""
    cuda = torch.cuda.is_initialized()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else []):
        # Not torch.manual_seed, which would also seed a CUDA that is started only later.
        random_state = torch.default_generator.manual_seed(derive("init", seed))
        if cuda:
            torch.cuda.manual_seed_all(derive("init", seed))
        before = random_state.get_state()
        module = factory()
        # One that draws nothing may hand out a module that others use: not ours to empty.
        reused = torch.equal(random_state.get_state(), before) and factory() is module
        _require_fresh(module, reused)
        initialise(module, initialisation)
    replace_all_batch_norm_modules_(module)  # no running statistics: those of the one image
    return module.eval()


def _require_fresh(module: object, reused: bool) -> None:
    kind = type(module).__name__
    if not isinstance(module, nn.Module):
        raise InvalidInputError(
            f"factory returned {kind}, not a torch.nn.Module: pass the class or a function that "
            "builds the network, such as lambda: MyNet(3)"
        )
    if reused:
        raise InvalidInputError(
            f"factory returned the same {kind} twice: let it build a new one at every call, "
            "lambda: MyNet(3) instead of lambda: net"
        )
    if any(isinstance(parameter, UninitializedParameter) for parameter in module.parameters()):
        raise InvalidInputError(
            f"{kind} has lazy layers, whose shapes are not known yet: let the factory call the "
            "module once before it returns it"
        )


def parameters_of(module: nn.Module, *, trainable: bool) -> Parameters:
    """Take a module's parameters, or its constants."""
    named = module.named_parameters()
    return {k: v.detach() for k, v in named if v.requires_grad == trainable}


def has_ties(module: nn.Module) -> bool:
    """Tell whether a parameter or buffer has several names."""

    def counts(*, once: bool) -> tuple[int, int]:
        parameters = module.named_parameters(remove_duplicate=once)
        return len(list(parameters)), len(list(module.named_buffers(remove_duplicate=once)))

    return counts(once=True) != counts(once=False)


def hollowed(module: nn.Module) -> nn.Module:
    """Give up the memory of the parameters but keep their identity, so that ties survive."""
    for parameter in module.parameters():
        parameter.data = parameter.new_zeros(()).expand(parameter.shape)
    return module


class AttentionCalls(TorchFunctionMode):
    """Notices calls of torch's attention: only then `differentiable_attention` is needed.

    Without it a call is quicker, and `torch.compile` can take the network whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.seen = self.seen or "attention" in getattr(func, "__name__", "")
        return func(*args, **(kwargs or {}))


@contextmanager
def differentiable_attention() -> Iterator[None]:
    """Make torch's own attention layers differentiable in forward mode."""
    # Its fused kernels have no forward-mode derivative (pytorch#98164), nor has the encoder layers'
    # inference path.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
