"""A module as a pure function of its tensors and its code: what has to be done to make it one."""

import copy
import threading
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.parametrizations import _Orthogonal, _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as _SpectralHook
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint
from torch.utils._pytree import tree_leaves, tree_map

from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.priors.attention import (
    AttentionInSteps,
    attention_in_steps,
    differentiable_attention,
)
from dipkernels.priors.stateless import has_ties, hollowed

_REGISTERED = ("_parameters", "_buffers", "_modules")
_MAPPINGS = (dict, OrderedDict, defaultdict)  # hooks are kept in an OrderedDict
_SEQUENCES = (list, deque)


class Network:
    """A module, emptied of its parameters, called with other tensors in their place.

    A call depends on these and on the code alone. `observe` runs the module once and finds out
    what that takes for this one: most modules need nothing, and pay nothing for the others.
    """

    def __init__(self, module: nn.Module) -> None:
        self._complex = [k for k, v in module.named_parameters() if v.is_complex()]
        self._spectral = _spectral_norms(module)
        self.module = hollowed(module)
        self._tied = has_ties(module)
        self._attends = self._reaches = self._writes = False
        self._checkpoints = self._chooses_kernels = self._threads = False
        self._kept: dict[str, dict[str, Any]] = {}  # attributes of modules that change theirs
        self._lock = threading.RLock()  # a call puts its tensors into the one module

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def __call__(self, tensors: Mapping[str, Tensor], code: Any) -> Any:
        """Call the module with these tensors in the place of its own."""
        if torch.compiler.is_compiling():  # which knows no locks
            return self._call(tensors, code)
        with self._lock:
            return self._call(tensors, code)

    def copied(self) -> "Network":
        """Copy the modules, but not the tensors that are registered in them."""
        held = {id(t): t for t in [*self.module.parameters(), *self.module.buffers()]}
        return copy.deepcopy(self, held)

    def observer(self) -> "Observed":
        """Make what watches a call."""
        return Observed({id(tensor) for _, tensor in self._registered()})

    def observe(self, seen: "Observed", tensors: Mapping[str, Tensor], code: Any) -> None:
        """Call the module, and learn what its calls take."""
        self._attends = True
        before = {name: _attributes(part) for name, part in self.module.named_modules()}
        eager = torch.compiler.set_stance("force_eager")
        with self._lock, warnings.catch_warnings(), eager, seen:
            warnings.filterwarnings(
                "ignore", message="Using `torch.compile.module.` when there are"
            )
            own, code = tensors_of(code), copied(code)
            given = tensors_of(code)
            versions = [each._version for each in given]
            seen.output = self._call(tensors, code)
        self._attends, self._reaches, self._threads = seen.attends, seen.reaches, seen.threads
        self._checkpoints, self._chooses_kernels = seen.checkpoints, seen.chooses_kernels
        # what is written to x.data leaves no version
        kept = all(_equal(a, b) for a, b in zip(own, given, strict=True))
        self._writes = not kept or versions != [each._version for each in given]
        self._kept = {
            name: before[name]
            for name, part in self.module.named_modules()
            if not _same_attributes(before[name], _attributes(part))
        }
        self._restore()

    def companions(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the buffers that follow from parameters, as training moves them."""
        found: dict[str, Tensor] = {}
        for weight, u, v, dim in self._spectral:
            found |= dict(zip((u, v), _singular_vectors(tensors[weight], dim), strict=True))
        return found

    def as_module_has(self, name: str, value: Tensor) -> Tensor:
        """Give a parameter the type that it has in the module: complex ones are kept as pairs."""
        return torch.view_as_complex(value.contiguous()) if name in self._complex else value

    def _call(self, tensors: Mapping[str, Tensor], code: Any) -> Any:
        if self._threads and _transforms():
            raise RuntimeError("it starts threads, which torch.func's transforms don't reach")
        if self._complex:
            tensors = {key: self.as_module_has(key, value) for key, value in tensors.items()}
        if self._spectral:
            tensors = {**tensors, **self.companions(tensors)}
        if self._writes:
            code = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, code)
        args, kwargs = arguments(code)
        with ExitStack() as stack:
            if self._attends:
                stack.enter_context(differentiable_attention())
            if self._chooses_kernels:
                stack.enter_context(AttentionInSteps())
            if self._checkpoints:
                stack.enter_context(without_checkpoints())
            if self._reaches:
                given = {id(t): tensors[key] for key, t in self._registered()}
                stack.enter_context(_Substituted(given))
            if self._kept:
                stack.callback(self._restore)
            # Looking for ties costs a walk through the network, at every call.
            tied = self._tied
            return functional_call(self.module, dict(tensors), args, kwargs, tie_weights=tied)

    def _registered(self) -> list[tuple[str, Tensor]]:
        return [*self.module.named_parameters(), *self.module.named_buffers()]

    def _restore(self) -> None:
        for name, attributes in self._kept.items():
            own = self.module.get_submodule(name).__dict__
            for key in own.keys() - attributes.keys() - set(_REGISTERED):
                del own[key]
            own.update({key: _shallow(value) for key, value in attributes.items()})


class Observed(TorchFunctionMode):
    """What a call of a module does that a pure function of its tensors doesn't.

    Each name in `calls` is an operation's, with the module that called it first.
    """

    output: Any = None
    attends = False  # calls torch's attention,
    chooses_kernels = False  # by a kernel of its own choice
    reaches = False  # comes to a tensor other than by its attribute
    threads = False  # starts threads
    # gives up activations, to make them again when the tensors aren't in their places any more
    checkpoints = False

    def __init__(self, registered: Set[int] = frozenset()) -> None:
        super().__init__()
        self._paths: dict[int, str] = {}
        self._registered = registered
        self._within: list[str] = []
        self.normalises: set[str] = set()  # modules that use running statistics by hand
        self.single: set[str] = set()  # and that see one value of each channel: no statistics
        self.calls: dict[str, str] = {}

    @property
    def path(self) -> str:
        """Name of the module that is running."""
        return self._within[-1] if self._within else ""

    @property
    def place(self) -> str:
        """Say where that is, in brackets."""
        return f" (in its part '{self.path}')" if self.path else ""

    def __enter__(self) -> Any:
        self._stack = ExitStack()
        self._stack.enter_context(without_checkpoints(self))
        self._stack.enter_context(_noted_threads(self))
        self._hooks = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave),
        ]
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*raised)
        self._stack.close()

    def _enter(self, part: nn.Module, _: Any) -> None:
        if not self._paths:
            self._paths = {id(each): name for name, each in part.named_modules()}
        self._within.append(self._paths.get(id(part), self.path))

    def _leave(self, *_: Any) -> None:
        self._within.pop()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        self.calls.setdefault(name, self.path)
        self.attends = self.attends or "attention" in name
        if func is nn.functional.scaled_dot_product_attention:
            self.chooses_kernels |= not torch.backends.cuda.math_sdp_enabled()
            return attention_in_steps(*args, **kwargs)
        if not self.reaches and self._registered:
            self.reaches = any(id(x) in self._registered for x in tree_leaves((args, kwargs)))
        if func in (nn.functional.batch_norm, nn.functional.instance_norm):
            by_statistics = _uses_running_statistics(*args, **kwargs)
            if func is nn.functional.batch_norm and not by_statistics:
                x = args[0] if args else kwargs["input"]
                if x.numel() == x.shape[1]:
                    self.single.add(self.path)
                    return x
            if by_statistics:
                self.normalises.add(self.path)
        return func(*args, **kwargs)


# Whether statistics are the input's is the sixth argument of both, under other names.
def _uses_running_statistics(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    own: bool | None = None,
    *_: Any,
    training: bool = False,
    use_input_stats: bool = False,
    **__: Any,
) -> bool:
    own = training or use_input_stats if own is None else own
    return running_mean is not None and not own


class _Substituted(TorchFunctionMode):
    """Puts the given tensors in the place of those that a module holds in a list or a closure."""

    def __init__(self, given: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._given = given

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map(lambda x: self._given.get(id(x), x), (args, kwargs or {}))
        return func(*args, **kwargs)


# torch's checkpoints are switched off for all threads.
_checkpoints = threading.RLock()


@contextmanager
def without_checkpoints(seen: "Observed | None" = None) -> Iterator[None]:
    """Keep activations, whatever a network says."""

    class Kept:
        @staticmethod
        def apply(function: Any, _: bool, *args: Any) -> Any:
            _note(seen)
            return function(*args)

    def unchanged(*_: Any, **__: Any) -> Iterator[None]:
        _note(seen)
        yield

    with (
        _checkpoints,
        patch.object(checkpoint, "CheckpointFunction", Kept),
        patch.object(checkpoint, "_checkpoint_without_reentrant_generator", unchanged),
    ):
        yield


@contextmanager
def _noted_threads(seen: "Observed") -> Iterator[None]:
    own, start = threading.get_ident(), threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        seen.threads |= threading.get_ident() == own
        start(thread)

    with patch.object(threading.Thread, "start", noted):
        yield


# They are one thread's own: in another one a derivative would be lost without a word.
def _transforms() -> bool:
    functional = torch._C._functorch.peek_interpreter_stack() is not None
    return functional or torch.autograd.forward_ad._current_level >= 0


def _note(seen: "Observed | None") -> None:
    if seen is not None:
        seen.checkpoints = True


def require_finite_images(images: Tensor, prior: object) -> None:
    """Check images that initialisations have made."""
    if not images.isfinite().all():
        raise DivergenceError(f"{prior} makes images with NaN or infinity: check the network")


def require_like(code: Any, own: Any) -> Any:
    """Check a code that is given in place of another: as many tensors, of as many channels."""
    given, kept = tensors_of(code), tensors_of(own)
    if [(x.dim(), x.shape[1:2]) for x in given] != [(x.dim(), x.shape[1:2]) for x in kept]:
        raise InvalidInputError(
            f"code must be of shape {', '.join(str(tuple(x.shape)) for x in kept)}, as the "
            f"prior's own, got {', '.join(str(tuple(x.shape)) for x in given)}"
        )
    return code


def tensors_of(code: Any) -> list[Tensor]:
    """List the tensors of a code, which may be a tuple or a dict of them."""
    return [each for each in tree_leaves(code) if isinstance(each, Tensor)]


def copied(code: Any) -> Any:
    """Copy the tensors of a code."""
    return tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, code)


def arguments(code: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Say what a module is called with."""
    if isinstance(code, dict):
        return (), code
    return (tuple(code) if isinstance(code, tuple | list) else (code,)), {}


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {k: _shallow(v) for k, v in module.__dict__.items() if k not in _REGISTERED}


def _shallow(value: Any) -> Any:
    return copy.copy(value) if type(value) in (*_MAPPINGS, *_SEQUENCES, set) else value


def _same_attributes(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)


def _same(one: Any, other: Any) -> bool:
    kind = type(one)
    if kind is type(other) and kind in _MAPPINGS:
        return _same_attributes(one, other)
    if kind is type(other) and kind in _SEQUENCES:
        return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
    return one is other or (kind is type(other) is set and one == other)


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())


# Names of each weight that is divided by its largest singular value, and of both singular vectors,
# which torch keeps in buffers and improves by power iteration while it trains.
def _spectral_norms(module: nn.Module) -> list[tuple[str, str, str, int]]:
    found = []
    for name, part in module.named_modules():
        if isinstance(part, _Orthogonal) and getattr(part, "base", None) is not None:
            raise InvalidInputError(
                f"'{name}' draws its weight into a buffer, which is no parameter: all draws would "
                "be the same; pass torch's orthogonal(..., orthogonal_map='householder', "
                "use_trivialization=False)"
            )
        if isinstance(part, _SpectralNorm) and hasattr(part, "_u"):
            weights, _, place = name.rpartition(".")
            if place != "0":
                raise InvalidInputError(
                    f"'{name}' is a spectral norm on top of another parametrisation: a kernel "
                    "can't follow its singular vectors; register it first"
                )
            found.append((f"{weights}.original", f"{name}._u", f"{name}._v", part.dim))
        for hook in part._forward_pre_hooks.values():
            if isinstance(hook, _SpectralHook):
                own = f"{name}." * bool(name) + hook.name
                found.append((f"{own}_orig", f"{own}_u", f"{own}_v", hook.dim))
    return found


# Where power iteration goes to. Constants, as torch has them: their derivative is zero there.
def _singular_vectors(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    matrix = weight.detach().movedim(dim, 0).flatten(1)
    tall = matrix.shape[0] > matrix.shape[1]
    short = matrix.mH if tall else matrix
    first = torch.linalg.eigh(short @ short.mH)[1][:, -1]
    second = nn.functional.normalize(short.mH @ first, dim=0)
    return (second, first) if tall else (first, second)
