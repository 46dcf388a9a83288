"""Derivatives by torch's ordinary autograd, for networks that `torch.func` can't take."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.overrides import TorchFunctionMode

from dipkernels.errors import InvalidInputError
from dipkernels.priors.attention import AttentionInSteps
from dipkernels.priors.evaluation import Observed
from dipkernels.priors.stateless import Parameters


class DoubleBackward:
    """Products with a Jacobian and its transpose, one image at a time.

    ``J u`` is the derivative of ``v -> J^T v``, which is linear in v. Both graphs are kept.
    """

    def __init__(self, image_of: Callable[[Parameters], Tensor], parameters: Parameters) -> None:
        self._leaves = {key: p.detach().requires_grad_() for key, p in parameters.items()}
        with torch.enable_grad():
            self._image = image_of(self._leaves)
            weights = torch.linspace(1, 2, self._image.numel(), dtype=self._image.dtype)
            self._weights = weights.to(self._image.device).reshape(self._image.shape)
            self._gradients = self._pulled(self._weights.requires_grad_(), create_graph=True)
        for key, g in zip(self._leaves, self._gradients, strict=True):
            if g is not None and not g.requires_grad and g.any():
                raise RuntimeError(
                    f"a backward pass on the way to {key!r} can't be differentiated in its turn"
                )
        self.image = self._image.detach()
        self.jvp({key: torch.zeros_like(p) for key, p in self._leaves.items()})

    def vjp(self, image: Tensor) -> tuple[Parameters]:
        """Multiply one image by ``J^T``."""
        found = zip(self._leaves.items(), self._pulled(image.detach()), strict=True)
        return ({key: torch.zeros_like(p) if g is None else g for (key, p), g in found},)

    def jvp(self, directions: Parameters) -> Tensor:
        """Multiply one direction by ``J``."""
        pairs = zip(self._leaves, self._gradients, strict=True)
        reached = [(g, directions[k]) for k, g in pairs if g is not None and g.requires_grad]
        if not reached:
            return torch.zeros_like(self.image)
        gradients, given = zip(*reached, strict=True)
        return torch.autograd.grad(gradients, self._weights, given, retain_graph=True)[0]

    def _pulled(self, image: Tensor, *, create_graph: bool = False) -> tuple[Tensor | None, ...]:
        if not self._image.requires_grad:
            return (None,) * len(self._leaves)
        return torch.autograd.grad(
            self._image,
            list(self._leaves.values()),
            image,
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
        )


def double_backward(
    image_of: Callable[[Parameters], Tensor], parameters: Parameters
) -> DoubleBackward:
    """Differentiate by plain operations, else as the network says; or name what can't be."""
    try:
        with plain_operations():
            return DoubleBackward(image_of, parameters)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # such as an operation that must be compiled
        try:
            return DoubleBackward(image_of, parameters)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever an operation can't do
            text = str(error).split("\n")[0].rstrip(".")
            raise InvalidInputError(
                "the derivative of this network by its parameters can't be taken"
                f"{_place(image_of, parameters, text)}: {text}; replace the operation, or measure "
                "what needs images alone"
            ) from error


@contextmanager
def plain_operations() -> Iterator[None]:
    """Run compiled parts as they are written, and attention in steps."""
    with torch.compiler.set_stance("force_eager"), AttentionInSteps():
        yield


def infinite_slope(image_of: Callable[[Parameters], Tensor], parameters: Parameters) -> str:
    """Name the first operation whose derivative isn't finite, and where it is."""
    seen = Observed()
    try:
        with torch.no_grad(), dual_level(), seen, _FirstInfinite(seen) as first:
            image_of({k: make_dual(p, torch.ones_like(p)) for k, p in parameters.items()})
    except Exception:  # what has no forward mode; this only looks for a name
        return ""
    found: str = first.found
    return found


class _FirstInfinite(TorchFunctionMode):
    def __init__(self, seen: Observed) -> None:
        super().__init__()
        self._seen = seen
        self.found = ""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.found and isinstance(result, Tensor):
            tangent = unpack_dual(result).tangent
            if tangent is not None and not tangent.isfinite().all():
                self.found = f": that of {func.__name__} is infinite{self._seen.place}"
        return result


# An error names an operation, its first call has a place in the network.
def _place(image_of: Callable[[Parameters], Tensor], parameters: Parameters, text: str) -> str:
    seen = Observed()
    try:
        with torch.no_grad(), seen:
            image_of(parameters)
    except Exception:  # where the forward pass itself fails
        return seen.place
    plain = text.lower().replace("_", "")
    names = [name for name in seen.calls if len(name) > 2 and name.replace("_", "") in plain]
    path = seen.calls[max(names, key=len)] if names else ""
    return f" (in its part '{path}')" if path else ""
