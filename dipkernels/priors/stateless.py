"""How a module is made: under a random state of its own, in a stated mode, and emptied."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError
from dipkernels.priors.initialisation import Initialisation, initialise

Parameters = dict[str, Tensor]

IMAGE, EVALUATION, MODULE = "image", "evaluation", "module"
NORMALISATIONS = (IMAGE, EVALUATION, MODULE)

# The global random state is one for all threads: two that draw at once would share it.
_drawing = threading.RLock()


@dataclass(frozen=True)
class Modes:
    """In which mode a network runs, and which of its modules in another one."""

    normalisation: str = IMAGE
    training: frozenset[str] = frozenset()  # those that normalise by hand
    untouched: frozenset[str] = frozenset()  # those that see a single value of each channel

    def apply(self, module: nn.Module) -> nn.Module:
        """Set a new module's modes, in place."""
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.register_forward_hook(_with_contiguous_gradient)
        if self.normalisation != MODULE:
            module.eval()
        if self.normalisation == IMAGE:
            for name, part in module.named_modules():
                if isinstance(part, nn.modules.batchnorm._NormBase) and name not in self.untouched:
                    # no running statistics: those of the one image
                    part.track_running_stats = False
                    part.running_mean = part.running_var = part.num_batches_tracked = None
                part.training = name in self.training
        return module


# torch 2.13 computes a wrong backward pass of BatchNorm on a CPU, without a word, where the
# gradient of a single image lies in memory as tokens do, channels last: what a transformer behind
# it sends back. To go through these two views, which copy nothing, it is put in order.
def _with_contiguous_gradient(_: nn.Module, __: Any, out: Tensor) -> Tensor:
    needed = torch.is_grad_enabled() and out.is_contiguous()
    return out.reshape(-1).reshape(out.shape) if needed else out


@contextmanager
def random_state(seed: int) -> Iterator[torch.Generator]:
    """Draw from a seed, by torch's, NumPy's and Python's global generators, and restore these."""
    cuda = torch.cuda.is_initialized()
    with _drawing:
        others = np.random.get_state(), random.getstate()
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else []):
            # Not torch.manual_seed, which would also seed a CUDA that is started only later.
            drawn = torch.default_generator.manual_seed(seed)
            if cuda:
                torch.cuda.manual_seed_all(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            try:
                yield drawn
            finally:
                np.random.set_state(others[0])
                random.setstate(others[1])


def build(
    factory: Callable[[], nn.Module], seed: int, initialisation: Initialisation, modes: Modes
) -> nn.Module:
    """Make a new module, drawn under a random state of its own."""
    with random_state(derive("init", seed)) as generator:
        before = generator.get_state()
        module = factory()
        # One that draws nothing may hand out a module that others use: not ours to empty.
        reused = torch.equal(generator.get_state(), before) and factory() is module
        _require_fresh(module, reused)
        initialise(module, initialisation)
    return modes.apply(module)


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
    """Take a module's parameters, or its constants; a complex one's two numbers are a last axis."""
    named = [(k, v.detach()) for k, v in module.named_parameters() if v.requires_grad == trainable]
    return {k: torch.view_as_real(v) if v.is_complex() else v for k, v in named}


def converted(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert a module in place, as ``module.to(dtype)``, which drops imaginary parts."""

    def convert(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(dtype.to_complex())
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    module._apply(convert)
    return module


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
