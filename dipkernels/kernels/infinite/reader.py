"""Follows a network's forward pass and keeps, for each tensor, the kernels of its channels."""

import numbers
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.infinite.features import Branch, Features, ImageMean, Known
from dipkernels.kernels.infinite.weights import Initialisations
from dipkernels.kernels.stationary import mixed
from dipkernels.priors.prior import Parameters


@dataclass(frozen=True)
class Operation:
    """One operation that the reader understood."""

    path: str  # of the module in the network that it happened in
    name: str  # as torch calls it
    size: tuple[int, ...]  # of the torus after it
    period: tuple[int, ...]  # of the kernel after it


@dataclass(frozen=True)
class ReaderSettings:
    """What the reader may choose; see `dipkernels.kernels.infinite_width`."""

    standard: bool
    max_period: int | None
    drawn_pixels: int
    seed: int
    variances: Mapping[str, float]


class Reader(TorchFunctionMode):
    """Runs a network on its code once, with a rule for each operation that depends on it.

    `torch.fx` would trace symbols, and stop where a network computes with the sizes of its tensors,
    as U-nets do when they crop; real tensors have real sizes. Operations on tensors that don't
    depend on the code are left to torch.
    """

    def __init__(
        self,
        parameters: Parameters,
        initialisations: Initialisations,
        settings: ReaderSettings,
        rules: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.settings = settings
        self.initialisations = initialisations
        self.operations: list[Operation] = []
        self.notes: list[str] = []
        self.widths: dict[str, int] = {}
        self.path: list[str] = []
        self.result: Any = None  # of the operation at hand
        self.constants: set[int] = set()  # frozen tensors of which nothing is random
        self._rules = rules
        self._parameters = parameters
        # Tensors are kept with what is known of them, so that no other gets their identity.
        self._known: dict[int, tuple[Tensor, Known]] = {}
        self._names = {id(value): (value, name) for name, value in parameters.items()}
        self._used: dict[str, str] = {}

    def learn(self, tensor: Tensor, known: Known) -> None:
        """Keep what is known of a tensor."""
        self._known[id(tensor)] = (tensor, known)

    def known(self, value: object) -> Known | None:
        """Look up what is known of a value."""
        found = self._known.get(id(value))
        return None if found is None else found[1]

    def features(self, value: object, *, any_order: bool = False) -> Features:
        """Look up the features of a tensor to which an operation can be applied."""
        found = self.known(value)
        if isinstance(found, ImageMean) and not found.subtracted:
            found = found.pooled
        if not isinstance(found, Features):
            raise self.unknown("what it is applied to is no image of features")
        if found.after is not None:
            found = found.after()
        if found.axes is not None and not any_order:
            raise self.unknown("its axes are permuted or flattened: channels must come first")
        return found

    def whole(self, value: object, use: str, *, any_order: bool = False) -> Features:
        """Look up features of all pixels of a torus, and no others."""
        features = self.features(value, any_order=any_order)
        if any(low or high for low, high in features.borders):
            raise self.unknown(f"{use} of a padded or cropped image")
        return features

    def parameter(self, value: Tensor) -> tuple[str, float] | None:
        """Tell of which random or trained parameter a tensor is a multiple."""
        if id(value) in self.constants:
            return None
        found = self._names.get(id(value))
        if found is not None:
            return found[1], 1.0
        for name, parameter in self._parameters.items():
            if parameter.data_ptr() == value.data_ptr() and parameter.numel() == value.numel():
                return name, 1.0  # reshaped
            if parameter.shape == value.shape:
                norm = parameter.square().sum()
                factor = (parameter * value).sum() / norm
                if norm > 0 and torch.allclose(value, factor * parameter, rtol=1e-4) and factor > 0:
                    return name, float(factor)
        return None

    def trained(self, name: str) -> bool:
        """Tell whether a parameter is trained; a frozen one has no part in the tangent kernel."""
        return name in self.initialisations.trained

    def number(self, value: object) -> float | None:
        """Read a constant number, which a tensor of one element may hold."""
        if isinstance(value, numbers.Real):
            return float(value)
        if isinstance(value, Tensor) and value.numel() == 1 and self.known(value) is None:
            return None if self.parameter(value) is not None else float(value)
        return None

    def use(self, name: str) -> None:
        """Mark a weight as used: a second time its layers would not be independent."""
        if name in self._used:
            raise self.unknown(
                f"its weight '{name}' was used before, in '{self._used[name]}': layers that share "
                "weights are not independent (for several images, take the prior of one)"
            )
        self._used[name] = self.where

    @property
    def where(self) -> str:
        """Path of the module at hand."""
        return self.path[-1] if self.path and self.path[-1] else "(the network itself)"

    def seed(self) -> int:
        """Seed of the next draw."""
        return derive(f"infinite width {len(self.operations)}", self.settings.seed)

    def note(self, text: str) -> None:
        """Keep a remark on the result, once."""
        if text not in self.notes:
            self.notes.append(text)

    def unknown(self, reason: str) -> InvalidInputError:
        """Make the error for an operation that has no infinite-width limit here."""
        return InvalidInputError(
            f"'{self._name}' in '{self.where}' can't be read for its infinite-width kernel: "
            f"{reason}"
        )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        results = [result] if isinstance(result, Tensor) else result
        several = isinstance(results, tuple | list) and any(isinstance(r, Tensor) for r in results)
        given = any(self.known(leaf) is not None for leaf in tree_leaves((args, kwargs)))
        if not (given and several):
            return result
        self._name, self.result = plain_name(func), result
        if self._name not in self._rules:
            raise self.unknown(
                "there is no rule for it (see docs/infinite-width.md for those known)"
            )
        found = self._rules[self._name](self, *args, **kwargs)
        found = found if isinstance(found, list) else [found]
        for tensor, known in zip(results, found, strict=True):
            self.learn(tensor, known)
            if isinstance(known, Features):
                kernel = known.branches[0].kernel
                where = self.where
                self.operations.append(Operation(where, self._name, kernel.size, kernel.period))
        return result

    @contextmanager
    def following(self, module: nn.Module) -> Iterator[None]:
        """Know where in the module each operation happens."""
        handles = []

        def enter(path: str) -> Any:
            return lambda _module, _args: self.path.append(path)

        def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
            self.path.pop()

        for path, part in module.named_modules():
            handles.append(part.register_forward_pre_hook(enter(path)))
            handles.append(part.register_forward_hook(leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def plain_name(func: Any) -> str:
    """Name an operation without its marks: ``__add__`` and ``add_`` are ``add``."""
    name = str(getattr(func, "__name__", func)).strip("_")
    if name == "get":  # of an attribute, such as Tensor.mT, its own
        name = str(getattr(getattr(func, "__self__", None), "__name__", name))
    return name


def single(features: Features) -> Branch:
    """Merge concatenated branches into what a layer of weights sees."""
    branches = features.branches
    if len(branches) == 1:
        return branches[0]
    kernel = mixed([b.kernel for b in branches], [b.channels for b in branches])
    return Branch(features.channels, kernel, features.sources, gaussian=False)
